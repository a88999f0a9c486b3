//! docs/routes-reference.md: every key of `routes.yaml`, written from the types that read the file.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use serde_json::Value;

use super::manifest::json_schema;

const HEAD: &str = "# routes.yaml, key by key

Every key that the file may have. What the keys are for and how they work together: [routes.md](routes.md).
`tidegate schema` prints the same as a JSON Schema for editors, `tidegate schema --format markdown` prints this page.

`[]` stands for each item of a list, `NAME` for a key of your own choice. A key without *required* may be left out.
";

/// The page.
pub fn markdown() -> String {
    let schema: Value = serde_json::from_str(&json_schema()).unwrap_or_default();
    let mut page = HEAD.to_owned();
    for section in sections(&schema) {
        section.write(&schema, &mut page);
    }
    page
}

/// The keys of one type, and the places of the file where it stands.
struct Section<'s> {
    places: Vec<String>,
    definition: &'s Value,
}

/// In the order in which a reader comes upon them, each once.
fn sections(schema: &Value) -> Vec<Section<'_>> {
    let mut sections = vec![Section { places: Vec::new(), definition: schema }];
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut open = VecDeque::from([(String::new(), schema)]);
    while let Some((place, definition)) = open.pop_front() {
        for (key, value) in members(definition) {
            let here = if place.is_empty() { key.to_owned() } else { format!("{place}.{key}") };
            let Some((name, suffix)) = named(value) else { continue };
            let here = format!("{here}{suffix}");
            let Some(inner) = schema.pointer(&format!("/$defs/{name}")) else { continue };
            match known.get(name) {
                Some(at) => sections[*at].places.push(here),
                None => {
                    known.insert(name.to_owned(), sections.len());
                    sections.push(Section { places: vec![here.clone()], definition: inner });
                    open.push_back((here, inner));
                }
            }
        }
        for choice in choices(definition) {
            let Some((name, _)) = named(choice).filter(|(name, _)| !known.contains_key(*name)) else { continue };
            let Some(inner) = schema.pointer(&format!("/$defs/{name}")) else { continue };
            known.insert(name.to_owned(), sections.len());
            sections.push(Section { places: vec![format!("{place} as a map")], definition: inner });
        }
    }
    sections
}

impl Section<'_> {
    fn write(&self, schema: &Value, page: &mut String) {
        let title = match self.places.as_slice() {
            [] => "The file".to_owned(),
            places => places.iter().map(|place| format!("`{place}`")).collect::<Vec<_>>().join(", "),
        };
        // Writing to a text cannot fail.
        let _ = write!(page, "\n## {title}\n\n{}\n", description(self.definition));
        let choices = choices(self.definition);
        if !choices.is_empty() {
            page.push('\n');
            for choice in choices {
                let _ = writeln!(page, "- {}: {}", kind(schema, choice), description(choice));
            }
        }
        if members(self.definition).next().is_none() {
            return;
        }
        page.push_str("\n| key | value | meaning |\n|---|---|---|\n");
        for (key, value) in members(self.definition) {
            let required = schema_list(self.definition, "required").any(|name| name == key);
            let mark = if required { " *required*" } else { "" };
            let meaning = description(value).replace('|', "\\|");
            let _ = writeln!(page, "| `{key}`{mark} | {} | {meaning} |", kind(schema, value));
        }
    }
}

fn members(definition: &Value) -> impl Iterator<Item = (&str, &Value)> {
    definition["properties"].as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn choices(definition: &Value) -> Vec<&Value> {
    definition["anyOf"].as_array().into_iter().flatten().filter(|choice| choice["type"] != "null").collect()
}

fn schema_list<'v>(definition: &'v Value, name: &str) -> impl Iterator<Item = &'v str> {
    definition[name].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The text of a type without the types that it is inside of.
fn description(value: &Value) -> String {
    value["description"].as_str().unwrap_or_default().replace('\n', " ")
}

/// The definition that a key's value has, below lists and maps, and what stands for their keys.
fn named(value: &Value) -> Option<(&str, String)> {
    if let Some(name) = value["$ref"].as_str() {
        return Some((name.rsplit('/').next().unwrap_or(name), String::new()));
    }
    let (inner, suffix) = match (&value["items"], &value["additionalProperties"]) {
        (items @ Value::Object(_), _) => (items, "[]"),
        (_, values @ Value::Object(_)) => (values, ".NAME"),
        _ => return choices(value).into_iter().find_map(named),
    };
    let (name, rest) = named(inner)?;
    Some((name, format!("{suffix}{rest}")))
}

/// What kind of value it is, in words.
fn kind(schema: &Value, value: &Value) -> String {
    if let Some(name) = value["$ref"].as_str() {
        let is_choice = schema.pointer(&format!("{}/anyOf", name.trim_start_matches('#'))).is_some();
        return if is_choice { "text or map" } else { "map" }.to_owned();
    }
    if let Some(choice) = choices(value).first() {
        return kind(schema, choice);
    }
    let name = match &value["type"] {
        Value::String(name) => name.as_str(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).find(|name| *name != "null").unwrap_or_default(),
        _ => "",
    };
    match name {
        "string" => "text".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        "array" => format!("list of {}", plural(&kind(schema, &value["items"]))),
        "object" => match &value["additionalProperties"] {
            values @ Value::Object(_) => format!("map of {}", plural(&kind(schema, values))),
            _ => "map".to_owned(),
        },
        other => other.to_owned(),
    }
}

/// `texts or maps`, `lists of maps`.
fn plural(kind: &str) -> String {
    let first = kind.split(" or ").map(|word| match word.split_once(" of ") {
        Some((first, rest)) => format!("{first}s of {rest}"),
        None => format!("{word}s"),
    });
    first.collect::<Vec<_>>().join(" or ")
}
