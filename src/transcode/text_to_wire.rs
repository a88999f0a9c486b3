//! Text from paths, queries and headers → protobuf bytes: one value, nested in the messages around it.
//!
//! Each call appends a whole encoding of the outer message; several of them merge by concatenation.

use std::collections::HashSet;
use std::fmt;

use super::claims::Claims;
use super::field_path::{FieldPath, FieldPathError};
use super::json_to_wire::{map_key_to_wire, value_to_wire, wrong_value};
use super::print;
use super::table::{Cardinality, Field, FieldId, Kind, MessageId, OneofId, Shape, Tables};
use super::wire::put_varint;

/// Most parameters of one query.
const PARAMETERS_MAX: usize = 1_000;

/// Appends the value of the field at `path`, an element where it is a list, an entry where it is a map with a key.
///
/// Scalars and enums as text, times, durations, masks and wrappers in their JSON form without quotes, `Struct` and
/// `Value` as JSON. Fails with what was expected.
pub fn text_to_wire(tables: &Tables, path: &FieldPath, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let (message, field) = path.steps()[path.steps().len() - 1];
    let mut value = Vec::with_capacity(text.len() + 16);
    let leaf = tables.message(message).field(field);
    match (leaf.spec.cardinality, path.map_key()) {
        (Cardinality::Map, Some(key)) => map_entry(tables, leaf, key, text, &mut value)?,
        (Cardinality::Map, None) => {
            return Err(format!("`{}` is a map: name a key, as `{}[key]`", leaf.spec.name, leaf.spec.name));
        }
        _ => one_value(tables, message, field, text, &mut value)?,
    }
    nest(tables, &path.steps()[..path.steps().len() - 1], &value, out);
    Ok(())
}

/// Wraps a value in the messages on the way to it.
fn nest(tables: &Tables, steps: &[(MessageId, FieldId)], value: &[u8], out: &mut Vec<u8>) {
    // Lengths are known from the inside outwards, so the prefixes are collected first and written last.
    let mut prefixes: Vec<Vec<u8>> = Vec::with_capacity(steps.len());
    let mut len = value.len();
    let mut groups_end: Vec<u8> = Vec::new();
    for (message, id) in steps.iter().rev() {
        let field = tables.message(*message).field(*id);
        let mut prefix = field.tag().to_vec();
        if matches!(field.spec.kind, Kind::Group(_)) {
            let old = groups_end.len();
            put_varint(u64::from(field.spec.number) << 3 | 4, &mut groups_end);
            len += prefix.len() + groups_end.len() - old;
        } else {
            put_varint(len as u64, &mut prefix);
            len += prefix.len();
        }
        prefixes.push(prefix);
    }
    prefixes.iter().rev().for_each(|prefix| out.extend_from_slice(prefix));
    out.extend_from_slice(value);
    out.extend_from_slice(&groups_end);
}

fn map_entry(tables: &Tables, map: &Field, key: &str, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let Some(entry) = map.message() else { return Err("expected a map".to_owned()) };
    let mut content = Vec::new();
    map_key_to_wire(tables.message(entry).field(FieldId(0)), key, &mut content)
        .map_err(|what| format!("expected {what}"))?;
    one_value(tables, entry, FieldId(1), text, &mut content)?;
    out.extend_from_slice(map.tag());
    put_varint(content.len() as u64, out);
    out.extend_from_slice(&content);
    Ok(())
}

/// A value by way of its JSON form: quoted where that is a string, bare where it is JSON itself.
fn one_value(tables: &Tables, message: MessageId, id: FieldId, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let field = tables.message(message).field(id);
    let mut json = Vec::with_capacity(text.len() + 2);
    if is_boolean(tables, field) && !matches!(text, "true" | "false") {
        // As JSON it could be anything; the caller wrote a word and is shown it.
        return Err(wrong_value(0, "`true` or `false`", text.as_bytes()).text().to_owned());
    }
    if is_bare(tables, field, text) {
        json.extend_from_slice(text.as_bytes());
    } else if field.message().is_some_and(|id| tables.message(id).shape == Shape::FieldMask) {
        print::string(camel(text).as_bytes(), &mut json);
    } else {
        print::string(text.as_bytes(), &mut json);
    }
    value_to_wire(tables, message, id, &json, out).map_err(|error| error.text().to_owned())
}

fn is_boolean(tables: &Tables, field: &Field) -> bool {
    match field.spec.kind {
        Kind::Message(id) if tables.message(id).shape == Shape::Wrapper => {
            is_boolean(tables, tables.message(id).field(FieldId(0)))
        }
        kind => kind == Kind::Bool,
    }
}

