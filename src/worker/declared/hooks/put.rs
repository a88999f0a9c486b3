//! A declared put whose rule is a hook's: the declaration has key, mode, expected version, age, reply fields and event.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::documents::{check_mode, check_version, key_of, notice};
use super::super::fields::{Found, place as put_document};
use super::super::unanswered;
use super::kept::{Content, Documents};
use super::{Reply, is_nothing};
use crate::fault::{Code, Fault};
use crate::schema::operation::{Action, Hooked, Into};
use crate::store::key;
use crate::transcode::wire::put_number;
use crate::worker::records::{Change, Current, Document, base64_text};
use crate::worker::service::Answer;
use crate::worker::{Context, Failed, Repeats, reply};

/// What a hook decides about a document: it sees what is there and says what follows. It may run several times, because a
/// lost race is run anew.
pub trait Rule<T, R>: Fn(&Current<T>) -> Result<Change<T, R>, Failed<R>> + Send + Sync + 'static {}

impl<T, R, F: Fn(&Current<T>) -> Result<Change<T, R>, Failed<R>> + Send + Sync + 'static> Rule<T, R> for F {}

/// A [`Rule`] that is given another document as well, where there is one under the declared key.
pub trait RuleBeside<T, R>:
    Fn(&Current<T>, Option<&Document<T>>) -> Result<Change<T, R>, Failed<R>> + Send + Sync + 'static
{
}

impl<T, R, F> RuleBeside<T, R> for F where
    F: Fn(&Current<T>, Option<&Document<T>>) -> Result<Change<T, R>, Failed<R>> + Send + Sync + 'static
{
}

/// A put with what its hook works on.
pub(super) struct Put<T> {
    pub(super) documents: Documents<T>,
    pub(super) repeats: Repeats,
    pub(super) hooked: Hooked,
}

/// A reply as it is kept for repeats, with what the declaration adds to it.
#[derive(Serialize, Deserialize)]
struct Said<R> {
    reply: R,
    version: u64,
    revision: u64,
    /// The document as written, where the reply shows it.
    #[serde(with = "base64_text")]
    document: Vec<u8>,
}

/// Where a reply that says nothing itself shows the document.
pub(super) fn shown<R: 'static>(into: Option<&Into>) -> Option<&Into> {
    into.filter(|into| matches!(into, Into::Field(_) | Into::SameNames(Some(_), _)) || is_nothing::<R>())
}

/// What a hook has decided: the tokens of the key, where the declaration has none, and the rule.
pub(super) type Decided<U> = Result<(Option<Vec<String>>, U), Fault>;

impl<T: Content> Put<T> {
    /// Does the put as the hook decides. What it decides with another document is part of what is kept for repeats.
    pub(super) async fn answer<R: Reply, U: RuleBeside<T, R>>(
        &self,
        context: &Context,
        decided: impl Future<Output = Decided<U>>,
    ) -> Answer {
        match self.write(context, decided).await {
            Ok(said) => match self.fields(context, &said) {
                Ok(fields) => reply::success_encoded(context, &fields),
                Err(fault) => Err(reply::failure::<R>(context, fault, None)),
            },
            Err(failed) => {
                let said = failed.reply.map(|said| said.reply);
                Err(reply::failure(context, failed.fault, said.as_ref().filter(|_| !is_nothing::<R>())))
            }
        }
    }

    /// The document beside, for a hook that says the key by it.
    pub(super) async fn beside(&self, context: &Context) -> Result<Option<Document<T>>, Fault> {
        let Some(tokens) = &self.hooked.beside else { return Err(unanswered()) };
        let place = key_of(&Found { context, payload: context.payload() }, tokens)?;
        self.documents.get(context, &place, false).await
    }

