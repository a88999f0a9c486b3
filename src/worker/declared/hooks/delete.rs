//! A declared delete whose hook says whether the document may go, and what else tells that it does.

use super::super::deleting::Deletion;
use super::super::fields::Found;
use super::super::unanswered;
use super::kept::{Content, Documents};
use crate::fault::Fault;
use crate::schema::operation::{Action, Hooked};
use crate::worker::records::{Current, Document, Notice};
use crate::worker::service::Answer;
use crate::worker::{Context, Failed, Repeats, reply};

/// What a hook says of a document that is to go: why it cannot, or the events that tell it. It may run several times,
/// because a lost race is run anew.
pub trait Parting<T>: Fn(Document<&T>) -> Result<Vec<Notice>, Fault> + Send + Sync + 'static {}

impl<T, F: Fn(Document<&T>) -> Result<Vec<Notice>, Fault> + Send + Sync + 'static> Parting<T> for F {}

/// A delete with what its hook works on.
pub(super) struct Delete<T> {
    pub(super) documents: Documents<T>,
    pub(super) repeats: Repeats,
    pub(super) hooked: Hooked,
}

impl<T: Content> Delete<T> {
    pub(super) async fn answer(&self, context: &Context, parting: impl Parting<T>) -> Answer {
        match self.write(context, parting).await {
            Ok(fields) => reply::success_encoded(context, &fields),
            Err(fault) => Err(reply::failure::<()>(context, fault, None)),
        }
    }

    async fn write(&self, context: &Context, parting: impl Parting<T>) -> Result<Vec<u8>, Fault> {
        let Hooked { kind, key, action: Action::Delete(plan), .. } = &self.hooked else { return Err(unanswered()) };
        let found = Found { context, payload: context.payload() };
        let deletion = Deletion::of(&found, kind, key, plan)?;
        let rule = |current: &Current<T>, _: Option<&Document<T>>| {
            let change = deletion.decided(current, |value| self.documents.content(context, value))?;
            let Some(value) = &current.value else { return Ok(change) };
            let (version, revision, updated_ms) = (current.version, current.revision, current.updated_ms);
            Ok(change.events(parting(Document { value, version, revision, updated_ms })?))
        };
        let write = async {
            let done =
                self.documents.change(context, &deletion.place, None, rule).await.map_err(|failed| failed.fault)?;
            Ok(deletion.reply(&done))
        };
        self.repeats.once(context, write).await.map_err(|failed: Failed<Vec<u8>>| failed.fault)
    }
}
