//! Declared methods as rows of a service, beside those that have handlers: both work on the same documents.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::fields::{malformed, text_of};
use super::{Content, Declared, Documents, call};
use crate::fault::Fault;
use crate::schema::operation::ScalarAt;
use crate::snapshot::{Method, Snapshot};
use crate::store::{Bucket, Store};
use crate::transcode::table::{Cardinality, Kind};
use crate::transcode::{FieldPath, check};
use crate::worker::records::Records;
use crate::worker::service::{Call, Service, Sharing, UNKNOWN};
use crate::worker::{Context, StartProblem};

/// The declared methods of a service, and the documents that they work on.
#[derive(Default)]
pub(in crate::worker) struct Rows {
    documents: Documents,
    methods: Vec<DeclaredRow>,
}

struct DeclaredRow {
    method: String,
    /// A text field of the request, and who may call with what it says.
    guard: Option<(String, Guard)>,
}

/// Lets a caller in by a text of the request, or says why not.
type Guard = Arc<dyn Fn(&Context, &str) -> Result<(), Fault> + Send + Sync>;

impl Service {
    /// Documents for declared methods and their hooks: those of the bucket that the declarations name. Where a method has
    /// no hook, what handlers keep there has to be the declared message as JSON with proto names; members that the message
    /// does not have are left alone.
    #[must_use]
    pub fn keeping<T: Content>(mut self, records: &Records<T>) -> Service {
        self.kept_mut().add(records);
        self.declared_rows.add(records.name().to_owned(), records.also());
        self
    }

    /// Values for hooks that get or list: what changes of documents put into another bucket
    /// ([`Change::also_put`](crate::worker::records::Change::also_put)), as JSON without a record around it. They are
    /// written once, so the version of each is 1.
    #[must_use]
    pub fn keeping_values(mut self, name: &'static str, bucket: &Bucket) -> Service {
        self.kept_mut().add_values(name, bucket);
        self
    }

    /// Adds a method that its schema declares (`tidegate.operation`), and that so needs no handler. Its documents are
    /// given by [`Service::keeping`].
    #[must_use]
    pub fn declared(mut self, method: &str) -> Service {
        self.declared_rows.methods.push(DeclaredRow { method: method.to_owned(), guard: None });
        self
    }

    /// As [`Service::declared`], for callers whom `guard` lets in: it is given a text field of the request, which is empty
    /// where the request has none.
    #[must_use]
    pub fn declared_for<G>(mut self, method: &str, field: &str, guard: G) -> Service
    where
        G: Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + 'static,
    {
        let guard: Option<(String, Guard)> = Some((field.to_owned(), Arc::new(guard)));
        self.declared_rows.methods.push(DeclaredRow { method: method.to_owned(), guard });
        self
    }

    /// Opens what hooks need, and makes rows of the declared methods; what [`Rows::check`] has passed fails with the store
    /// alone.
    pub(in crate::worker) async fn open(mut self, store: &Store, snapshot: &Snapshot) -> Result<Service, Fault> {
        self.open_kept(store).await?;
        let Rows { documents, methods } = std::mem::take(&mut self.declared_rows);
        if methods.is_empty() {
            return Ok(self);
        }
        let known = |row: DeclaredRow| Some((snapshot.method(&row.method).cloned()?, row.guard));
        let (methods, guards): (Vec<Arc<Method>>, Vec<_>) = methods.into_iter().filter_map(known).unzip();
        let declared = Arc::new(Declared::open(store, documents, &methods).await?);
        Ok(methods.iter().zip(guards).fold(self, |service, (method, guard)| {
            let Some(operation) = &method.operation else { return service };
            let guard = guard.and_then(|(field, guard)| Some((text_field(method, &field)?, guard)));
            service.encoded(&method.name, guarded(call(&declared, operation), guard))
        }))
    }
}

impl<S: Send + Sync + 'static> Sharing<S> {
    /// [`Service::declared`].
    #[must_use]
    pub fn declared(mut self, method: &str) -> Sharing<S> {
        self.service = self.service.declared(method);
        self
    }

    /// [`Service::declared_for`].
    #[must_use]
    pub fn declared_for<G>(mut self, method: &str, field: &str, guard: G) -> Sharing<S>
    where
        G: Fn(&Context, &str) -> Result<(), Fault> + Send + Sync + 'static,
    {
        self.service = self.service.declared_for(method, field, guard);
        self
    }
}

impl Rows {
    pub(super) fn add(&mut self, bucket: String, records: Records<Value>) {
        self.documents.insert(bucket, records);
    }

    /// Everything in which the declared methods do not fit the snapshot. `has_handler` says which have one.
    pub(in crate::worker) fn check(
        &self,
        service: &str,
        snapshot: &Snapshot,
        has_handler: impl Fn(&str) -> bool,
    ) -> Vec<StartProblem> {
        let problem = |(index, row): (usize, &DeclaredRow)| {
            let method = &row.method;
            let text = if has_handler(method) || self.methods[..index].iter().any(|other| other.method == *method) {
                "it is registered twice: remove one".to_owned()
            } else {
                self.problem(row, snapshot)?
            };
            Some(StartProblem { service: service.to_owned(), method: method.clone(), text })
        };
        self.methods.iter().enumerate().filter_map(problem).collect()
    }

    fn problem(&self, row: &DeclaredRow, snapshot: &Snapshot) -> Option<String> {
        let Some(method) = snapshot.method(&row.method) else {
            return Some(UNKNOWN.to_owned());
        };
        let Some(operation) = &method.operation else {
            return Some("it declares no operation: add `option (tidegate.operation)`, or a handler".to_owned());
        };
        if let Some((field, _)) = row.guard.as_ref().filter(|(field, _)| text_field(method, field).is_none()) {
            return Some(format!("its request has no text `{field}` to tell callers by"));
        }
        if let Some(action) = operation.hook() {
            return Some(format!("its declaration has a hook: register that with `hook_{action}`"));
        }
        let bucket = &operation.kind()?.bucket;
        let has_documents = self.documents.contains_key(bucket);
        (!has_documents).then(|| format!("its documents are in bucket `{bucket}`: give them with `keeping`"))
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

/// A call behind its guard.
fn guarded(call: Call, guard: Option<(ScalarAt, Guard)>) -> Call {
    let Some((at, guard)) = guard else { return call };
    let let_in = move |context: &Context, payload: &Bytes| {
        check(context.tables(), context.method().request, payload).map_err(|error| malformed(&error))?;
        guard(context, &text_of(payload, &at).unwrap_or_default())
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
