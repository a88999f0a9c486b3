//! Hooks: functions that decide what a declared operation writes or answers. The declaration (`hook: true`) has the store
//! action; a hook sees the context, the request and the document, and never the store.

mod kept;
mod put;
mod reads;

use std::any::TypeId;
use std::future::ready;
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
use kept::Documents;
use put::{Decided, Put, shown};

pub use kept::Content;
pub(in crate::worker) use kept::Kept;
pub use put::Rule;

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
        let hook = Arc::new(move |context, request, had: Option<_>| hook(context, request, had.is_none()));
        let bind: Bind = Arc::new(move |kept, method| reads::watch(kept, method, false, hook.clone()));
        self.hooked(method, true, bind)
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
        self.put_by::<Q, T, R, _, U, _>(method, By::Key, move |_, context, request| {
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
        self.put_by::<Q, T, R, _, U, _>(method, By::Tokens, move |_, context, request| {
            let (tokens, rule) = hook(context, request)?;
            Ok(ready(Ok((Some(tokens), rule))))
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
        self.put_by::<Q, T, R, _, U, _>(method, By::Beside, move |put, context, request| {
            let (place, put, hook) = (put.beside(&context)?, put.clone(), hook.clone());
            Ok(async move {
                let beside = put.documents.get(&context, &place, false).await?;
                let (tokens, rule) = hook(context, request, beside)?;
                Ok((Some(tokens), rule))
            })
        })
    }

    fn put_by<Q, T, R, F, U, D>(self, method: &str, by: By, hook: F) -> Service
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(&Arc<Put<T>>, Context, Q) -> Result<D, Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
        D: Future<Output = Decided<U>> + Send,
    {
        let hook = Arc::new(hook);
        let bind: Bind = Arc::new(move |kept, method| {
            let Fitting { hooked, documents } = fitting::<T>(kept, method, "put")?;
            let mut problems = check_request::<Q>(method);
            problems.extend(by.problem(&hooked).map(str::to_owned));
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

/// Where a put's hook says that its key comes from.
#[derive(Clone, Copy)]
enum By {
    /// The declaration.
    Key,
    /// The hook.
    Tokens,
    /// The hook, with another document.
    Beside,
}

impl By {
    /// What the declaration says otherwise.
    fn problem(self, hooked: &Hooked) -> Option<&'static str> {
        let has_beside = hooked.beside.is_some();
        match (self, hooked.key.is_empty()) {
            (By::Key | By::Tokens, _) if has_beside => Some("its declaration has a `beside`: use `hook_put_at_beside`"),
            (By::Key, true) => Some("its declaration has no `key`: say it, or use `hook_put_at`"),
            (By::Tokens | By::Beside, false) => Some("its declaration has a `key`: use `hook_put`"),
            (By::Beside, true) if !has_beside => Some("its declaration has no `beside`: say it, or use `hook_put_at`"),
            _ => None,
        }
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

    /// [`Service::hook_watch_knowing`] with the state in front.
    #[must_use]
    pub fn hook_watch_knowing<Q, T, I, F, Tell>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        I: IntoIterator<Item: Reply, IntoIter: Send> + Send + 'static,
        F: Fn(Arc<S>, Context, Q, Option<Vec<(String, Document<T>)>>) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(RecordSeen<T>) -> Result<I, Fault> + Send + 'static,
    {
        self.with(|service, state| {
            service
                .hook_watch_knowing(method, move |context, request, known| hook(state.clone(), context, request, known))
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

    /// [`Service::hook_put_at_beside`] with the state in front.
    #[must_use]
    pub fn hook_put_at_beside<Q, T, R, F, U>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Arc<S>, Context, Q, Option<Document<T>>) -> Result<(Vec<String>, U), Fault> + Send + Sync + 'static,
        U: Rule<T, R>,
    {
        self.with(|service, state| {
            service.hook_put_at_beside::<Q, T, R, _, U>(method, move |context, request, beside| {
                hook(state.clone(), context, request, beside)
            })
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
    if documents.are_messages() {
        let problems = named("document", shape_check::<T>(&method.tables, hooked.kind.message, &[]));
        if !problems.is_empty() {
            return Err(problems);
        }
    }
    Ok(Fitting { hooked: hooked.clone(), documents })
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
