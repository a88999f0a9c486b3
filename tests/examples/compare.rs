//! How a real answer is held against a documented one: exactly, but for what the documentation calls illustrative.

use serde_json::{Map, Value};

use crate::documented::Documented;

/// By which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Http,
    Bus,
}

/// What came back; status 0 over the bus.
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// Fields whose value hangs on the clock, on a secret, on the request's id, or is prose of the text engine: the real
/// one only has to be of the same kind. Message and field.
const ILLUSTRATIVE: &[(&str, &str)] = &[
    ("common.v1.Error", "message"),
    // Made of the request's id.
    ("ai_integration.v1.LLMInferenceResponse", "generation_id"),
    ("ai_integration.v1.LLMStreamChunk", "generation_id"),
    ("router.v1.RouteResponse", "routed_to"),
    // A secret.
    ("auth.v1.CreateSessionResponse", "session_token"),
    // Prose, and what it costs.
    ("ai_integration.v1.LLMInferenceResponse", "output_text"),
    ("ai_integration.v1.LLMStreamChunk", "output_text_delta"),
    ("common.v1.TokenUsage", "completion_tokens"),
    ("common.v1.TokenUsage", "total_tokens"),
    ("story_teller.v1.StoryContent", "content_id"),
    ("story_teller.v1.StoryContent", "content"),
    ("story_teller.v1.StoryContent", "dialogue_lines"),
    ("story_teller.v1.StoryContent", "quality_score"),
    // Ids and the seed.
    ("story_teller.v1.StoryContent", "metadata"),
    // Measured, or by a clock that runs.
    ("router.v1.RouteResponse", "latency_ms"),
    ("orchestration.v1.WorkflowStep", "started_at_ms"),
    ("orchestration.v1.WorkflowStep", "completed_at_ms"),
    ("orchestration.v1.WorkflowStep", "result"),
    ("model_mgmt.v1.ModelInfo", "created_at"),
    ("model_mgmt.v1.ModelInfo", "updated_at"),
];

pub fn every_illustrative_field_is_known(documented: &Documented) {
    for (message, field) in ILLUSTRATIVE {
        let fields = documented.fields(message).unwrap_or_else(|| panic!("no message `{message}`"));
        assert!(fields.contains_key(*field), "`{message}` has no field `{field}`");
    }
}

/// Every difference between a call's answer and the documented one, a line each.
pub fn differences(door: Door, call: &Value, answer: &Answer, documented: &Documented) -> Vec<String> {
    let (expected, message) = (&call["response"], documented.reply(call));
    // How long prose is, is as illustrative as the prose itself, but for one that was cut at a given length.
    let is_cut = expected["finish_reason"] == "length";
    let mut comparison = Comparison { documented, is_cut, found: Vec::new() };
    if door == Door::Http && call["status"] != answer.status {
        comparison.found.push(format!("status {} instead of {}", answer.status, call["status"]));
    }
    if door == Door::Http && answer.body["error"].is_object() && expected["error"].is_object() {
        comparison.error_over_http(&message, expected, &answer.body);
    } else {
        comparison.message(&message, "", expected, &answer.body);
    }
    comparison.found
}

struct Comparison<'a> {
    documented: &'a Documented,
    is_cut: bool,
    found: Vec<String>,
}