    async fn write<R: Serialize + DeserializeOwned + 'static, U: RuleBeside<T, R>>(
        &self,
        context: &Context,
        decided: impl Future<Output = Decided<U>>,
    ) -> Result<Said<R>, Failed<Said<R>>> {
        let found = Found { context, payload: context.payload() };
        let declared = key_of(&found, &self.hooked.key)?;
        let beside = self.hooked.beside.as_ref().map(|key| key_of(&found, key)).transpose()?;
        let write = async {
            let (tokens, rule) = decided.await?;
            let (place, beside) = match tokens {
                // A hook that says the key has been given the document beside.
                Some(tokens) => {
                    let tenant = std::iter::once(context.tenant().to_owned());
                    (key(&tenant.chain(tokens).collect::<Vec<_>>()), None)
                }
                None => (declared, beside),
            };
            let rule = |current: &Current<T>, beside: Option<&Document<T>>| {
                self.decided(&found, &place, current, |current| rule(current, beside))
            };
            let done = self.documents.change(context, &place, beside.as_deref(), rule).await?;
            Ok(Said { version: done.version, revision: done.revision, ..done.reply })
        };
        self.repeats.once(context, write).await
    }

    /// What follows from the document by the declaration and the hook's rule.
    fn decided<R: 'static>(
        &self,
        found: &Found<'_>,
        place: &str,
        current: &Current<T>,
        rule: impl Fn(&Current<T>) -> Result<Change<T, R>, Failed<R>>,
    ) -> Result<Change<T, Said<R>>, Failed<Said<R>>> {
        let Hooked { kind, key, action, .. } = &self.hooked;
        let Action::Put { mode, expected_version, expected_revision, into, event, .. } = action else {
            return Err(unanswered().into());
        };
        check_mode(found, kind, key, mode, current)?;
        check_version(found.number(expected_version.as_ref()), current)?;
        check_revision(found.number(expected_revision.as_ref()), current)?;
        let said = |reply: R| Said { reply, version: 0, revision: 0, document: Vec::new() };
        let change = rule(current)
            .map_err(|Failed { fault, reply }| Failed { fault, reply: reply.map(|reply| Box::new(said(*reply))) })?;
        let expires_at_ms = kind.ttl.map_or(0, |ttl| current.now_ms + ttl.as_millis() as i64);
        let change = change.or_expires_at_ms(expires_at_ms);
        let (version, shown) = (current.version + 1, shown::<R>(into.as_ref()));
        let wire = match change.document() {
            Some(written) if shown.is_some() || event.is_some() => {
                Some(self.documents.printed(found.context, written, version, current.now_ms)?)
            }
            _ => None,
        };
        let told = match &wire {
            Some(wire) => notice(found, kind, event.as_deref(), place, version, wire.clone())?,
            None => None,
        };
        // A rule that writes nothing leaves the document as it was, and the reply shows that.
        let document = match (shown, wire, &current.value) {
            (None, ..) => Vec::new(),
            (Some(_), Some(wire), _) => wire,
            (Some(_), None, Some(value)) if !change.deletes() => {
                self.documents.printed(found.context, value, current.version, current.updated_ms)?
            }
            (Some(_), None, _) => Vec::new(),
        };
        let change = change.with_reply(|reply| Said { document, ..said(reply) });
        Ok(if let Some(notice) = told { change.event(notice) } else { change })
    }

    /// The reply's fields: the hook's, and those that the declaration fills.
    fn fields<R: Reply>(&self, context: &Context, said: &Said<R>) -> Result<Vec<u8>, Fault> {
        let mut fields = Vec::new();
        let Action::Put { into, version_into, revision_into, .. } = &self.hooked.action else {
            return Err(unanswered());
        };
        if !is_nothing::<R>() {
            reply::append(context, context.method().reply, &said.reply, &mut fields)?;
        }
        if let Some(into) = shown::<R>(into.as_ref()).filter(|_| !said.document.is_empty()) {
            put_document(into, &said.document, &mut fields)?;
        }
        for (number, value) in [(version_into, said.version), (revision_into, said.revision)] {
            if let Some(number) = number {
                put_number(*number, value, &mut fields);
            }
        }
        Ok(fields)
    }
}

fn check_revision<T>(expected: u64, current: &Current<T>) -> Result<(), Fault> {
    if expected == 0 || expected == current.revision {
        return Ok(());
    }
    let text = format!("revision is {}, expected {expected}", current.revision);
    Err(Fault::client(Code::FailedPrecondition, text)
        .detail("reason", "revision_mismatch")
        .detail("current_revision", current.revision.to_string()))
}