/// True where a text is JSON already: booleans, enum numbers, objects.
fn is_bare(tables: &Tables, field: &Field, text: &str) -> bool {
    match field.spec.kind {
        Kind::Bool => true,
        Kind::Enum(_) => text.parse::<i64>().is_ok(),
        Kind::Message(id) | Kind::Group(id) => match tables.message(id).shape {
            Shape::Wrapper => is_bare(tables, tables.message(id).field(FieldId(0)), text),
            Shape::Timestamp | Shape::Duration | Shape::FieldMask => false,
            _ => true,
        },
        _ => false,
    }
}

/// A mask in either case as lower camel, which is what its JSON form is; clients send both.
fn camel(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_behind_underscore = false;
    for character in text.chars() {
        match character {
            '_' => is_behind_underscore = true,
            _ if is_behind_underscore => {
                out.extend(character.to_uppercase());
                is_behind_underscore = false;
            }
            _ => out.push(character),
        }
    }
    out
}

/// Why a query does not fit the request message.
#[derive(Debug, PartialEq, Eq)]
pub struct QueryError {
    /// The parameter as the client wrote it.
    pub parameter: String,
    /// What is wrong, and what was expected.
    pub text: String,
    /// The parameter clashes with another door: the path, a header, the body, or another parameter.
    pub is_conflict: bool,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query parameter `{}`: {}", self.parameter, self.text)
    }
}

impl std::error::Error for QueryError {}

/// Binds the parameters of one query to a message.
pub struct QueryBinder<'a> {
    tables: &'a Tables,
    message: MessageId,
    claims: &'a Claims,
    active: u32,
    /// Unknown parameters are skipped.
    ignores_unknown: bool,
    /// The body may set every field: no parameter can.
    pub covers_all: bool,
    /// Single fields that have been given, by their dotted path.
    given: HashSet<String>,
    /// Oneof members that have been given, by the path of their message.
    members: Vec<(String, OneofId, FieldId)>,
    count: usize,
}

impl<'a> QueryBinder<'a> {
    /// A binder for one request; `active` as for `json_to_wire`.
    pub fn new(tables: &'a Tables, message: MessageId, claims: &'a Claims, active: u32, ignores_unknown: bool) -> Self {
        QueryBinder {
            tables,
            message,
            claims,
            active,
            ignores_unknown,
            covers_all: false,
            given: HashSet::new(),
            members: Vec::new(),
            count: 0,
        }
    }

    /// Appends one parameter, already percent-decoded.
    pub fn bind(&mut self, name: &str, text: &str, out: &mut Vec<u8>) -> Result<(), QueryError> {
        let error =
            |text: String, is_conflict| QueryError { parameter: name.chars().take(100).collect(), text, is_conflict };
        self.count += 1;
        if self.count > PARAMETERS_MAX {
            return Err(error(format!("more than {PARAMETERS_MAX} parameters"), false));
        }
        let path = match FieldPath::resolve(self.tables, self.message, name) {
            Ok(path) => path,
            Err(FieldPathError::Unknown { .. }) if self.ignores_unknown => return Ok(()),
            Err(problem) => return Err(error(problem.to_string(), false)),
        };
        if self.covers_all || self.claims.covers(&path, self.active) {
            return Err(error("this field is set by the path, a header, the body or the gateway".to_owned(), true));
        }
        if let Some(other) = self.claims.excluded_by(self.tables, &path, self.active) {
            return Err(error(format!("excluded by `{other}`, a member of the same oneof"), true));
        }
        self.check_given(&path).map_err(|text| error(text, true))?;
        text_to_wire(self.tables, &path, text, out).map_err(|text| error(text, false))
    }

    /// Refuses a single field given twice, and a second member of a oneof.
    fn check_given(&mut self, path: &FieldPath) -> Result<(), String> {
        let leaf = path.field(self.tables);
        if leaf.spec.cardinality == Cardinality::Single && !self.given.insert(path.name(self.tables)) {
            return Err("given twice".to_owned());
        }
        let mut prefix = String::new();
        for (message, id) in path.steps() {
            let table = self.tables.message(*message);
            let field = table.field(*id);
            if let Some(oneof) = field.spec.oneof {
                let earlier = self.members.iter().find(|row| row.0 == prefix && row.1 == oneof);
                match earlier {
                    Some((_, _, other)) if other != id => {
                        let name = &table.field(*other).spec.name;
                        return Err(format!("excluded by `{name}`, a member of the same oneof"));
                    }
                    Some(_) => {}
                    None => self.members.push((prefix.clone(), oneof, *id)),
                }
            }
            prefix.push_str(&field.spec.name);
            prefix.push('.');
        }
        Ok(())
    }
}
