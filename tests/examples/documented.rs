//! The examples as data: their order, their calls, and the HTTP request that a binding makes of a call.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// A field as the documentation lists it.
pub struct FieldRow {
    /// Full name of its type, or a scalar.
    pub kind: String,
    /// Not of the frozen contract: other implementations may lack it.
    pub is_additive: bool,
}

/// Examples, messages, methods and bindings as documented.
pub struct Documented {
    examples: Vec<Value>,
    additions: Value,
    contract: Value,
    fields: BTreeMap<String, BTreeMap<String, FieldRow>>,
}

/// A member that must be text.
pub fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {value}")).to_owned()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

impl Documented {
    pub fn read() -> Documented {
        let contract: Value = serde_json::from_str(include_str!("../data/contract.json")).unwrap();
        let additions: Value = serde_json::from_str(include_str!("../data/additions.json")).unwrap();
        let examples = serde_json::from_str(include_str!("../data/examples.json")).unwrap();
        let mut fields: BTreeMap<String, BTreeMap<String, FieldRow>> = BTreeMap::new();
        for (table, is_additive) in [(&contract["messages"], false), (&additions["fields"], true)] {
            for (message, list) in table.as_object().unwrap() {
                let row = |row: &Value| (text(row, "name"), FieldRow { kind: text(row, "type"), is_additive });
                fields.entry(message.clone()).or_default().extend(rows(list).iter().map(row));
            }
        }
        Documented { examples, additions, contract, fields }
    }

    fn example(&self, id: &str) -> &Value {
        self.examples.iter().find(|example| example["id"] == id).unwrap_or_else(|| panic!("no example {id}"))
    }

    pub fn ids(&self) -> Vec<String> {
        self.examples.iter().map(|example| text(example, "id")).collect()
    }

    pub fn service(&self, id: &str) -> String {
        text(self.example(id), "service")
    }

    pub fn calls(&self, id: &str) -> &[Value] {
        rows(&self.example(id)["calls"])
    }

    /// The example behind those that it builds on.
    pub fn in_order(&self, id: &str) -> Vec<String> {
        let given = rows(&self.example(id)["given"]).iter().filter_map(Value::as_str);
        given.flat_map(|id| self.in_order(id)).chain([id.to_owned()]).collect()
    }

