//! Operations that the schema declares (`tidegate.operation`), served without a handler: documents with versions,
//! events, lists and watches, for anyone's messages. A declaration holds no conditions; where a rule decides, a handler
//! does.

mod cached;
mod deleting;
mod documents;
mod events;
mod fields;
mod hooks;
mod lists;
mod rows;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::records::{Records, RecordsConfig};
use super::reply;
use super::service::{Call, Failed, Running, Service, StreamCall, UnaryCall};
use super::streams::Outlet;
use super::{Context, Repeats};
use crate::fault::{Code, Fault};
use crate::schema::operation::{DocumentKind, Operation};
use crate::snapshot::{Method, ServiceRow, Snapshot};
use crate::store::{BucketConfig, LogConfig, Store, interned};
use crate::transcode::check;
use cached::Replies;
use fields::Found;
pub(in crate::worker) use fields::{malformed, text_of};

pub(in crate::worker) use hooks::{Bind, Kept};
pub use hooks::{Confirm, Content, Moment, Parting, Reply, Rule, RuleBeside};
pub(super) use rows::Rows;

/// Documents by bucket, as ProtoJSON with proto names.
type Documents = BTreeMap<String, Records<Value>>;

/// The declared methods of one service, with their buckets open.
struct Declared {
    documents: Documents,
    repeats: Repeats,
    /// Replies that may be a moment old.
    replies: Replies,
}

/// A service of the schema that declares all of its operations. `name` is its full name or its short one. Where a
/// declaration has a hook, add it to the service ([`Service::hook_put`] and the others) before the worker starts.
///
/// Fails with NOT_FOUND where the tables have no such service, with UNIMPLEMENTED where a method needs a handler.
pub async fn declared(store: &Store, snapshot: &Snapshot, name: &str) -> Result<Service, Fault> {
    let row = snapshot.services.iter().find(|row| &*row.name == name || &*row.short_name == name);
    let Some(row) = row else {
        let text = format!("the tables have no service `{name}`: list it under `annotations`, or correct the name");
        return Err(Fault::client(Code::NotFound, text));
    };
    if let Some(method) = row.methods.iter().find(|method| method.operation.is_none()) {
        let text = format!("`{}` declares no operation: add `option (tidegate.operation)` to it", method.name);
        return Err(Fault::client(Code::Unimplemented, text));
    }
    provide_logs(store, row).await?;
    let mut service = Service::new(&*row.short_name, env!("CARGO_PKG_VERSION"));
    for (bucket, records) in open_documents(store, row).await? {
        service.kept_mut().add_messages(&records);
        service = service.sweeping("sweeper", &records);
        service.declared_rows.add(bucket, records);
    }
    for method in &row.methods {
        match method.operation.as_ref().map(|operation| operation.hook()) {
            Some(Some(action)) => service.kept_mut().need(&method.name, action),
            Some(None) => service = service.declared(&method.name),
            None => {}
        }
    }
    Ok(service)
}

async fn provide_logs(store: &Store, row: &ServiceRow) -> Result<(), Fault> {
    for log in &row.logs {
        let subjects: Vec<&'static str> = log.subjects.iter().map(|subject| interned(subject)).collect();
        let config = LogConfig {
            name: interned(&log.name),
            subjects: subjects.leak(),
            max_age: log.max_age,
            duplicate_window: log.duplicate_window.min(log.max_age),
            ..LogConfig::DEFAULT
        };
        store.provide_log(config).await?;
    }
    Ok(())
}

async fn open_documents(store: &Store, row: &ServiceRow) -> Result<Documents, Fault> {
    let mut documents = Documents::new();
    for kind in row.methods.iter().filter_map(|method| method.operation.as_ref()?.kind()) {
        if !documents.contains_key(&kind.bucket) {
            let bucket = BucketConfig { name: interned(&kind.bucket), ttl: None, history: kind.history };
            documents.insert(kind.bucket.clone(), Records::open(store, RecordsConfig::new(bucket)).await?);
        }
    }
    Ok(documents)
}

impl Declared {
    async fn open(store: &Store, documents: Documents, methods: &[Arc<Method>]) -> Result<Declared, Fault> {
        let (repeats, replies) = (Repeats::open(store).await?, Replies::open(store, methods).await?);
        for (bucket, forget) in replies.forgets() {
            if let Some(records) = documents.get(bucket) {
                records.forgetting(forget);
            }
        }
        Ok(Declared { documents, repeats, replies })
    }

    fn documents(&self, kind: &DocumentKind) -> Result<&Records<Value>, Fault> {
        self.documents.get(&kind.bucket).ok_or_else(|| Fault::ours(Code::Internal, "a bucket was not opened"))
    }

    /// The reply's fields, without its context.
    async fn answer(&self, context: &Context, operation: &Operation) -> Result<Vec<u8>, Failed<()>> {
        let payload = context.payload();
        check(context.tables(), context.method().request, payload).map_err(|error| fields::malformed(&error))?;
        let found = Found { context, payload };
        match operation {
            Operation::Get { .. } => {
                Ok(self.replies.read(&found, operation, documents::get(&found, self, operation)).await?)
            }
            Operation::Put(plan) => documents::put(&found, self, plan).await,
            Operation::Delete { .. } => documents::delete(&found, self, operation).await,
            Operation::List { .. } => {
                Ok(self.replies.read(&found, operation, lists::list(&found, self, operation)).await?)
            }
            Operation::Publish { .. } => Ok(events::publish(&found, operation).await?),
            Operation::Watch(_) | Operation::Read { .. } | Operation::Hooked(_) | Operation::HookedPublish(_) => {
                Err(unanswered().into())
            }
        }
    }

    async fn stream(&self, context: &Context, operation: &Operation, outlet: Outlet) -> Result<(), Fault> {
        let payload = context.payload();
        check(context.tables(), context.method().request, payload).map_err(|error| fields::malformed(&error))?;
        let found = Found { context, payload };
        match operation {
            Operation::Watch(plan) => lists::watch(&found, self, plan, &outlet).await,
            Operation::Read { .. } => events::read(&found, operation, &outlet).await,
            _ => Err(unanswered()),
        }
    }
}

/// The build has matched operations and kinds of methods, so this is a defect.
fn unanswered() -> Fault {
    Fault::ours(Code::Internal, "the operation does not fit its method")
}

fn call(declared: &Arc<Declared>, operation: &Arc<Operation>) -> Call {
    let (declared, operation) = (declared.clone(), operation.clone());
    if operation.streams() {
        let call: StreamCall = Arc::new(move |context: Context, _: &Bytes, outlet: Outlet| {
            let (declared, operation) = (declared.clone(), operation.clone());
            let running: Running<Result<(), Fault>> =
                Box::pin(async move { declared.stream(&context, &operation, outlet).await });
            Ok(running)
        });
        return Call::Stream(call);
    }
    let call: UnaryCall = Arc::new(move |context: Context, _: &Bytes| {
        let (declared, operation) = (declared.clone(), operation.clone());
        Ok(Box::pin(async move {
            match declared.answer(&context, &operation).await {
                Ok(fields) => reply::success_encoded(&context, &fields),
                Err(failed) => Err(reply::failure::<()>(&context, failed.fault, None)),
            }
        }))
    });
    Call::Unary(call)
}
