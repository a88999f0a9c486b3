//! Everything in a file that has not the form of its JSON Schema, where the first such thing has stopped serde already.
//! Knows the part of JSON Schema that schemars writes for plain structs, maps, lists and scalars.

use serde_json::Value;

use super::hints::unknown_key;
use super::problem::{Place, Problem};
use super::tree::{Node, Tree};

/// What is wrong with the form of a file, in the order of the file.
pub(super) fn problems(file: &str, tree: &Tree, schema: &Value) -> Vec<Problem> {
    let mut walk = Walk { file, root: schema, problems: Vec::new() };
    walk.value(tree, schema);
    walk.problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
    walk.problems
}

struct Walk<'a> {
    file: &'a str,
    root: &'a Value,
    problems: Vec<Problem>,
}

impl<'a> Walk<'a> {
    fn problem(&mut self, place: (usize, usize), text: String, hint: String) {
        self.problems.push(Problem::new(Place::new(self.file, place.0, place.1), text).hint(hint));
    }

    /// What a schema stands for.
    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        while let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            schema = &self.root["$defs"][name];
        }
        schema
    }

    fn value(&mut self, tree: &Tree, schema: &'a Value) {
        let schema = self.resolve(schema);
        let forms: Vec<&Value> = match schema["anyOf"].as_array() {
            Some(forms) => forms.iter().map(|form| self.resolve(form)).collect(),
            None => vec![schema],
        };
        if matches!(tree.node, Node::Nothing) {
            return;
        }
        let Some(form) = forms.iter().find(|form| takes(form, &tree.node)) else {
            let mut expected: Vec<&str> = forms.iter().flat_map(|form| kinds(form)).filter_map(in_words).collect();
            expected.dedup();
            self.problem(tree.place, format!("expected {}, found {}", expected.join(" or "), tree.node), String::new());
            return;
        };
        match &tree.node {
            Node::Map(members) => self.map(tree.place, members, form),
            Node::List(items) => items.iter().for_each(|item| self.value(item, &form["items"])),
            Node::Whole(number) => self.range(tree.place, *number, form),
            _ => {}
        }
    }

    fn map(&mut self, place: (usize, usize), members: &[(super::At<String>, Tree)], schema: &'a Value) {
        let (named, others) = (schema["properties"].as_object(), &schema["additionalProperties"]);
        for (key, value) in members {
            match named.and_then(|named| named.get(&key.value)) {
                Some(schema) => self.value(value, schema),
                None if others.is_object() => self.value(value, others),
                None => {
                    let known: Vec<&str> = named.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                    let (text, hint) = unknown_key(&key.value, &known);
                    self.problem(key.place, text, hint);
                }
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !members.iter().any(|(key, _)| key.value == name) {
                self.problem(place, format!("missing field `{name}`"), String::new());
            }
        }
    }

    fn range(&mut self, place: (usize, usize), number: i64, schema: &Value) {
        let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
        if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
            let most = most.map_or(String::new(), |most| format!(" to {most}"));
            let text = format!("expected a number from {}{most}, found `{number}`", least.unwrap_or(i64::MIN));
            self.problem(place, text, String::new());
        }
    }
}

/// The kinds of values that a schema names.
fn kinds(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// True where a value is of a kind that the schema names. A text may be any scalar: YAML reads `5` and `true` so.
fn takes(schema: &Value, node: &Node) -> bool {
    kinds(schema).into_iter().any(|kind| match node {
        Node::Nothing => true,
        Node::Truth(_) => matches!(kind, "boolean" | "string"),
        Node::Whole(_) => matches!(kind, "integer" | "number" | "string"),
        Node::Real(_) => matches!(kind, "number" | "string"),
        Node::Text(_) => kind == "string",
        Node::List(_) => kind == "array",
        Node::Map(_) => kind == "object",
    })
}

fn in_words(kind: &str) -> Option<&'static str> {
    match kind {
        "object" => Some("a map"),
        "array" => Some("a list"),
        "string" => Some("a text"),
        "integer" => Some("a whole number"),
        "number" => Some("a number"),
        "boolean" => Some("`true` or `false`"),
        _ => None,
    }
}
