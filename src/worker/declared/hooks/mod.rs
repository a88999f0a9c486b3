//! Hooks: functions that decide what a declared operation writes or answers. The declaration (`hook: true`) has the store
//! action; a hook sees the context, the request and the document, and never the store.

mod delete;
mod kept;
mod put;
mod reads;

use std::any::TypeId;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;
use crate::schema::operation::{Action, Hooked, Into};
use crate::snapshot::Method;
use crate::transcode::shape_check;
use crate::worker::records::{Document, RecordSeen};
use crate::worker::service::{Call, UnaryCall, answered, read};
use crate::worker::shapes::{check_reply, check_request, named};
use crate::worker::{Context, Failed, Service, Sharing};
use delete::Delete;
use kept::Documents;
use put::{Put, shown};

pub use delete::Parting;
pub use kept::Content;
pub(in crate::worker) use kept::Kept;
pub use put::Rule;
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
        let hook = Arc::new(move |context: Context, request: Q, begins_anew: bool| {
            let mut tell = hook(context, request, begins_anew)?;
            Ok(move |seen: Moment<T>| Ok(seen.map(&mut tell).transpose()?.into_iter().flatten()))
        });
        let bind: Bind = Arc::new(move |kept, method| reads::watch(kept, method, false, hook.clone()));
        self.hooked(method, true, bind)
    }

    /// As [`Service::hook_watch`], where the declaration says `every`: what the hook gives back is asked in that interval as
    /// well, and tells what time alone has changed ([`Moment`]).
    #[must_use]
    pub fn hook_watch_every<Q, T, I, F, Tell>(self, method: &str, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Context, Q, bool) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(Moment<T>) -> Result<I, Fault> + Send + 'static,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| reads::watch(kept, method, true, hook.clone()));
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
        self.put_by::<Q, T, R, _, U>(method, true, move |context, request| Ok((None, hook(context, request)?)))
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
        self.put_by::<Q, T, R, _, U>(method, false, move |context, request| {
            let (tokens, rule) = hook(context, request)?;
            Ok((Some(tokens), rule))
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

    fn put_by<Q, T, R, F, U>(self, method: &str, has_key: bool, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Context, Q) -> Result<(Option<Vec<String>>, U), Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| {
            let Fitting { hooked, documents } = fitting::<T>(kept, method, "put")?;
            let mut problems = check_request::<Q>(method);
            match (has_key, hooked.key.is_empty()) {
                (true, true) => problems.push("its declaration has no `key`: say it, or use `hook_put_at`".to_owned()),
                (false, false) => problems.push("its declaration has a `key`: use `hook_put`".to_owned()),
                _ => {}
            }
            problems.extend(check_put::<T, R>(method, &hooked, &documents));
            let Some(repeats) = kept.repeats().filter(|_| problems.is_empty()) else { return Err(problems) };
            let (put, hook) = (Arc::new(Put { documents, repeats, hooked }), hook.clone());
            let call: UnaryCall = Arc::new(move |context, payload| {
                let request = read::<Q>(&context, payload)?;
                let (put, hook) = (put.clone(), hook.clone());
                Ok(Box::pin(async move {
                    match hook(context.clone(), request) {
                        Ok((tokens, rule)) => put.answer(&context, tokens, rule).await,
                        Err(fault) => answered::<R>(&context, Err(fault.into())),
                    }
                }))
            });
            Ok(Call::Unary(call))
        });
        self.hooked(method, false, bind)
    }
}

impl<S: Send + Sync + 'static> Sharing<S> {
    /// [`Service::hook_get`] with the state in front.
    #[must_use]
    pub fn hook_get<Q, T, R, E, F>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        E: core::convert::Into<Failed<R>> + 'static,
        F: Fn(&S, &Context, &Q, Option<Document<T>>) -> Result<R, E> + Send + Sync + 'static,
    {
        self.with(|service, state| {
            service.hook_get(method, move |context, request, found| hook(&state, context, request, found))
        })
    }

    /// [`Service::hook_list`] with the state in front.
    #[must_use]
    pub fn hook_list<Q, T, R, E, F>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        E: core::convert::Into<Failed<R>> + 'static,
        F: Fn(&S, &Context, &Q, Vec<(String, Document<T>)>) -> Result<R, E> + Send + Sync + 'static,
    {
        self.with(|service, state| {
            service.hook_list(method, move |context, request, found| hook(&state, context, request, found))
        })
    }

    /// [`Service::hook_watch`] with the state in front.
    #[must_use]
    pub fn hook_watch<Q, T, I, F, Tell>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Arc<S>, Context, Q, bool) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(RecordSeen<T>) -> Result<I, Fault> + Send + 'static,
    {
        self.with(|service, state| {
            service.hook_watch(method, move |context, request, anew| hook(state.clone(), context, request, anew))
        })
    }

    /// [`Service::hook_watch_every`] with the state in front.
    #[must_use]
    pub fn hook_watch_every<Q, T, I, F, Tell>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Arc<S>, Context, Q, bool) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(Moment<T>) -> Result<I, Fault> + Send + 'static,
    {
        self.with(|service, state| {
            service.hook_watch_every(method, move |context, request, anew| hook(state.clone(), context, request, anew))
        })
    }

    /// [`Service::hook_put`] with the state in front.
    #[must_use]
    pub fn hook_put<Q, T, R, F, U>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Arc<S>, Context, Q) -> Result<U, Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
    {
        self.with(|service, state| {
            service.hook_put::<Q, T, R, _, U>(method, move |context, request| hook(state.clone(), context, request))
        })
    }

    /// [`Service::hook_put_at`] with the state in front.
    #[must_use]
    pub fn hook_put_at<Q, T, R, F, U>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Arc<S>, Context, Q) -> Result<(Vec<String>, U), Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
    {
        self.with(|service, state| {
            service.hook_put_at::<Q, T, R, _, U>(method, move |context, request| hook(state.clone(), context, request))
        })
    }

    /// [`Service::hook_delete`] with the state in front.
    #[must_use]
    pub fn hook_delete<Q, T, F, U>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        F: Fn(Arc<S>, Context, Q) -> Result<U, Fault> + Send + Sync + 'static,
        U: Parting<T>,
    {
        self.with(|service, state| {
            service.hook_delete::<Q, T, _, U>(method, move |context, request| hook(state.clone(), context, request))
        })
    }
}

/// A declaration and the documents that it is about.
struct Fitting<T> {
    hooked: Hooked,
    documents: Documents<T>,
}

/// The declaration of a method, which has to be that action.
fn fitting<T: Content>(kept: &Kept, method: &Method, action: &str) -> Result<Fitting<T>, Vec<String>> {
    let hooked = method.operation.as_ref().and_then(|operation| operation.hooked());
    let Some(hooked) = hooked.filter(|hooked| hooked.action.name() == action) else {
        let text = match hooked {
            Some(hooked) => format!("it declares a {0}: register its hook with `hook_{0}`", hooked.action.name()),
            None => format!("it declares no {action} with `hook: true`: add one to its `tidegate.operation`"),
        };
        return Err(vec![text]);
    };
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
