//! The messages of a method as people read them: fields, types and enums, everything that they refer to included.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::snapshot::Method;
use crate::transcode::table::{Cardinality, Field, Kind, Presence};
use crate::transcode::{MessageId, Tables};

/// Most messages that one method shows.
const MESSAGES_MAX: usize = 400;

/// A method and its messages.
#[derive(Debug, Serialize)]
pub(super) struct MethodSchema {
    method: String,
    subject: String,
    stream: &'static str,
    request: String,
    reply: String,
    chunk: String,
    messages: BTreeMap<String, Vec<FieldRow>>,
    enums: BTreeMap<String, Vec<(String, i32)>>,
    /// There is more than is shown.
    is_cut: bool,
}

/// One field.
#[derive(Debug, Serialize)]
struct FieldRow {
    number: u32,
    name: String,
    json_name: String,
    /// `string`, `int64`, a message's or an enum's full name; of maps `map<string, …>`.
    kind: String,
    /// Another message or enum of this method.
    refers_to: Option<String>,
    is_repeated: bool,
    /// Absence is told apart from the default.
    is_optional: bool,
    oneof: Option<String>,
}

impl MethodSchema {
    pub(super) fn of(method: &Method) -> MethodSchema {
        let tables = &*method.tables;
        let mut schema = MethodSchema {
            method: method.name.to_string(),
            subject: method.subject.to_string(),
            stream: method.streaming.word(),
            request: method.request_name.to_string(),
            reply: method.reply_name.to_string(),
            chunk: method.chunk_name.to_string(),
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
            is_cut: false,
        };
        let mut open = vec![method.chunk, method.reply, method.request];
        while let Some(id) = open.pop() {
            let table = tables.message(id);
            if schema.messages.contains_key(&*table.name) {
                continue;
            }
            if schema.messages.len() == MESSAGES_MAX {
                schema.is_cut = true;
                break;
            }
            let rows = table.fields.iter().map(|field| schema.field(tables, id, field, &mut open)).collect();
            schema.messages.insert(table.name.to_string(), rows);
        }
        schema
    }

    fn field(&mut self, tables: &Tables, message: MessageId, field: &Field, open: &mut Vec<MessageId>) -> FieldRow {
        let spec = &field.spec;
        let (kind, refers_to) = match (spec.cardinality, field.message()) {
            (Cardinality::Map, Some(entry)) => {
                let fields = &tables.message(entry).fields;
                let mut parts = fields.iter().map(|part| self.kind(tables, part.spec.kind, open));
                let key = parts.next().map(|part| part.0).unwrap_or_default();
                let (value, refers_to) = parts.next().unwrap_or_default();
                (format!("map<{key}, {value}>"), refers_to)
            }
            _ => self.kind(tables, spec.kind, open),
        };
        FieldRow {
            number: spec.number,
            name: spec.name.clone(),
            json_name: spec.json_name.clone(),
            kind,
            refers_to,
            is_repeated: spec.cardinality == Cardinality::Repeated,
            is_optional: spec.presence == Presence::Explicit && field.message().is_none() && spec.oneof.is_none(),
            oneof: spec.oneof.map(|oneof| tables.message(message).oneof_name(oneof).to_owned()),
        }
    }

    /// A type's name, and the same where it is a message or an enum.
    fn kind(&mut self, tables: &Tables, kind: Kind, open: &mut Vec<MessageId>) -> (String, Option<String>) {
        match kind {
            Kind::Message(id) | Kind::Group(id) => {
                open.push(id);
                let name = tables.message(id).name.to_string();
                (name.clone(), Some(name))
            }
            Kind::Enum(id) => {
                let table = tables.enumeration(id);
                let values = || table.values().map(|(name, number)| (name.to_owned(), number)).collect();
                self.enums.entry(table.name.to_string()).or_insert_with(values);
                (table.name.to_string(), Some(table.name.to_string()))
            }
            // The names are protobuf's own.
            scalar => (format!("{scalar:?}").to_ascii_lowercase(), None),
        }
    }
}
