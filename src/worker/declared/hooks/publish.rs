//! A declared publish whose event is a hook's: the declaration has subject, message, longest wait and reply fields.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::events::{append, put_appended};
use super::super::fields::Found;
use super::kept::{Content, Kept};
use super::{Reply, is_nothing, undeclared};
use crate::fault::Fault;
use crate::schema::operation::{Operation, Publication};
use crate::snapshot::Method;
use crate::store::Appended;
use crate::transcode::shape_check;
use crate::worker::records::encoded;
use crate::worker::service::{Call, UnaryCall, read};
use crate::worker::shapes::{check_reply, check_request, named};
use crate::worker::{Context, Failed, reply};

/// What makes the reply of an event that the log has.
pub trait Confirm<E, R>: FnOnce(&E, &Appended) -> R + Send + 'static {}

impl<E, R, F: FnOnce(&E, &Appended) -> R + Send + 'static> Confirm<E, R> for F {}

/// A reply as it is kept for repeats, with what the declaration adds to it.
#[derive(Serialize, Deserialize)]
struct Said<R> {
    reply: R,
    sequence: u64,
    is_duplicate: bool,
}

pub(super) fn publish<Q, E, R, F, U>(kept: &Kept, method: &Method, hook: Arc<F>) -> Result<Call, Vec<String>>
where
    Q: DeserializeOwned + Send + 'static,
    E: Content,
    R: Reply,
    F: Fn(Context, Q) -> Result<(String, E, U), Fault> + Send + Sync + 'static,
    U: Confirm<E, R>,
{
    let Some(Operation::HookedPublish(publication)) = method.operation.as_deref() else {
        return Err(vec![undeclared(method, "publish")]);
    };
    let mut problems = check_request::<Q>(method);
    problems.extend(named("event", shape_check::<E>(&method.tables, publication.message, &[])));
    if !is_nothing::<R>() {
        let filled = [publication.sequence_into, publication.duplicate_into].into_iter().flatten();
        problems.extend(check_reply::<R>(method, &filled.collect::<Vec<_>>()));
    }
    let Some(repeats) = kept.repeats().filter(|_| problems.is_empty()) else { return Err(problems) };
    let publication = Arc::new(publication.clone());
    let call: UnaryCall = Arc::new(move |context, payload| {
        let request = read::<Q>(&context, payload)?;
        let (publication, repeats, hook) = (publication.clone(), repeats.clone(), hook.clone());
        Ok(Box::pin(async move {
            let said = async {
                let (id, event, told) = hook(context.clone(), request)?;
                repeats.once(&context, keep::<E, R>(&context, &publication, id, event, told)).await
            };
            let fields = async { fields(&context, &publication, &said.await.map_err(|failed| failed.fault)?) };
            match fields.await {
                Ok(fields) => reply::success_encoded(&context, &fields),
                Err(fault) => Err(reply::failure::<R>(&context, fault, None)),
            }
        }))
    });
    Ok(Call::Unary(call))
}

async fn keep<E: Content, R>(
    context: &Context,
    publication: &Publication,
    id: String,
    event: E,
    told: impl Confirm<E, R>,
) -> Result<Said<R>, Failed<Said<R>>> {
    let found = Found { context, payload: context.payload() };
    let payload = encoded(context, &publication.message_name, &event)?;
    let appended = append(&found, publication, payload, id).await?;
    let Appended { sequence, is_duplicate } = appended;
    Ok(Said { reply: told(&event, &appended), sequence, is_duplicate })
}

/// The reply's fields: the hook's, and those that the declaration fills.
fn fields<R: Reply>(context: &Context, publication: &Publication, said: &Said<R>) -> Result<Vec<u8>, Fault> {
    let mut fields = Vec::new();
    if !is_nothing::<R>() {
        reply::append(context, context.method().reply, &said.reply, &mut fields)?;
    }
    let Said { sequence, is_duplicate, .. } = *said;
    put_appended(publication, &Appended { sequence, is_duplicate }, &mut fields);
    Ok(fields)
}