    /// Settings that hold from the first call on, those of the examples before it too.
    pub fn config(&self, id: &str) -> BTreeMap<String, Value> {
        let configs = self.calls(id).iter().filter_map(|call| call["config"].as_object());
        configs.flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The fields of a message, or nothing where it is none of the game's.
    pub fn fields(&self, message: &str) -> Option<&BTreeMap<String, FieldRow>> {
        self.fields.get(message)
    }

    /// The message that answers a call.
    pub fn reply(&self, call: &Value) -> String {
        let is_on = |row: &&Value| row["subject"] == call["call"];
        let chunk = rows(&self.contract["operations"]).iter().find(is_on).and_then(|row| row["chunk"].as_str());
        let chunk = chunk.filter(|_| call["stream"] == true).map(str::to_owned);
        chunk.unwrap_or_else(|| text(rows(&self.additions["methods"]).iter().find(is_on).unwrap(), "reply"))
    }

    /// Verb, path with query, and body of a call: what the path says from the path, the `body` part as body, the rest
    /// as query; constants are left to the binding.
    pub fn http_request(&self, call: &Value) -> (String, String, Option<Value>) {
        let http = text(call, "http");
        let (verb, target) = http.split_once(' ').unwrap();
        let path = target.split('?').next().unwrap();
        let methods: BTreeSet<String> = rows(&self.additions["methods"])
            .iter()
            .filter(|row| row["subject"] == call["call"])
            .map(|row| text(row, "rpc"))
            .collect();
        let mut best: Option<(usize, Vec<String>, &str)> = None;
        for line in rows(&self.additions["bindings"]).iter().filter_map(Value::as_str) {
            let (rule, method) = line.split_once(" -> ").unwrap();
            let template = rule.strip_prefix(verb).and_then(|rest| rest.strip_prefix(' '));
            let Some(template) = template.filter(|_| methods.contains(method.rsplit('/').next().unwrap())) else {
                continue;
            };
            let (template, options) = template.split_once(' ').unwrap_or((template, ""));
            let Some(bound) = matched(template, path) else { continue };
            if best.as_ref().is_none_or(|(count, ..)| bound.len() < *count) {
                best = Some((bound.len(), bound, options));
            }
        }
        let (_, bound, options) = best.unwrap_or_else(|| panic!("no binding for `{http}`"));
        let mut request = call["request"].clone();
        remove(&mut request, "meta");
        bound.iter().for_each(|field| remove(&mut request, field));
        let option = |name: &str| options.split(' ').skip_while(|word| *word != name).nth(1);
        if let Some((preset, _)) = option("preset").and_then(|preset| preset.split_once('=')) {
            remove(&mut request, preset);
        }
        let body = match option("body") {
            Some("*") => return (verb.to_owned(), target.to_owned(), Some(request)),
            Some(field) => request.as_object_mut().unwrap().remove(field),
            None => None,
        };
        let mut query = Vec::new();
        flatten("", &request, &mut query);
        let has_query = target.contains('?') || query.is_empty();
        let target = if has_query { target.to_owned() } else { format!("{target}?{}", query.join("&")) };
        (verb.to_owned(), target, body)
    }
}

/// The headers that stand for an example's `meta`.
pub fn headers(meta: &Value) -> Vec<(String, String)> {
    let key = meta["idempotency_key"].as_str().map(|key| ("Idempotency-Key".to_owned(), key.to_owned()));
    let labels = meta["labels"].as_object().into_iter().flatten();
    key.into_iter().chain(labels.map(|(name, _)| (format!("X-Custom-{name}"), text(&meta["labels"], name)))).collect()
}

/// The call with real values where the documentation shows its own.
pub fn with_captured(call: &Value, captured: &[(Value, Value)]) -> Value {
    match call {
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), with_captured(value, captured))).collect()
        }
        Value::Array(items) => items.iter().map(|item| with_captured(item, captured)).collect(),
        Value::String(text) => {
            let replaced = captured.iter().fold(text.clone(), |text, (shown, real)| {
                text.replace(shown.as_str().unwrap_or_default(), real.as_str().unwrap_or_default())
            });
            Value::String(replaced)
        }
        other => other.clone(),
    }
}

/// The variables of a template that takes the path.
fn matched(template: &str, path: &str) -> Option<Vec<String>> {
    let (parts, found): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    let mut bound = Vec::new();
    for (part, found) in parts.iter().zip(&found) {
        match part.strip_prefix('{').and_then(|part| part.split_once('}')) {
            Some((field, verb)) => {
                let value = found.strip_suffix(verb).filter(|value| !value.is_empty() && !value.contains(':'))?;
                debug_assert!(!value.contains('/'));
                bound.push(field.to_owned());
            }
            None if part == found => {}
            None => return None,
        }
    }
    (parts.len() == found.len()).then_some(bound)
}

fn remove(value: &mut Value, path: &str) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let Some(members) = value.as_object_mut() else { return };
    match rest {
        None => drop(members.remove(name)),
        Some(rest) => {
            if let Some(inner) = members.get_mut(name) {
                remove(inner, rest);
                if inner.as_object().is_some_and(Map::is_empty) {
                    members.remove(name);
                }
            }
        }
    }
}

fn flatten(path: &str, value: &Value, query: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                flatten(&if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, value, query);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| flatten(path, item, query)),
        Value::String(text) => query.push(format!("{path}={}", encoded(text))),
        other => query.push(format!("{path}={other}")),
    }
}

fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
