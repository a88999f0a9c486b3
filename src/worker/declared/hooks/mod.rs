//! Hooks: functions that decide what a declared operation writes or answers. The declaration (`hook: true`) has the store
//! action; a hook sees the context, the request and the document, and never the store.

mod delete;
mod kept;
mod publish;
mod put;
mod reads;
mod sharing;

use std::any::TypeId;
use std::future::ready;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;
use crate::schema::operation::{Action, Hooked, Into};
use crate::snapshot::Method;
use crate::transcode::shape_check;
use crate::worker::records::{Current, Document, RecordSeen};
use crate::worker::service::{Call, UnaryCall, answered, read};
use crate::worker::shapes::{check_reply, check_request, named};
use crate::worker::{Context, Failed, Service};
use delete::Delete;
use kept::Documents;
use put::{Decided, Put, shown};
use reads::Kind;

pub use delete::Parting;
pub use kept::Content;
pub(in crate::worker) use kept::Kept;
pub use publish::Confirm;
pub use put::{Rule, RuleBeside};
pub use reads::Moment;

/// A reply of a hook. `()` says nothing, and the declaration's `into` makes the reply.
pub trait Reply: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<R: Serialize + DeserializeOwned + Send + Sync + 'static> Reply for R {}

/// Makes the call of a method from its declaration and what the service keeps, or says everything that does not fit.
pub(in crate::worker) type Bind = Arc<dyn Fn(&Kept, &Method) -> Result<Call, Vec<String>> + Send + Sync>;

fn is_nothing<R: 'static>() -> bool {
    TypeId::of::<R>() == TypeId::of::<()>()
}

