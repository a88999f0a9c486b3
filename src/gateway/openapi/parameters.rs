//! What a request says outside of its body: path, query, headers.

use std::collections::HashSet;

use super::json::Json;
use super::paths::{OpenPath, Slot};
use super::schemas::{Direction, Schemas, member_name};
use crate::envelope::Source;
use crate::schema::Docs;
use crate::snapshot::{Route, Streaming};
use crate::transcode::table::{Cardinality, Field, Kind, Shape};
use crate::transcode::{FieldPath, MessageId, Tables};

/// Messages inside one another that a query is described into.
const DEPTH_MAX: usize = 4;
/// Most query parameters that one operation is described with; the message's own schema says the rest.
const QUERY_MAX: usize = 500;

/// Headers that every operation reads, as components: name, header, schema, text.
pub(super) fn common() -> Json {
    let header = |name: &str, schema: Json, text: &str| {
        Json::new().with("name", name).with("in", "header").with("description", text).with("schema", schema)
    };
    let text = || Json::new().with("type", "string");
    let timeout = Json::new().with("type", "integer").with("minimum", 1).with("maximum", 300_000);
    Json::new()
        .with(
            "RequestId",
            header("X-Request-Id", text(), "The client's own id, up to 128 of `A-Za-z0-9._:-`: the answer repeats it."),
        )
        .with("TimeoutMs", header("X-Timeout-Ms", timeout, "Milliseconds; shortens the route's timeout."))
        .with(
            "Traceparent",
            header("traceparent", text(), "W3C Trace Context; the request's spans become its children."),
        )
        .with(
            "IdempotencyKey",
            header(
                "Idempotency-Key",
                text(),
                "Repeats of a request under one key are answered as the first one was, where the method keeps keys.",
            ),
        )
        .with(
            "LastEventId",
            header(
                "Last-Event-ID",
                text(),
                "The `id` of the last event seen: the stream goes on behind it, where it can.",
            ),
        )
}

fn common_reference(name: &str) -> Json {
    Json::new().with("$ref", format!("#/components/parameters/{name}"))
}

/// The parameters of one route, for `parameters`. `names` are those of the path's slots.
pub(super) fn of(
    route: &Route,
    docs: &Docs,
    path: &OpenPath,
    names: &[String],
    schemas: &mut Schemas<'_>,
) -> Vec<Json> {
    let mut writer = Writer { route, docs, schemas, rows: Vec::new(), taken: HashSet::new() };
    let fields: Vec<&FieldPath> = route.binding.path_fields().collect();
    for (slot, name) in path.slots.iter().zip(names) {
        writer.slot(slot, name, &fields);
    }
    let (message, mut inside) = (route.method.request, Vec::new());
    writer.query(message, "", "", &mut inside);
    for (name, field) in route.binding.bound_headers() {
        writer.header(name.as_str(), field);
    }
    writer.context_headers();
    writer.rows.extend(["RequestId", "TimeoutMs", "Traceparent"].map(common_reference));
    if route.method.streaming != Streaming::Unary && writer.taken.insert("last-event-id".to_owned()) {
        writer.rows.push(common_reference("LastEventId"));
    }
    writer.rows
}

struct Writer<'w, 'a> {
    route: &'w Route,
    docs: &'w Docs,
    schemas: &'w mut Schemas<'a>,
    rows: Vec<Json>,
    /// Headers that have a row, in lower case.
    taken: HashSet<String>,
}

impl Writer<'_, '_> {
    fn slot(&mut self, slot: &Slot, name: &str, fields: &[&FieldPath]) {
        let tables = &*self.route.method.tables;
        let form = &self.route.policies.json_out;
        let field = slot.variable.and_then(|variable| fields.get(variable));
        let comment = field.map(|path| comment(tables, self.docs, path)).unwrap_or_default();
        let mut notes = vec![comment];
        let full = field.map(|path| path.name(tables)).unwrap_or_default();
        match field {
            Some(_) if !slot.is_whole => notes.push(format!("A part of `{full}`.")),
            Some(_) if full != name => notes.push(format!("Fills `{full}`.")),
            Some(_) => {}
            None => notes.push("Any text: nothing reads it.".to_owned()),
        }
        if slot.is_multi {
            notes.push("Any number of path segments, none as well, their slashes written as they are.".to_owned());
        }
        let schema = match field {
            Some(path) if slot.is_whole && !slot.is_multi => self.schemas.text(path.field(tables), form),
            _ => Json::new().with("type", "string"),
        };
        let is_text = schema.get("type") == Some(&"string".into()) && schema.get("format").is_none();
        let schema = if is_text && !slot.is_multi { schema.with("minLength", 1) } else { schema };
        let row = Json::new().with("name", name).with("in", "path").with("required", true);
        let row = row.with_text("description", &sentences(&notes)).with("schema", schema);
        self.rows.push(if slot.is_multi { row.with("x-tidegate-multi-segment", true) } else { row });
    }

