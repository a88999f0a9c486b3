//! The caller context as a worker reads it, and echoes it.

use std::collections::BTreeMap;

use super::compile::Envelope;
use super::reply::pair;
use crate::transcode::Tables;
use crate::transcode::table::{Kind, WireType};
use crate::transcode::wire::{WireReader, put_bytes};

/// Who calls, as the request says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Text fields by name.
    pub texts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Caller {
    /// A text field; empty where the request has none.
    pub fn text(&self, name: &str) -> &str {
        self.texts.get(name).map_or("", String::as_str)
    }

    /// A label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// Reads the context of a request. What does not decode is left out: the request itself is decoded elsewhere.
    pub fn read(envelope: &Envelope, tables: &Tables, payload: &[u8]) -> Caller {
        let mut caller = Caller::default();
        let Some(plan) = &envelope.context else { return caller };
        let table = tables.message(plan.message);
        let labels = plan.labels.as_ref().map(|labels| labels.number);
        let _ = crate::transcode::wire::each_message(payload, plan.number, |context| {
            let mut reader = WireReader::new(context);
            while let Some(record) = reader.record()? {
                let value = &context[record.from..record.to];
                if Some(record.number) == labels {
                    caller.labels.extend(pair(value));
                } else if let Some(id) = table.field_by_number(record.number)
                    && table.field(id).spec.kind == Kind::String
                    && record.wire_type == WireType::Length
                {
                    let text = String::from_utf8_lossy(value).into_owned();
                    caller.texts.insert(table.field(id).spec.name.clone(), text);
                }
            }
            Ok(())
        });
        caller
    }
}

/// Appends the context of a reply: the request's texts and labels (reserved ones left out), `added` labels over them,
/// and the time of the reply in nanoseconds since 1970.
pub fn echo_context(
    envelope: &Envelope,
    tables: &Tables,
    field: u32,
    caller: &Caller,
    added: &BTreeMap<String, String>,
    now_nanos: u128,
    out: &mut Vec<u8>,
) {
    let Some(plan) = &envelope.context else { return };
    let table = tables.message(plan.message);
    let mut content = Vec::with_capacity(128);
    for inner in &table.fields {
        let number = inner.spec.number;
        if plan.fields.iter().any(|field| field.is_time && field.number == number) {
            let mut time = Vec::with_capacity(12);
            crate::transcode::wire::put_number(1, (now_nanos / 1_000_000_000) as u64, &mut time);
            super::context::put_nonzero(2, (now_nanos % 1_000_000_000) as u64, &mut time);
            put_bytes(number, &time, &mut content);
        } else if let Some(text) = caller.texts.get(&inner.spec.name).filter(|text| !text.is_empty()) {
            put_bytes(number, text.as_bytes(), &mut content);
        } else if let Some(labels) = plan.labels.as_ref().filter(|labels| labels.number == number) {
            let kept = caller.labels.iter().filter(|(key, _)| !labels.reserved.contains(key));
            let mut all: BTreeMap<&String, &String> = kept.collect();
            all.extend(added);
            for (key, value) in all {
                let mut entry = Vec::new();
                put_bytes(1, key.as_bytes(), &mut entry);
                put_bytes(2, value.as_bytes(), &mut entry);
                put_bytes(number, &entry, &mut content);
            }
        }
    }
    put_bytes(field, &content, out);
}
