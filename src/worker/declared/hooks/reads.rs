//! Declared reads whose replies a hook makes: get, list, watch.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::super::documents::key_of;
use super::super::fields::Found;
use super::kept::{Content, Kept};
use super::{Fitting, Reply, fitting};
use crate::fault::Fault;
use crate::schema::operation::Action;
use crate::snapshot::Method;
use crate::store::Keys;
use crate::worker::records::{Document, RecordSeen};
use crate::worker::service::{Call, StreamCall, UnaryCall, answered, read};
use crate::worker::shapes::{check_chunk, check_reply, check_request};
use crate::worker::{Chunks, Context, Failed};

/// What a watch with an interval is asked about: what was seen, or nothing where time alone has passed.
pub type Moment<T> = Option<RecordSeen<T>>;

pub(super) fn get<Q, T, R, E, F>(kept: &Kept, method: &Method, hook: Arc<F>) -> Result<Call, Vec<String>>
where
    Q: DeserializeOwned + Send + 'static,
    T: Content,
    R: Reply,
    E: Into<Failed<R>> + 'static,
    F: Fn(&Context, &Q, Option<Document<T>>) -> Result<R, E> + Send + Sync + 'static,
{
    let fitting = Arc::new(fitting::<T>(kept, method, "get")?);
    let mut problems = check_request::<Q>(method);
    problems.extend(check_reply::<R>(method, &[]));
    if !problems.is_empty() {
        return Err(problems);
    }
    let call: UnaryCall = Arc::new(move |context, payload| {
        let request = read::<Q>(&context, payload)?;
        let (fitting, hook) = (fitting.clone(), hook.clone());
        Ok(Box::pin(async move {
            let found = async {
                let Fitting { hooked, documents } = &*fitting;
                let place = key_of(&Found { context: &context, payload: context.payload() }, &hooked.key)?;
                let may_lag = matches!(hooked.action, Action::Get { may_lag: true });
                documents.get(&context, &place, may_lag).await
            };
            answered(&context, made(found.await, |found| hook(&context, &request, found)))
        }))
    });
    Ok(Call::Unary(call))
}

/// What a hook makes of what was found.
fn made<T, R, E: Into<Failed<R>>>(
    found: Result<T, Fault>,
    hook: impl FnOnce(T) -> Result<R, E>,
) -> Result<R, Failed<R>> {
    hook(found?).map_err(Into::into)
}

pub(super) fn list<Q, T, R, E, F>(kept: &Kept, method: &Method, hook: Arc<F>) -> Result<Call, Vec<String>>
where
    Q: DeserializeOwned + Send + 'static,
    T: Content,
    R: Reply,
    E: Into<Failed<R>> + 'static,
    F: Fn(&Context, &Q, Vec<(String, Document<T>)>) -> Result<R, E> + Send + Sync + 'static,
{
    let fitting = Arc::new(fitting::<T>(kept, method, "list")?);
    let mut problems = check_request::<Q>(method);
    problems.extend(check_reply::<R>(method, &[]));
    if !problems.is_empty() {
        return Err(problems);
    }
    let call: UnaryCall = Arc::new(move |context, payload| {
        let request = read::<Q>(&context, payload)?;
        let (fitting, hook) = (fitting.clone(), hook.clone());
        Ok(Box::pin(async move {
            let found = async {
                let Fitting { hooked, documents } = &*fitting;
                let under = key_of(&Found { context: &context, payload: context.payload() }, &hooked.key)?;
                documents.list(&context, &Keys::Under(under), 0).await
            };
            answered(&context, made(found.await, |found| hook(&context, &request, found)))
        }))
    });
    Ok(Call::Unary(call))
}

/// What a hook of a watch counts on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is told each change.
    Changes,
    /// It knows the documents of a watch that goes on.
    Knowing,
    /// As well, and it is asked in the declared interval.
    Every,
}

/// What the reader of a watch has: nothing where it begins with what is there; behind a revision that is kept, the
/// documents as they are, for a hook that has to know them.
type Had<T> = Option<Vec<(String, Document<T>)>>;

pub(super) fn watch<Q, T, I, F, Tell>(
    kept: &Kept,
    method: &Method,
    kind: Kind,
    hook: Arc<F>,
) -> Result<Call, Vec<String>>
where
    Q: DeserializeOwned + Send + 'static,
    T: Content,
    I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
    F: Fn(Context, Q, Had<T>) -> Result<Tell, Fault> + Send + Sync + 'static,
    Tell: FnMut(Moment<T>) -> Result<I, Fault> + Send + 'static,
{
    let fitting = Arc::new(fitting::<T>(kept, method, "watch")?);
    let mut problems = check_request::<Q>(method);
    match (kind == Kind::Every, matches!(fitting.hooked.action, Action::Watch { every: Some(_), .. })) {
        (true, false) => {
            problems.push("its declaration has no `every`: say it, or use `hook_watch`".to_owned());
        }
        (false, true) => problems.push("its declaration has an `every`: use `hook_watch_every`".to_owned()),
        _ => {}
    }
    problems.extend(check_chunk::<I::Item>(method));
    if !problems.is_empty() {
        return Err(problems);
    }
    let call: StreamCall = Arc::new(move |context, payload, outlet| {
        let request = read::<Q>(&context, payload)?;
        let (fitting, hook) = (fitting.clone(), hook.clone());
        let chunks = Chunks::<I::Item>::new(outlet);
        Ok(Box::pin(async move {
            let begin = |context: Context, had| hook(context, request, had);
            tell(&context, &fitting, kind, begin, chunks).await
        }))
    });
    Ok(Call::Stream(call))
}

async fn tell<T, I, Tell>(
    context: &Context,
    Fitting { hooked, documents }: &Fitting<T>,
    kind: Kind,
    begin: impl FnOnce(Context, Had<T>) -> Result<Tell, Fault>,
    mut chunks: Chunks<I::Item>,
) -> Result<(), Fault>
where
    T: Content,
    I: IntoIterator<Item: Reply, IntoIter: Send> + Send,
    Tell: FnMut(Moment<T>) -> Result<I, Fault>,
{
    let Action::Watch { after_revision, is_one, every } = &hooked.action else {
        return Err(super::super::unanswered());
    };
    let found = Found { context, payload: context.payload() };
    let (place, after) = (key_of(&found, &hooked.key)?, found.number(after_revision.as_ref()));
    let keys = if *is_one { Keys::One(place) } else { Keys::Under(place) };
    let mut watch = documents.watch(keys.clone(), after).await?;
    let is_reset = watch.is_reset();
    let had = match kind {
        _ if after == 0 || is_reset => None,
        Kind::Knowing | Kind::Every => Some(documents.list(context, &keys, after).await?),
        Kind::Changes => Some(Vec::new()),
    };
    let mut told = begin(context.clone(), had)?;
    // Not before the hook has let the caller in: it tells whether there is something.
    if is_reset {
        context.label("reset", "true");
    }
    let mut looks = every.map(looks);
    loop {
        let seen = tokio::select! {
            seen = watch.next(context) => Some(seen?),
            () = next_look(&mut looks) => None,
            _ = context.until_cancelled() => return Ok(()),
        };
        for chunk in told(seen)? {
            chunks.send(&chunk).await?;
        }
    }
}

/// The first look is one interval from now, and none is made up for.
fn looks(every: Duration) -> Interval {
    let mut looks = interval(every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.reset();
    looks
}

async fn next_look(looks: &mut Option<Interval>) {
    match looks {
        Some(looks) => drop(looks.tick().await),
        None => std::future::pending().await,
    }
}
