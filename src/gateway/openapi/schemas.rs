//! Messages and enums as JSON Schema, each once, under `components`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::json::Json;
use super::kinds::{self, Place};
use crate::schema::{Doc, Docs};
use crate::transcode::table::{Cardinality, Field, Kind, MessageTable, Presence, Shape};
use crate::transcode::{Claims, EnumId, Enums, FieldId, JsonOut, MessageId, Names, Root, Tables};

/// Largest oneof whose members are kept apart by the schema itself; above it the text alone says so.
const ONEOF_MAX: usize = 8;

/// Who writes a value: the fields that requests must have are not always in a reply, which leaves out what is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// The client.
    In,
    /// The worker.
    Out,
}

/// What makes two schemas of one message differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    message: MessageId,
    direction: Direction,
    names: bool,
    enums: bool,
    /// Number of the field that is no part of it: the error of a reply that succeeded.
    hidden: Option<u32>,
}

/// The schemas of one document.
pub(super) struct Schemas<'a> {
    tables: &'a Tables,
    docs: &'a Docs,
    /// The form of most routes, whose schemas have the plain names.
    usual: JsonOut,
    names: HashMap<Key, String>,
    components: BTreeMap<String, Json>,
    has_required: HashMap<MessageId, bool>,
    /// Messages that are replies or chunks, and have no error where they are.
    replies: HashSet<MessageId>,
}

