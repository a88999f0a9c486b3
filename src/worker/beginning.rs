//! Documents that every tenant has from the beginning. Tenants are not known before they ask, so the first request of one
//! finds them written.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::Context;
use super::declared::Content;
use super::records::{Change, Current, Records};
use super::reply;
use super::service::{Call, Running, Service};
use crate::fault::{Code, Fault};
use crate::store::key;

/// Tenants that are known to have everything; of more of them all are looked at anew.
const TENANTS_MAX: usize = 10_000;

impl Service {
    /// Documents that every tenant has from the beginning: before a tenant's first request here is handled, those are
    /// written whose key never had a document. `first` gives them with the tokens of their keys, below the tenant; it
    /// is given the time in milliseconds since 1970, and what they follow from. Once `source` gives another one, such as
    /// reloaded settings, it is asked again: what is new is added, and nothing that is there changes.
    ///
    /// A request fails with what the store says where that does not take them, UNAVAILABLE or ABORTED.
    #[must_use]
    pub fn beginning_with<T, S, G, F>(mut self, records: &Records<T>, source: G, first: F) -> Service
    where
        T: Content + Clone,
        S: Send + Sync + 'static,
        G: Fn() -> Arc<S> + Send + Sync + 'static,
        F: Fn(&S, i64) -> Vec<(Vec<String>, T)> + Send + Sync + 'static,
    {
        let known = Mutex::new(Known { source: None, tenants: BTreeSet::new() });
        self.beginnings.push(Arc::new(FirstDocuments { records: records.clone(), source, first, known }));
        self
    }
}

/// What a service has to provide before it handles a tenant's first request.
pub(super) trait Beginning: Send + Sync {
    /// Provides it; nothing where the tenant has everything.
    fn provide(self: Arc<Self>, context: &Context) -> Option<Running<Result<(), Fault>>>;
}

struct FirstDocuments<T, S, G, F> {
    records: Records<T>,
    source: G,
    first: F,
    known: Mutex<Known<S>>,
}

/// The tenants that have everything that follows from a source.
struct Known<S> {
    source: Option<Arc<S>>,
    tenants: BTreeSet<String>,
}

impl<S> Known<S> {
    /// The tenants that have what follows from this source.
    fn of(&mut self, source: &Arc<S>) -> &mut BTreeSet<String> {
        if !self.source.as_ref().is_some_and(|known| Arc::ptr_eq(known, source)) {
            *self = Known { source: Some(source.clone()), tenants: BTreeSet::new() };
        }
        &mut self.tenants
    }
}

impl<T, S, G, F> FirstDocuments<T, S, G, F> {
    fn known(&self) -> MutexGuard<'_, Known<S>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T, S, G, F> Beginning for FirstDocuments<T, S, G, F>
where
    T: Content + Clone,
    S: Send + Sync + 'static,
    G: Fn() -> Arc<S> + Send + Sync + 'static,
    F: Fn(&S, i64) -> Vec<(Vec<String>, T)> + Send + Sync + 'static,
{
    fn provide(self: Arc<Self>, context: &Context) -> Option<Running<Result<(), Fault>>> {
        let source = (self.source)();
        if self.known().of(&source).contains(context.tenant()) {
            return None;
        }
        // On the service's own account: it is no part of the caller's request, nor of its idempotency key.
        let own = context.for_tenant(context.tenant());
        Some(Box::pin(async move {
            for (tokens, document) in (self.first)(&source, own.now_ms()) {
                let tenant = std::iter::once(own.tenant().to_owned());
                let place = key(&tenant.chain(tokens).collect::<Vec<_>>());
                let rule = |current: &Current<T>| match current.version {
                    0 => Ok(Change::put(document.clone(), ())),
                    _ => Ok(Change::nothing(())),
                };
                match self.records.change(&own, &place, rule).await.map_err(|failed| failed.fault) {
                    Ok(_) => {}
                    // What cannot be read is there, and keeps nobody from the others.
                    Err(fault) if fault.code() == Code::Internal => {
                        tracing::error!(bucket = self.records.name(), place, %fault, "a first document is not looked at");
                    }
                    Err(fault) => return Err(fault),
                }
            }
            let mut known = self.known();
            let tenants = known.of(&source);
            if tenants.len() >= TENANTS_MAX {
                tenants.clear();
            }
            tenants.insert(own.tenant().to_owned());
            Ok(())
        }))
    }
}

/// A call behind the beginnings of its service.
pub(super) fn behind(call: Call, beginnings: &[Arc<dyn Beginning>]) -> Call {
    beginnings.iter().cloned().fold(call, |call, beginning| match call {
        Call::Unary(call) => Call::Unary(Arc::new(move |context, payload| {
            let handled = call(context.clone(), payload)?;
            let Some(provided) = beginning.clone().provide(&context) else { return Ok(handled) };
            Ok(Box::pin(async move {
                match provided.await {
                    Ok(()) => handled.await,
                    Err(fault) => Err(reply::refusal(&context, fault)),
                }
            }))
        })),
        Call::Stream(call) => Call::Stream(Arc::new(move |context, payload, outlet| {
            let handled = call(context.clone(), payload, outlet)?;
            let Some(provided) = beginning.clone().provide(&context) else { return Ok(handled) };
            Ok(Box::pin(async move {
                provided.await?;
                handled.await
            }))
        })),
    })
}