impl Service {
    /// The hook of a declared get: it is given the document, where there is one, and makes the reply.
    #[must_use]
    pub fn hook_get<Q, T, R, E, F>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        E: core::convert::Into<Failed<R>> + 'static,
        F: Fn(&Context, &Q, Option<Document<T>>) -> Result<R, E> + Send + Sync + 'static,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| reads::get(kept, method, hook.clone()));
        self.hooked(method, false, bind)
    }

    /// The hook of a declared list: it is given the documents by key, in order of keys, and makes the reply.
    #[must_use]
    pub fn hook_list<Q, T, R, E, F>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        E: core::convert::Into<Failed<R>> + 'static,
        F: Fn(&Context, &Q, Vec<(String, Document<T>)>) -> Result<R, E> + Send + Sync + 'static,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| reads::list(kept, method, hook.clone()));
        self.hooked(method, false, bind)
    }

    /// The hook of a declared watch: it checks the request and gives back what tells each change, as no chunk, one or
    /// several. The `bool` says whether the watch begins with what is there; behind a revision that is kept it does not.
    #[must_use]
    pub fn hook_watch<Q, T, I, F, Tell>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Context, Q, bool) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(RecordSeen<T>) -> Result<I, Fault> + Send + 'static,
    {
        let hook = move |context, request, known: Option<Vec<(String, Document<T>)>>| {
            Ok(of_changes(hook(context, request, known.is_none())?))
        };
        self.watch_by(method, Kind::Changes, hook)
    }

    /// As [`Service::hook_watch_knowing`], where the declaration says `every`: what the hook gives back is asked in that
    /// interval as well, and tells what time alone has changed ([`Moment`]), also of documents that nobody has written
    /// behind the revision.
    #[must_use]
    pub fn hook_watch_every<Q, T, I, F, Tell>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Context, Q, Option<Vec<(String, Document<T>)>>) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(Moment<T>) -> Result<I, Fault> + Send + 'static,
    {
        self.watch_by(method, Kind::Every, hook)
    }

    /// As [`Service::hook_watch`], for a hook that has to know other documents to tell of one: where the watch goes on
    /// behind a revision that is kept, the hook is given all of the watched documents as they are, by key. It is given
    /// nothing where the watch begins with what is there: then it is told of each.
    #[must_use]
    pub fn hook_watch_knowing<Q, T, I, F, Tell>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Context, Q, Option<Vec<(String, Document<T>)>>) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(RecordSeen<T>) -> Result<I, Fault> + Send + 'static,
    {
        let hook = move |context, request, known| Ok(of_changes(hook(context, request, known)?));
        self.watch_by(method, Kind::Knowing, hook)
    }

    fn watch_by<Q, T, I, F, Tell>(self, method: &str, kind: Kind, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Context, Q, Option<Vec<(String, Document<T>)>>) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(Moment<T>) -> Result<I, Fault> + Send + 'static,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| reads::watch(kept, method, kind, hook.clone()));
        self.hooked(method, true, bind)
    }

    /// The hook of a declared put: it checks the request and gives back the [`Rule`]. What the check refuses takes no
    /// idempotency key.
    #[must_use]
    pub fn hook_put<Q, T, R, F, U>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Context, Q) -> Result<U, Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
    {
        self.put_by::<Q, T, R, _, _, _>(method, Form { key: true, beside: false }, move |_, context, request| {
            Ok(ready(Ok((None, of_one(hook(context, request)?)))))
        })
    }

    /// As [`Service::hook_put`], where the declaration names a document `beside` the one that is written: the rule is given
    /// that as well, as it is before each try.
    #[must_use]
    pub fn hook_put_beside<Q, T, R, F, U>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Context, Q) -> Result<U, Fault> + Send + Sync + 'static,
        U: RuleBeside<T, R>,
    {
        let form = Form { key: true, beside: true };
        self.put_by::<Q, T, R, _, U, _>(method, form, move |_, context, request| {
            Ok(ready(Ok((None, hook(context, request)?))))
        })
    }

    /// As [`Service::hook_put`], where the declaration has no key: the hook gives its tokens, below the tenant, as well.
    #[must_use]
    pub fn hook_put_at<Q, T, R, F, U>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Context, Q) -> Result<(Vec<String>, U), Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
    {
        self.put_by::<Q, T, R, _, _, _>(method, Form { key: false, beside: false }, move |_, context, request| {
            let (tokens, rule) = hook(context, request)?;
            Ok(ready(Ok((Some(tokens), of_one(rule)))))
        })
    }

    /// As [`Service::hook_put_at`], where the declaration names another document that decides (`beside`): the hook is given
    /// that, where there is one. What it refuses counts for the idempotency key: a repeat gets the same answer, whatever
    /// has become of the document.
    #[must_use]
    pub fn hook_put_at_beside<Q, T, R, F, U>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Context, Q, Option<Document<T>>) -> Result<(Vec<String>, U), Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
    {
        let hook = Arc::new(hook);
        self.put_by::<Q, T, R, _, _, _>(method, Form { key: false, beside: true }, move |put, context, request| {
            let (put, hook) = (put.clone(), hook.clone());
            Ok(async move {
                let beside = put.beside(&context).await?;
                let (tokens, rule) = hook(context, request, beside)?;
                Ok((Some(tokens), of_one(rule)))
            })
        })
    }

    /// The hook of a declared delete: it checks the request and gives back the [`Parting`], which is asked where the
    /// document is there and has the expected version. What the check refuses takes no idempotency key.
    #[must_use]
    pub fn hook_delete<Q, T, F, U>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        F: Fn(Context, Q) -> Result<U, Fault> + Send + Sync + 'static,
        U: Parting<T>,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| {
            let Fitting { hooked, documents } = fitting::<T>(kept, method, "delete")?;
            let mut problems = check_request::<Q>(method);
            problems.extend(check_delete(method, &hooked, &documents));
            let Some(repeats) = kept.repeats().filter(|_| problems.is_empty()) else { return Err(problems) };
            let (delete, hook) = (Arc::new(Delete { documents, repeats, hooked }), hook.clone());
            let call: UnaryCall = Arc::new(move |context, payload| {
                let request = read::<Q>(&context, payload)?;
                let (delete, hook) = (delete.clone(), hook.clone());
                Ok(Box::pin(async move {
                    match hook(context.clone(), request) {
                        Ok(parting) => delete.answer(&context, parting).await,
                        Err(fault) => answered::<()>(&context, Err(fault.into())),
                    }
                }))
            });
            Ok(Call::Unary(call))
        });
        self.hooked(method, false, bind)
    }

    /// The hook of a declared publish: it checks the request, and gives the event's id (within the tenant; empty for that of
    /// the call), the event, and what makes the reply once the log has it. What the check refuses takes no idempotency key.
    #[must_use]
    pub fn hook_publish<Q, E, R, F, U>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        E: Content,
        R: Reply,
        F: Fn(Context, Q) -> Result<(String, E, U), Fault> + Send + Sync + 'static,
        U: Confirm<E, R>,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| publish::publish(kept, method, hook.clone()));
        self.hooked(method, false, bind)
    }

    fn put_by<Q, T, R, F, U, D>(self, method: &str, form: Form, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(&Arc<Put<T>>, Context, Q) -> Result<D, Fault> + Send + Sync + 'static,
        U: RuleBeside<T, R>,
        D: Future<Output = Decided<U>> + Send,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| {
            let Fitting { hooked, documents } = fitting::<T>(kept, method, "put")?;
            let mut problems = check_request::<Q>(method);
            problems.extend(form.problem(&hooked));
            problems.extend(check_put::<T, R>(method, &hooked, &documents));
            let Some(repeats) = kept.repeats().filter(|_| problems.is_empty()) else { return Err(problems) };
            let (put, hook) = (Arc::new(Put { documents, repeats, hooked }), hook.clone());
            let call: UnaryCall = Arc::new(move |context, payload| {
                let request = read::<Q>(&context, payload)?;
                let (put, hook) = (put.clone(), hook.clone());
                Ok(Box::pin(async move {
                    match hook(&put, context.clone(), request) {
                        Ok(decided) => put.answer(&context, decided).await,
                        Err(fault) => answered::<R>(&context, Err(fault.into())),
                    }
                }))
            });
            Ok(Call::Unary(call))
        });
        self.hooked(method, false, bind)
    }
}

