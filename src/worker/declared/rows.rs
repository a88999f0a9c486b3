//! Declared methods as rows of a service, beside those that have handlers: both work on the same documents.

use std::sync::Arc;

use serde_json::Value;

use super::{Content, Declared, Documents, call};
use crate::fault::Fault;
use crate::snapshot::{Method, Snapshot};
use crate::store::{Bucket, Store};
use crate::worker::StartProblem;
use crate::worker::records::Records;
use crate::worker::service::{Service, Sharing, UNKNOWN};

/// The declared methods of a service, and the documents that they work on.
#[derive(Default)]
pub(in crate::worker) struct Rows {
    documents: Documents,
    methods: Vec<String>,
}

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
        self.declared_rows.methods.push(method.to_owned());
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
        let methods: Vec<Arc<Method>> = methods.iter().filter_map(|method| snapshot.method(method).cloned()).collect();
        let declared = Arc::new(Declared::open(store, documents, &methods).await?);
        Ok(methods.iter().fold(self, |service, method| match &method.operation {
            Some(operation) => service.encoded(&method.name, call(&declared, operation)),
            None => service,
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
        let problem = |(index, method): (usize, &String)| {
            let text = if has_handler(method) || self.methods[..index].contains(method) {
                "it is registered twice: remove one".to_owned()
            } else {
                self.problem(method, snapshot)?
            };
            Some(StartProblem { service: service.to_owned(), method: method.clone(), text })
        };
        self.methods.iter().enumerate().filter_map(problem).collect()
    }

    fn problem(&self, method: &str, snapshot: &Snapshot) -> Option<String> {
        let Some(method) = snapshot.method(method) else {
            return Some(UNKNOWN.to_owned());
        };
        let Some(operation) = &method.operation else {
            return Some("it declares no operation: add `option (tidegate.operation)`, or a handler".to_owned());
        };
        if let Some(action) = operation.hook() {
            return Some(format!("its declaration has a hook: register that with `hook_{action}`"));
        }
        let bucket = &operation.kind()?.bucket;
        let has_documents = self.documents.contains_key(bucket);
        (!has_documents).then(|| format!("its documents are in bucket `{bucket}`: give them with `keeping`"))
    }
}
