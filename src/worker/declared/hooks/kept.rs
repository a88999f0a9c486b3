//! The documents that a service keeps, as its hooks find them: in a struct of the service's own, in a message of the
//! schema that the tables read into one, or as the bare values that changes put beside documents.

use std::any::Any;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::fields::{content, printed, stored, unreadable, without_ours};
use super::super::unanswered;
use crate::fault::Fault;
use crate::schema::operation::DocumentKind;
use crate::store::{Bucket, Entry, Keys, Store};
use crate::transcode::{from_wire, to_wire};
use crate::worker::records::{Change, Current, Document, Done, RecordSeen, RecordWatch, Records, Unreadable};
use crate::worker::{Context, Failed, Repeats, StartProblem};

/// A struct that documents are read into.
pub trait Content: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Content for T {}

/// What a service keeps, by bucket, and the replies of calls with an idempotency key.
#[derive(Default)]
pub(in crate::worker) struct Kept {
    /// [`Records`] of a struct of the service's own, [`Messages`] or [`Values`].
    buckets: Vec<(&'static str, Arc<dyn Any + Send + Sync>)>,
    /// Methods whose declaration has a hook that has to be there, and their actions.
    needed: Vec<(String, &'static str)>,
    /// Opened when the worker starts.
    repeats: Option<Repeats>,
}

/// Documents as ProtoJSON, as declared operations keep them.
struct Messages(Records<Value>);

/// JSON without a record around it, as changes put it beside their documents.
#[derive(Clone)]
struct Values(Bucket, Arc<Unreadable>);

impl Kept {
    pub(in crate::worker) fn add<T: Content>(&mut self, records: &Records<T>) {
        self.buckets.push((records.name(), Arc::new(records.clone())));
    }

    pub(in crate::worker) fn add_messages(&mut self, records: &Records<Value>) {
        self.buckets.push((records.name(), Arc::new(Messages(records.clone()))));
    }

    pub(in crate::worker) fn add_values(&mut self, name: &'static str, bucket: &Bucket) {
        self.buckets.push((name, Arc::new(Values(bucket.clone(), Arc::new(Unreadable::new(name))))));
    }

    /// A method is nothing without its hook.
    pub(in crate::worker) fn need(&mut self, method: &str, action: &'static str) {
        self.needed.push((method.to_owned(), action));
    }

    /// Methods whose hook is not there.
    pub(in crate::worker) fn missing(
        &self,
        service: &str,
        has_handler: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = StartProblem> {
        let missing = self.needed.iter().filter(move |(method, _)| !has_handler(method));
        missing.map(move |(method, action)| {
            let text = format!("its declaration has a hook, which is code: add it with `Service::hook_{action}`");
            StartProblem { service: service.to_owned(), method: method.clone(), text }
        })
    }

    pub(in crate::worker) async fn open(&mut self, store: &Store) -> Result<(), Fault> {
        self.repeats = Some(Repeats::open(store).await?);
        Ok(())
    }

    pub(super) fn repeats(&self) -> Option<Repeats> {
        self.repeats.clone()
    }

    /// The documents of a bucket as a hook takes them, or why it cannot have them.
    pub(super) fn documents<T: Content>(&self, kind: &Arc<DocumentKind>) -> Result<Documents<T>, String> {
        let bucket = &kind.bucket;
        let mut kept =
            self.buckets.iter().filter(|(name, _)| *name == bucket.as_str()).map(|(_, kept)| kept).peekable();
        if kept.peek().is_none() {
            return Err(format!("the service keeps no bucket `{bucket}`: give its records to `Service::keeping`"));
        }
        let form = kept.find_map(|kept| {
            let own = kept.downcast_ref::<Records<T>>().map(|records| Form::Own(records.clone()));
            own.or_else(|| Some(Form::Messages(kept.downcast_ref::<Messages>()?.0.clone())))
                .or_else(|| Some(Form::Values(kept.downcast_ref::<Values>()?.clone())))
        });
        let form = form.ok_or_else(|| format!("bucket `{bucket}` keeps another struct than the hook takes"))?;
        Ok(Documents { form, kind: kind.clone() })
    }
}

/// Documents of one bucket.
pub(super) struct Documents<T> {
    form: Form<T>,
    kind: Arc<DocumentKind>,
}

enum Form<T> {
    Own(Records<T>),
    Messages(Records<Value>),
    Values(Values),
}

impl<T: Content> Documents<T> {
    /// True where nothing changes them, so that there is only to read.
    pub(super) fn are_values(&self) -> bool {
        matches!(self.form, Form::Values(_))
    }

    /// True where the struct has to fit the schema's message.
    pub(super) fn are_messages(&self) -> bool {
        matches!(self.form, Form::Messages(_)) && !self.kind.message_name.is_empty()
    }

    pub(super) async fn get(&self, context: &Context, key: &str, may_lag: bool) -> Result<Option<Document<T>>, Fault> {
        match (&self.form, may_lag) {
            (Form::Own(records), true) => records.get_cached(context, key).await,
            (Form::Own(records), false) => records.get(context, key).await,
            (Form::Messages(records), true) => self.read_all(context, records.get_cached(context, key).await?),
            (Form::Messages(records), false) => self.read_all(context, records.get(context, key).await?),
            (Form::Values(Values(bucket, _)), true) => bucket.get_cached(key).await?.as_ref().map(bare).transpose(),
            (Form::Values(Values(bucket, _)), false) => bucket.get(key).await?.as_ref().map(bare).transpose(),
        }
    }

    /// The documents under some keys, not before what was written up to the revision `after` is in them.
    pub(super) async fn list(
        &self,
        context: &Context,
        keys: &Keys,
        after: u64,
    ) -> Result<Vec<(String, Document<T>)>, Fault> {
        let records = match &self.form {
            Form::Own(records) => return records.list_behind(context, keys, after).await,
            Form::Messages(records) => records,
            Form::Values(Values(bucket, unreadable)) => {
                let found = bucket.list_behind(keys, after).await?.into_iter();
                let readable = found.filter_map(|entry| {
                    let read = bare(&entry).inspect_err(|fault| unreadable.say(&entry.key, entry.revision, fault));
                    Some((entry.key, read.ok()?))
                });
                return Ok(readable.collect());
            }
        };
        let found = records.list_behind(context, keys, after).await?.into_iter();
        let readable = found.filter_map(|(key, document)| {
            let revision = document.revision;
            let read = self.read(context, document).inspect_err(|fault| records.leave_out(&key, revision, fault));
            Some((key, read.ok()?))
        });
        Ok(readable.collect())
    }

    /// Changes a document by a rule that is given the one beside it, where a key says which.
    pub(super) async fn change<R: Serialize + DeserializeOwned>(
        &self,
        context: &Context,
        key: &str,
        beside: Option<&str>,
        rule: impl Fn(&Current<T>, Option<&Document<T>>) -> Result<Change<T, R>, Failed<R>>,
    ) -> Result<Done<R>, Failed<R>> {
        let records = match &self.form {
            Form::Own(records) => {
                let rule = |current: &Current<T>, beside: Option<Document<T>>| rule(current, beside.as_ref());
                return changed(records, context, key, beside, rule).await;
            }
            Form::Messages(records) => records,
            Form::Values(_) => return Err(unanswered().into()),
        };
        let rule = |current: &Current<Value>, beside: Option<Document<Value>>| {
            let beside = self.read_all(context, beside)?;
            let (version, revision, updated_ms) = (current.version, current.revision, current.updated_ms);
            let read = |value: &Value| {
                let document = Document { value: value.clone(), version, revision, updated_ms };
                Ok(self.read(context, document)?.value)
            };
            Ok(rule(&current.try_map(read)?, beside.as_ref())?.try_map(|value| self.value(context, value))?)
        };
        changed(records, context, key, beside, rule).await
    }

    pub(super) async fn watch(&self, keys: Keys, after: u64) -> Result<Watch<'_, T>, Fault> {
        Ok(match &self.form {
            Form::Own(records) => Watch::Own(records.watch(keys, Some(after)).await?),
            Form::Messages(records) => Watch::Messages(records.watch(keys, Some(after)).await?, self),
            Form::Values(_) => return Err(unanswered()),
        })
    }

    /// A document on the wire, as a reply or an event shows it.
    pub(super) fn printed(
        &self,
        context: &Context,
        value: &T,
        version: u64,
        updated_ms: i64,
    ) -> Result<Vec<u8>, Fault> {
        let value = self.value(context, value)?;
        printed(context, &self.kind, &Document { value, version, revision: 0, updated_ms })
    }

    /// A document on the wire as it was given, without what the worker writes itself.
    pub(super) fn content(&self, context: &Context, value: &T) -> Result<Vec<u8>, Fault> {
        content(context, &self.kind, &self.value(context, value)?)
    }

    fn read_all(&self, context: &Context, found: Option<Document<Value>>) -> Result<Option<Document<T>>, Fault> {
        found.map(|document| self.read(context, document)).transpose()
    }

    fn read(&self, context: &Context, document: Document<Value>) -> Result<Document<T>, Fault> {
        let value = match self.kind.message_name.as_str() {
            "" => serde_json::from_value(document.value).map_err(|error| unreadable(&error.to_string()))?,
            _ => {
                let wire = printed(context, &self.kind, &document)?;
                let read = from_wire(context.tables(), self.kind.message, &wire);
                read.map_err(|error| unreadable(&error.to_string()))?
            }
        };
        let Document { version, revision, updated_ms, .. } = document;
        Ok(Document { value, version, revision, updated_ms })
    }

    /// A document as it is stored, without what the worker writes itself.
    fn value(&self, context: &Context, value: &T) -> Result<Value, Fault> {
        if self.kind.message_name.is_empty() {
            return serde_json::to_value(value).map_err(|error| unreadable(&error.to_string()));
        }
        let mut wire = Vec::with_capacity(256);
        to_wire(context.tables(), self.kind.message, value, &mut wire)
            .map_err(|error| unreadable(&error.to_string()))?;
        stored(context, &self.kind, &without_ours(&self.kind, &wire)?)
    }
}

async fn changed<T: Content, R: Serialize + DeserializeOwned>(
    records: &Records<T>,
    context: &Context,
    key: &str,
    beside: Option<&str>,
    rule: impl Fn(&Current<T>, Option<Document<T>>) -> Result<Change<T, R>, Failed<R>>,
) -> Result<Done<R>, Failed<R>> {
    match beside {
        None => records.change(context, key, |current| rule(current, None)).await,
        Some(beside) => records.change_knowing(context, key, || records.get(context, beside), rule).await,
    }
}

/// A value that was put once, as a document.
fn bare<T: DeserializeOwned>(entry: &Entry) -> Result<Document<T>, Fault> {
    let value = serde_json::from_slice(&entry.value).map_err(|error| unreadable(&error.to_string()))?;
    Ok(Document { value, version: 1, revision: entry.revision, updated_ms: entry.created_ms })
}

/// Changes of some documents.
pub(super) enum Watch<'d, T> {
    Own(RecordWatch<T>),
    Messages(RecordWatch<Value>, &'d Documents<T>),
}

impl<T: Content> Watch<'_, T> {
    pub(super) fn is_reset(&self) -> bool {
        match self {
            Watch::Own(watch) => watch.is_reset(),
            Watch::Messages(watch, _) => watch.is_reset(),
        }
    }

    pub(super) async fn next(&mut self, context: &Context) -> Result<RecordSeen<T>, Fault> {
        let (watch, documents) = match self {
            Watch::Own(watch) => return watch.next(context).await,
            Watch::Messages(watch, documents) => (watch, documents),
        };
        loop {
            let RecordSeen::Change { key, document, version, revision, at_ms } = watch.next(context).await? else {
                return Ok(RecordSeen::Current);
            };
            match documents.read_all(context, document) {
                Ok(document) => return Ok(RecordSeen::Change { key, document, version, revision, at_ms }),
                Err(fault) => watch.leave_out(&key, revision, fault)?,
            }
        }
    }
}