/// What a put's hook counts on in its declaration.
#[derive(Clone, Copy)]
struct Form {
    key: bool,
    beside: bool,
}

impl Form {
    fn problem(self, hooked: &Hooked) -> Option<String> {
        let (has_key, has_beside) = (!hooked.key.is_empty(), hooked.beside.is_some());
        let has = match () {
            () if self.key && !has_key => "no `key`: say it, or",
            () if has_key && !self.key => "a `key`:",
            () if self.beside && !has_beside => "no `beside`: say it, or",
            () if has_beside && !self.beside => "a `beside`:",
            () => return None,
        };
        let fitting = match (has_key, has_beside) {
            (true, false) => "hook_put",
            (true, true) => "hook_put_beside",
            (false, false) => "hook_put_at",
            (false, true) => "hook_put_at_beside",
        };
        Some(format!("its declaration has {has} use `{fitting}`"))
    }
}

/// A rule that knows no other document.
fn of_one<T: 'static, R: 'static>(rule: impl Rule<T, R>) -> impl RuleBeside<T, R> {
    move |current: &Current<T>, _: Option<&Document<T>>| rule(current)
}

/// What tells changes, and nothing where time alone has passed.
fn of_changes<T, I: IntoIterator>(
    mut tell: impl FnMut(RecordSeen<T>) -> Result<I, Fault>,
) -> impl FnMut(Moment<T>) -> Result<std::iter::Flatten<std::option::IntoIter<I>>, Fault> {
    move |seen| Ok(seen.map(&mut tell).transpose()?.into_iter().flatten())
}

/// A declaration and the documents that it is about.
struct Fitting<T> {
    hooked: Hooked,
    documents: Documents<T>,
}

/// What a method declares instead of the action that its hook is for.
fn undeclared(method: &Method, action: &str) -> String {
    match method.operation.as_ref().and_then(|operation| operation.hook()) {
        Some(other) => format!("it declares a {other}: register its hook with `hook_{other}`"),
        None => format!("it declares no {action} with `hook: true`: add one to its `tidegate.operation`"),
    }
}

/// The declaration of a method, which has to be that action.
fn fitting<T: Content>(kept: &Kept, method: &Method, action: &str) -> Result<Fitting<T>, Vec<String>> {
    let hooked = method.operation.as_ref().and_then(|operation| operation.hooked());
    let hooked = hooked.filter(|hooked| hooked.action.name() == action);
    let hooked = hooked.ok_or_else(|| vec![undeclared(method, action)])?;
    let documents = kept.documents::<T>(&hooked.kind).map_err(|text| vec![text])?;
    if documents.are_values() && !matches!(action, "get" | "list") {
        let bucket = &hooked.kind.bucket;
        return Err(vec![format!(
            "bucket `{bucket}` keeps bare values, which a get or list reads: there is no {action}"
        )]);
    }
    if documents.are_messages() {
        let problems = named("document", shape_check::<T>(&method.tables, hooked.kind.message, &[]));
        if !problems.is_empty() {
            return Err(problems);
        }
    }
    Ok(Fitting { hooked: hooked.clone(), documents })
}

/// Everything in which the documents of a delete do not fit its event.
fn check_delete<T: Content>(method: &Method, hooked: &Hooked, documents: &Documents<T>) -> Vec<String> {
    match &hooked.action {
        Action::Delete(plan) if plan.event.is_some() && !documents.are_messages() => {
            named("document", shape_check::<T>(&method.tables, hooked.kind.message, &[]))
        }
        _ => Vec::new(),
    }
}

/// Everything in which a put's reply does not fit.
fn check_put<T: Content, R: Reply>(method: &Method, hooked: &Hooked, documents: &Documents<T>) -> Vec<String> {
    let Action::Put { into, version_into, revision_into, event, .. } = &hooked.action else { return Vec::new() };
    let shown = shown::<R>(into.as_ref());
    let mut problems = Vec::new();
    if (shown.is_some() || event.is_some()) && !documents.are_messages() {
        let message = shape_check::<T>(&method.tables, hooked.kind.message, &[]);
        problems.extend(named("document", message));
    }
    let filled = match shown {
        Some(Into::Whole | Into::SameNames(None, _)) => return problems,
        Some(Into::Field(number) | Into::SameNames(Some(number), _)) => Some(*number),
        None => None,
    };
    if !is_nothing::<R>() {
        let filled: Vec<u32> = [filled, *version_into, *revision_into].into_iter().flatten().collect();
        problems.extend(check_reply::<R>(method, &filled));
    }
    problems
}