impl Comparison<'_> {
    /// A time that an example may leave out, because it depends on the clock.
    fn is_unshown_time(&self, message: &str, name: &str) -> bool {
        self.is_illustrative(message, name) && name.ends_with("_at")
    }

    fn is_illustrative(&self, message: &str, name: &str) -> bool {
        let is_exact = self.is_cut && message == "common.v1.TokenUsage";
        !is_exact && ILLUSTRATIVE.contains(&(message, name))
    }

    fn is_additive(&self, message: &str, name: &str) -> bool {
        self.documented.fields(message).and_then(|fields| fields.get(name)).is_some_and(|row| row.is_additive)
    }

    /// An error over HTTP: code and details of the reply, its other fields among the details.
    fn error_over_http(&mut self, message: &str, expected: &Value, body: &Value) {
        let error = &body["error"];
        if error["code"] != expected["error"]["code"] {
            self.found.push(format!("code {} instead of {}", error["code"], expected["error"]["code"]));
        }
        for (name, text) in [("message", &error["message"]), ("request_id", &body["request_id"])] {
            if text.as_str().is_none_or(str::is_empty) {
                self.found.push(format!("the error has no {name}"));
            }
        }
        let mut details: Map<String, Value> = expected["error"]["details"].as_object().cloned().unwrap_or_default();
        for (name, value) in expected.as_object().unwrap() {
            let is_mark = ["meta", "error", "index", "is_final"].contains(&name.as_str());
            if !is_mark && !value.is_object() && !value.is_array() {
                let plain = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                details.entry(name.clone()).or_insert(Value::String(plain));
            }
        }
        let real = error["details"].as_object().cloned().unwrap_or_default();
        for (name, value) in details.iter().filter(|(name, value)| real.get(*name) != Some(value)) {
            let real = real.get(name).unwrap_or(&Value::Null);
            self.found.push(format!("details.{name} is {real} instead of {value}"));
        }
        for (name, value) in real.iter().filter(|(name, _)| !details.contains_key(*name)) {
            if !self.is_additive(message, name) {
                self.found.push(format!("details.{name} is {value} and not documented"));
            }
        }
    }

    fn message(&mut self, message: &str, path: &str, expected: &Value, real: &Value) {
        let documented = self.documented;
        let parts = (documented.fields(message), expected.as_object(), real.as_object());
        let (Some(fields), Some(shown), Some(members)) = parts else {
            return self.value(path, expected, real);
        };
        for (name, value) in members.iter().filter(|(name, _)| !shown.contains_key(*name)) {
            // The context is shown only where it matters, and times only where they are exact.
            if name != "meta" && !self.is_additive(message, name) && !self.is_unshown_time(message, name) {
                self.found.push(format!("{path}.{name} is {value} and not documented"));
            }
        }
        for (name, value) in shown {
            let path = format!("{path}.{name}");
            let kind = &fields.get(name).unwrap_or_else(|| panic!("{message} has no field `{name}`")).kind;
            match (members.get(name), value) {
                (None, _) => self.found.push(format!("{path} is missing")),
                (Some(real), _) if self.is_illustrative(message, name) => {
                    if std::mem::discriminant(real) != std::mem::discriminant(value) {
                        self.found.push(format!("{path} is {real} instead of something like {value}"));
                    }
                }
                (Some(Value::String(real)), Value::String(shown)) if name == "response_payload" => {
                    if !is_reply(real, shown) {
                        self.found.push(format!("{path} is {real} instead of {shown} behind a context"));
                    }
                }
                (Some(real), _) if name == "meta" => self.context(&path, value, real),
                (Some(Value::Array(items)), Value::Array(shown)) if items.len() == shown.len() => {
                    for (index, (item, shown)) in items.iter().zip(shown).enumerate() {
                        self.message(kind, &format!("{path}[{index}]"), shown, item);
                    }
                }
                (Some(real), _) => self.message(kind, &path, value, real),
            }
        }
    }

    fn value(&mut self, path: &str, expected: &Value, real: &Value) {
        if !is_equal(expected, real) {
            self.found.push(format!("{path} is {real} instead of {expected}"));
        }
    }

    /// Of the context only what is shown matters, label by label.
    fn context(&mut self, path: &str, expected: &Value, real: &Value) {
        for (name, value) in expected.as_object().unwrap() {
            let Some(labels) = value.as_object() else {
                self.value(&format!("{path}.{name}"), value, &real[name]);
                continue;
            };
            for (label, value) in labels {
                self.value(&format!("{path}.{name}.{label}"), value, &real[name][label]);
            }
        }
    }
}

/// True where the bytes of a forwarded reply are those shown: its context, field 1, is left out there as everywhere.
fn is_reply(real: &str, shown: &str) -> bool {
    use base64::Engine as _;
    let [real, shown] = [real, shown].map(|text| base64::engine::general_purpose::STANDARD.decode(text).unwrap());
    let context = match real.as_slice() {
        [0x0a, len, ..] if *len < 0x80 => 2 + usize::from(*len),
        _ => 0,
    };
    real[context..] == shown
}

/// Equal in value: 1 and 1.0 are.
fn is_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, left)| right.get(name).is_some_and(|right| is_equal(left, right)))
        }
        _ => left == right,
    }
}