impl<'a> Schemas<'a> {
    /// `replies` are the messages that stand without their error field where they are replies or chunks.
    pub(super) fn new(tables: &'a Tables, docs: &'a Docs, usual: JsonOut, replies: HashSet<MessageId>) -> Schemas<'a> {
        let (names, components, has_required) = Default::default();
        Schemas { tables, docs, usual, names, components, has_required, replies }
    }

    /// Everything that was referred to, and `more`.
    pub(super) fn into_components(mut self, more: impl IntoIterator<Item = (String, Json)>) -> Json {
        self.components.extend(more);
        Json::Object(self.components.into_iter().collect())
    }

    /// A reference to a message's schema.
    pub(super) fn message(
        &mut self,
        message: MessageId,
        form: &JsonOut,
        direction: Direction,
        hidden: Option<u32>,
    ) -> Json {
        let table = self.tables.message(message);
        if table.shape == Shape::Wrapper {
            return self.wrapper(table, form, direction);
        }
        let is_plain = table.shape == Shape::Plain;
        let direction = if is_plain && self.needs_fields(message) { direction } else { Direction::Out };
        let key = Key {
            message,
            direction,
            names: is_plain && form.names != self.usual.names,
            enums: is_plain && form.enums != self.usual.enums,
            hidden,
        };
        if let Some(name) = self.names.get(&key) {
            return reference(name);
        }
        let name = self.free_name(table, &key, form);
        self.names.insert(key, name.clone());
        // The name is taken before the fields are walked, which may lead back here.
        self.components.insert(name.clone(), Json::new());
        let schema = match kinds::well_known(table.shape) {
            Some(schema) => schema,
            None => self.object(message, form, direction, &|field| hidden == Some(field.spec.number), None),
        };
        self.components.insert(name.clone(), schema);
        reference(&name)
    }

    fn free_name(&self, table: &MessageTable, key: &Key, form: &JsonOut) -> String {
        let mut base = table.name.to_string();
        if key.hidden.is_none() && self.replies.contains(&key.message) {
            base.push_str("-Nested");
        }
        if key.direction == Direction::In {
            base.push_str("-Input");
        }
        if key.names {
            base.push_str(if form.names == Names::Camel { "-camel" } else { "-proto" });
        }
        if key.enums {
            base.push_str(if form.enums == Enums::Number { "-numbers" } else { "-names" });
        }
        let mut name = base.clone();
        let mut count = 1;
        while self.components.contains_key(&name) {
            count += 1;
            name = format!("{base}-{count}");
        }
        name
    }

    /// What a JSON body may have: everything but what the path, headers, presets and the gateway set.
    pub(super) fn body(&mut self, root: Root, claims: &Claims, lifted: Option<&str>, form: &JsonOut) -> Json {
        match root {
            Root::Message(message) if claims.is_empty() && lifted.is_none() => {
                self.message(message, form, Direction::In, None)
            }
            Root::Message(message) => self.partial(message, claims, lifted, form),
            Root::Field(message, id) => {
                let field = self.tables.message(message).field(id);
                match (claims.below(id), field.message()) {
                    (Some(below), Some(inner)) if !below.is_empty() => self.partial(inner, below, None, form),
                    _ => self.value(field, form, Direction::In),
                }
            }
        }
    }

    /// A message without what is claimed: written out where it stands, as it belongs to one route.
    fn partial(&mut self, message: MessageId, claims: &Claims, lifted: Option<&str>, form: &JsonOut) -> Json {
        let table = self.tables.message(message);
        let is_gone = |field: &Field| {
            let id = table.field_by_number(field.spec.number);
            id.is_some_and(|id| claims.takes(id) || is_excluded(self.tables, message, id, claims))
        };
        let mut schema = self.object(message, form, Direction::In, &is_gone, Some(claims));
        let name = lifted.filter(|name| table.field_by_name(name.as_bytes()).is_none());
        if let (Some(name), Json::Object(members)) = (name, &mut schema) {
            let text = "Repeats of a request under one key have the first one's answer; as the header of that name.";
            let member = Json::new().with("type", vec!["string", "null"]).with("description", text);
            match members.iter_mut().find(|member| member.0 == "properties") {
                Some((_, properties)) => properties.set(name, member),
                None => members.push(("properties".to_owned(), Json::new().with(name, member))),
            }
        }
        schema
    }

    fn object(
        &mut self,
        message: MessageId,
        form: &JsonOut,
        direction: Direction,
        is_gone: &dyn Fn(&Field) -> bool,
        claims: Option<&Claims>,
    ) -> Json {
        let table = self.tables.message(message);
        let doc = self.docs.of(&table.name);
        let (mut properties, mut required) = (Json::new(), Vec::new());
        for field in table.fields.iter().filter(|field| !is_gone(field)) {
            let name = member_name(field, form).to_owned();
            let about = self.docs.of(&format!("{}.{}", table.name, field.spec.name));
            let below = claims.and_then(|claims| claims.below(table.field_by_number(field.spec.number)?));
            let schema = match (below, field.message()) {
                (Some(below), Some(inner)) if !below.is_empty() => self.partial(inner, below, None, form),
                _ => self.value(field, form, direction),
            };
            if field.spec.presence == Presence::Required || direction == Direction::In && about.is_required {
                required.push(name.clone());
            }
            properties.set(name, annotated(schema, about));
        }
        let oneofs = oneofs(table, form, is_gone);
        let mut text = doc.comment.to_string();
        for members in &oneofs {
            let sentence = format!("At most one of {}.", members.join(", "));
            text = if text.is_empty() { sentence } else { format!("{text}\n\n{sentence}") };
        }
        let schema = Json::new()
            .with("title", short(&table.name))
            .with_text("description", &text)
            .with("type", "object")
            .with_some("properties", Some(properties).filter(|properties| !properties.is_empty()))
            .with_some("required", Some(required).filter(|required| !required.is_empty()))
            .with_some("not", apart(&oneofs));
        if doc.is_deprecated { schema.with("deprecated", true) } else { schema }
    }

    /// The schema of a field: list, map or single value.
    pub(super) fn value(&mut self, field: &Field, form: &JsonOut, direction: Direction) -> Json {
        match (field.spec.cardinality, field.message()) {
            (Cardinality::Map, Some(entry)) => {
                let entry = self.tables.message(entry);
                let (key, value) = (entry.field(FieldId(0)), entry.field(FieldId(1)));
                Json::new()
                    .with("type", "object")
                    .with_some("propertyNames", kinds::map_keys(key.spec.kind))
                    .with("additionalProperties", self.single(value, form, direction))
            }
            (Cardinality::Repeated, _) => {
                Json::new().with("type", "array").with("items", self.single(field, form, direction))
            }
            _ => self.single(field, form, direction),
        }
    }

    /// One value of a field.
    fn single(&mut self, field: &Field, form: &JsonOut, direction: Direction) -> Json {
        match field.spec.kind {
            Kind::Enum(id) => self.enumeration(id, form),
            Kind::Message(id) | Kind::Group(id) => self.message(id, form, direction, None),
            kind => kinds::scalar(kind, Place::Body).unwrap_or_else(Json::new),
        }
    }

    /// One value as the text of a path, query or header.
    pub(super) fn text(&mut self, field: &Field, form: &JsonOut) -> Json {
        match field.spec.kind {
            Kind::Message(id) if self.tables.message(id).shape == Shape::Wrapper => {
                self.text(self.tables.message(id).field(FieldId(0)), form)
            }
            kind => kinds::scalar(kind, Place::Text).unwrap_or_else(|| self.single(field, form, Direction::In)),
        }
    }

    fn wrapper(&mut self, table: &MessageTable, form: &JsonOut, direction: Direction) -> Json {
        let mut schema = self.single(table.field(FieldId(0)), form, direction);
        if let Json::Object(members) = &mut schema {
            for (_, kind) in members.iter_mut().filter(|member| member.0 == "type") {
                *kind = Json::List(vec![kind.clone(), "null".into()]);
            }
        }
        schema
    }

    fn enumeration(&mut self, id: EnumId, form: &JsonOut) -> Json {
        let table = self.tables.enumeration(id);
        if table.is_null {
            return Json::new().with("type", "null");
        }
        let is_number = form.enums == Enums::Number;
        let suffix = match form.enums == self.usual.enums {
            true => "",
            false if is_number => "-numbers",
            false => "-names",
        };
        let name = format!("{}{suffix}", table.name);
        if !self.components.contains_key(&name) {
            let doc = self.docs.of(&table.name);
            let mut text = doc.comment.to_string();
            let (mut values, mut names) = (Vec::<Json>::new(), Vec::new());
            for (value, number) in table.values() {
                let about = &self.docs.of(&format!("{}.{value}", table.name)).comment;
                if !about.is_empty() {
                    text.push_str(&format!("\n- `{value}`: {about}"));
                }
                values.push(if is_number { i64::from(number).into() } else { value.into() });
                names.push(value);
            }
            let schema = Json::new()
                .with("title", short(&table.name))
                .with_text("description", text.trim())
                .with("type", if is_number { "integer" } else { "string" })
                .with("enum", values)
                .with_some("x-enum-varnames", Some(names).filter(|_| is_number));
            self.components.insert(name.clone(), schema);
        }
        reference(&name)
    }

    /// True where a schema, or the one that it refers to, has members that must be there.
    pub(super) fn requires_members(&self, schema: &Json) -> bool {
        let referred = match schema.get("$ref") {
            Some(Json::Text(name)) => name.rsplit('/').next().and_then(|name| self.components.get(name)),
            _ => None,
        };
        referred.unwrap_or(schema).get("required").is_some()
    }

    /// True where a message, or one inside it, has fields that requests must have.
    fn needs_fields(&mut self, message: MessageId) -> bool {
        if let Some(known) = self.has_required.get(&message) {
            return *known;
        }
        let (mut seen, mut open) = (HashSet::from([message]), vec![message]);
        let mut found = false;
        while let Some(next) = open.pop() {
            let table = self.tables.message(next);
            for field in &table.fields {
                found |= self.docs.of(&format!("{}.{}", table.name, field.spec.name)).is_required;
                open.extend(field.message().filter(|inner| seen.insert(*inner)));
            }
        }
        self.has_required.insert(message, found);
        found
    }
}

