//! Hooks of a service whose handlers share a state: the same as those of [`Service`], with the state in front.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::{Confirm, Content, Moment, Parting, Reply, Rule, RuleBeside};
use crate::fault::Fault;
use crate::worker::records::{Document, RecordSeen};
use crate::worker::{Context, Failed, Sharing};

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
        F: Fn(Arc<S>, Context, Q, Option<Vec<(String, Document<T>)>>) -> Result<Tell, Fault> + Send + Sync + 'static,
        Tell: FnMut(Moment<T>) -> Result<I, Fault> + Send + 'static,
    {
        self.with(|service, state| {
            service
                .hook_watch_every(method, move |context, request, known| hook(state.clone(), context, request, known))
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

    /// [`Service::hook_put_beside`] with the state in front.
    #[must_use]
    pub fn hook_put_beside<Q, T, R, F, U>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        T: Content,
        R: Reply,
        F: Fn(Arc<S>, Context, Q) -> Result<U, Fault> + Send + Sync + 'static,
        U: RuleBeside<T, R>,
    {
        self.with(|service, state| {
            service
                .hook_put_beside::<Q, T, R, _, U>(method, move |context, request| hook(state.clone(), context, request))
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

    /// [`Service::hook_publish`] with the state in front.
    #[must_use]
    pub fn hook_publish<Q, E, R, F, U>(self, method: &str, hook: F) -> Sharing<S>
    where
        Q: DeserializeOwned + Send + 'static,
        E: Content,
        R: Reply,
        F: Fn(Arc<S>, Context, Q) -> Result<(String, E, U), Fault> + Send + Sync + 'static,
        U: Confirm<E, R>,
    {
        self.with(|service, state| {
            service.hook_publish(method, move |context, request| hook(state.clone(), context, request))
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