    /// Every field that the query can set, those of inner messages by dotted names. `fields` is the path so far in proto
    /// names, `shown` the same as it is shown.
    fn query(&mut self, message: MessageId, fields: &str, shown: &str, inside: &mut Vec<MessageId>) {
        let tables = &*self.route.method.tables;
        if inside.len() == DEPTH_MAX || inside.contains(&message) {
            return;
        }
        inside.push(message);
        for field in &tables.message(message).fields {
            let Ok(path) =
                FieldPath::resolve(tables, self.route.method.request, &format!("{fields}{}", field.spec.name))
            else {
                continue;
            };
            let name = format!("{shown}{}", member_name(field, &self.route.policies.json_out));
            let inner = field.message().filter(|id| tables.message(*id).shape == Shape::Plain);
            match (field.spec.cardinality, inner) {
                (Cardinality::Single, Some(inner)) => {
                    self.query(inner, &format!("{fields}{}.", field.spec.name), &format!("{name}."), inside);
                }
                _ if self.route.binding.query_takes(tables, &path) => self.query_row(name, field, &path),
                _ => {}
            }
        }
        inside.pop();
    }

    fn query_row(&mut self, name: String, field: &Field, path: &FieldPath) {
        let tables = &*self.route.method.tables;
        if self.rows.len() >= QUERY_MAX {
            return;
        }
        let form = &self.route.policies.json_out;
        let doc = self.docs.of(&full_name(tables, path));
        let is_mask = self.route.binding.mask() == Some(path);
        let note = if is_mask { "Without it the fields that the body has." } else { "" };
        let row = Json::new()
            .with("name", name)
            .with("in", "query")
            .with_text("description", &sentences(&[doc.comment.to_string(), note.to_owned()]));
        let row = if doc.is_required { row.with("required", true) } else { row };
        let row = if doc.is_deprecated { row.with("deprecated", true) } else { row };
        let is_json = field.message().is_some_and(|id| {
            let shape = tables.message(id).shape;
            matches!(shape, Shape::Plain | Shape::Struct | Shape::Value | Shape::ListValue | Shape::Any | Shape::Empty)
        });
        let row = match field.spec.cardinality {
            Cardinality::Map => row
                .with("style", "deepObject")
                .with("explode", true)
                .with("schema", self.schemas.value(field, form, Direction::In)),
            Cardinality::Single if is_json => {
                let schema = self.schemas.value(field, form, Direction::In);
                row.with("content", Json::new().with("application/json", Json::new().with("schema", schema)))
            }
            // A list of messages has no form in a query that tools know.
            Cardinality::Repeated if is_json => return,
            Cardinality::Repeated => {
                let items = self.schemas.text(field, form);
                row.with("schema", Json::new().with("type", "array").with("items", items))
            }
            Cardinality::Single => row.with("schema", self.schemas.text(field, form)),
        };
        self.rows.push(row);
    }

    fn header(&mut self, name: &str, path: &FieldPath) {
        let tables = &*self.route.method.tables;
        self.taken.insert(name.to_owned());
        let shown = canonical(name);
        let note = match name {
            "if-match" | "if-none-match" => format!("An entity tag, its quotes too. Fills `{}`.", path.name(tables)),
            _ => format!("Fills `{}`.", path.name(tables)),
        };
        // An entity tag is quoted, whatever the field's type.
        let schema = match name {
            "if-match" | "if-none-match" => entity_tag(path.field(tables)),
            _ => self.schemas.text(path.field(tables), &self.route.policies.json_out),
        };
        let row = Json::new().with("name", shown).with("in", "header").with("description", note);
        self.rows.push(row.with("schema", schema));
    }

    /// The headers that feed the caller context.
    fn context_headers(&mut self) {
        let Some(plan) = &self.route.method.envelope.context else {
            if self.taken.insert("idempotency-key".to_owned()) {
                self.rows.push(common_reference("IdempotencyKey"));
            }
            return;
        };
        for field in &plan.fields {
            for source in &field.sources {
                let Source::Header { name, is_trusted: false, .. } = source else { continue };
                if !self.taken.insert(name.as_str().to_owned()) {
                    continue;
                }
                if name.as_str() == "idempotency-key" {
                    self.rows.push(common_reference("IdempotencyKey"));
                    continue;
                }
                let text = format!("The caller's `{}`.", field.name);
                let row = Json::new().with("name", canonical(name.as_str())).with("in", "header");
                self.rows.push(row.with("description", text).with("schema", Json::new().with("type", "string")));
            }
        }
    }
}

fn entity_tag(field: &Field) -> Json {
    let is_number = !matches!(field.spec.kind, Kind::String | Kind::Bytes);
    let pattern = if is_number { "^(W/)?\"?[0-9]+\"?$" } else { "^(W/)?\"[^\"]*\"$" };
    Json::new().with("type", "string").with("pattern", pattern)
}

fn comment(tables: &Tables, docs: &Docs, path: &FieldPath) -> String {
    docs.of(&full_name(tables, path)).comment.to_string()
}

/// `pkg.Message.field` of the field at the end.
fn full_name(tables: &Tables, path: &FieldPath) -> String {
    let message = path.steps().last().map(|step| &*tables.message(step.0).name).unwrap_or_default();
    format!("{message}.{}", path.field(tables).spec.name)
}

fn sentences(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// `x-trace-id` as `X-Trace-Id`.
fn canonical(name: &str) -> String {
    let words: Vec<String> = name
        .split('-')
        .map(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            first.to_ascii_uppercase() + rest
        })
        .collect();
    words.join("-")
}