/// A reference with what is written about the field that it stands at.
fn annotated(schema: Json, doc: &Doc) -> Json {
    let flags = [("deprecated", doc.is_deprecated), ("readOnly", doc.is_output_only), ("writeOnly", doc.is_input_only)];
    let is_described = schema.get("description").is_some();
    let schema = if is_described { schema } else { schema.with_text("description", &doc.comment) };
    flags.iter().filter(|flag| flag.1).fold(schema, |schema, flag| schema.with(flag.0, true))
}

pub(super) fn reference(name: &str) -> Json {
    Json::new().with("$ref", format!("#/components/schemas/{name}"))
}

/// The last part of a full name.
pub(super) fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// A field's name in JSON.
pub(super) fn member_name<'f>(field: &'f Field, form: &JsonOut) -> &'f str {
    if form.names == Names::Camel { &field.spec.json_name } else { &field.spec.name }
}

/// True where another member of the field's oneof is claimed.
fn is_excluded(tables: &Tables, message: MessageId, field: FieldId, claims: &Claims) -> bool {
    claims.excluded_by(tables, &crate::transcode::FieldPath::of(message, field), 0).is_some()
}

/// The members of each oneof that has at least two left.
fn oneofs(table: &MessageTable, form: &JsonOut, is_gone: &dyn Fn(&Field) -> bool) -> Vec<Vec<String>> {
    let members = |index: usize| -> Vec<String> {
        let is_member = |field: &&Field| field.spec.oneof.is_some_and(|id| id.0 as usize == index) && !is_gone(field);
        table.fields.iter().filter(is_member).map(|field| format!("`{}`", member_name(field, form))).collect()
    };
    (0..table.oneofs.len()).map(members).filter(|members| members.len() > 1).collect()
}

/// No two members of a oneof.
fn apart(oneofs: &[Vec<String>]) -> Option<Json> {
    let mut pairs = Vec::new();
    for members in oneofs.iter().filter(|members| members.len() <= ONEOF_MAX) {
        for (at, first) in members.iter().enumerate() {
            for second in &members[at + 1..] {
                let names = vec![first.trim_matches('`'), second.trim_matches('`')];
                pairs.push(Json::new().with("required", names));
            }
        }
    }
    (!pairs.is_empty()).then(|| Json::new().with("anyOf", pairs))
}
