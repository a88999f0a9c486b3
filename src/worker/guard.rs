//! Guards: whom a method lets in, by a text of the request, before anything else is done for the caller.

use std::sync::Arc;

use bytes::Bytes;

use super::StartProblem;
use super::context::Context;
use super::declared::{malformed, text_of};
use super::service::{Call, Service, Sharing, UNKNOWN};
use crate::fault::Fault;
use crate::schema::operation::ScalarAt;
use crate::snapshot::{Method, Snapshot};
use crate::transcode::table::{Cardinality, Kind};
use crate::transcode::{FieldPath, check};

/// Lets a caller in by a text of the request, or says why not.
type LetIn = Arc<dyn Fn(&Context, &str) -> Result<(), Fault> + Send + Sync>;

/// A method's guard.
pub(super) struct Guard {
    method: String,
    /// The text field of the request.
    field: String,
    let_in: LetIn,
}

impl Service {
    /// Lets callers of a method in, before anything is read or written for them: `guard` is given a text field of the
    /// request, which is empty where the request has none. Declared methods and hooks need it, as they read first.
    #[must_use]
    pub fn guarded<G>(mut self, method: &str, field: &str, guard: G) -> Service
    where
        G: Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + 'static,
    {
        self.guards.push(Guard { method: method.to_owned(), field: field.to_owned(), let_in: Arc::new(guard) });
        self
    }

    /// [`Service::declared`], [`guarded`](Service::guarded).
    #[must_use]
    pub fn declared_for<G>(self, method: &str, field: &str, guard: G) -> Service
    where
        G: Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + 'static,
    {
        self.declared(method).guarded(method, field, guard)
    }
}

impl<S: Send + Sync + 'static> Sharing<S> {
    /// [`Service::guarded`].
    #[must_use]
    pub fn guarded<G>(self, method: &str, field: &str, guard: G) -> Sharing<S>
    where
        G: Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + 'static,
    {
        self.with(|service, _| service.guarded(method, field, guard))
    }

    /// [`Service::declared_for`].
    #[must_use]
    pub fn declared_for<G>(self, method: &str, field: &str, guard: G) -> Sharing<S>
    where
        G: Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + 'static,
    {
        self.with(|service, _| service.declared_for(method, field, guard))
    }
}

/// Guards that do not fit the snapshot.
pub(super) fn problems<'a>(
    guards: &'a [Guard],
    service: &'a str,
    snapshot: &'a Snapshot,
) -> impl Iterator<Item = StartProblem> + 'a {
    guards.iter().filter_map(move |Guard { method, field, .. }| {
        let text = match snapshot.method(method) {
            None => UNKNOWN.to_owned(),
            Some(found) if text_field(found, field).is_none() => {
                format!("its request has no text `{field}` to tell callers by")
            }
            Some(_) => return None,
        };
        Some(StartProblem { service: service.to_owned(), method: method.clone(), text })
    })
}

/// A call of a method behind its guards.
pub(super) fn behind(call: Call, guards: &[Guard], method: &Method) -> Call {
    let own = guards.iter().filter(|guard| *guard.method == *method.name);
    own.fold(call, |call, guard| match text_field(method, &guard.field) {
        Some(at) => guarded(call, at, guard.let_in.clone()),
        // Problems have kept the worker from starting.
        None => call,
    })
}

fn guarded(call: Call, at: ScalarAt, let_in: LetIn) -> Call {
    let let_in = move |context: &Context, payload: &Bytes| {
        check(context.tables(), context.method().request, payload).map_err(|error| malformed(&error))?;
        let_in(context, &text_of(payload, &at).unwrap_or_default())
    };
    match call {
        Call::Unary(call) => Call::Unary(Arc::new(move |context, payload| {
            let_in(&context, payload)?;
            call(context, payload)
        })),
        Call::Stream(call) => Call::Stream(Arc::new(move |context, payload, outlet| {
            let_in(&context, payload)?;
            call(context, payload, outlet)
        })),
    }
}

/// A text field of a method's requests.
fn text_field(method: &Method, field: &str) -> Option<ScalarAt> {
    let tables = &method.tables;
    let path = FieldPath::resolve(tables, method.request, field).ok()?;
    let spec = &path.field(tables).spec;
    let is_text = spec.kind == Kind::String && spec.cardinality == Cardinality::Single;
    let (_, above) = path.steps().split_last()?;
    let through = above.iter().map(|(message, field)| tables.message(*message).field(*field).spec.number).collect();
    is_text.then(|| ScalarAt { through, number: spec.number, kind: spec.kind, entry: None, name: field.to_owned() })
}
