//! Workflows as they are written: parameters, steps and what undoes them; and everything that is wrong with one.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::pattern::Pattern;
use super::template::{Reference, print, references};
use crate::transcode::MessageId;
use crate::transcode::table::{Cardinality, Kind, Shape};
use crate::worker::Context;

/// Most steps of a workflow.
const STEPS_MAX: usize = 64;
/// Longest wait for one try of a step, and most tries after the first one.
const TIMEOUT_MAX_MS: u64 = 600_000;
const RETRIES_MAX: u32 = 10;
/// The operation that this service runs itself.
pub(super) const FOUNDATION: (&str, &str) = ("orchestration", "foundation");
/// What steps may call.
const ALLOWED: [(&str, &str); 13] = [
    FOUNDATION,
    ("quest-system", "generate"),
    ("environmental-narrative", "generate"),
    ("story-teller", "generate"),
    ("ai-integration", "infer"),
    ("npc-behavior", "plan"),
    ("world-state", "update_state"),
    ("body-broker-integration", "negotiate"),
    ("body-broker-integration", "complete_deal"),
    ("payment", "process"),
    ("payment", "refund"),
    ("router", "health"),
    ("capability-registry", "query"),
];

/// A workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workflow {
    pub(super) id: String,
    #[serde(default)]
    pub(super) parameters: BTreeMap<String, Parameter>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameter {
    #[serde(default)]
    pub(super) required: bool,
    #[serde(default)]
    pub(super) default: String,
    /// Nothing: any text.
    pub(super) pattern: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) operation: String,
    #[serde(default = "nothing")]
    pub(super) request: Value,
    /// Steps that have to be finished first.
    #[serde(default)]
    pub(super) after: Vec<String>,
    pub(super) when: Option<When>,
    #[serde(default = "timeout_default")]
    pub(super) timeout_ms: u64,
    /// Tries after the first one, where an error may pass.
    #[serde(default = "retries_default")]
    pub(super) retries: u32,
    /// Its failure does not fail the workflow.
    #[serde(default)]
    pub(super) optional: bool,
    /// A list; the step runs once for each of its elements.
    pub(super) for_each: Option<String>,
    pub(super) compensate: Option<Compensation>,
}

/// A condition on a parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    pub(super) parameter: String,
    #[serde(default)]
    is: Vec<String>,
    #[serde(default)]
    is_not: Vec<String>,
}

/// What undoes a step, by an operation of the same service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Compensation {
    pub(super) operation: String,
    #[serde(default = "nothing")]
    pub(super) request: Value,
}

fn nothing() -> Value {
    Value::Object(serde_json::Map::new())
}

fn timeout_default() -> u64 {
    5_000
}

fn retries_default() -> u32 {
    2
}

impl When {
    pub(super) fn holds(&self, value: &str) -> bool {
        let has = |values: &[String]| values.iter().any(|other| other == value);
        (self.is.is_empty() || has(&self.is)) && !has(&self.is_not)
    }
}

impl Step {
    pub(super) fn is_local(&self) -> bool {
        (self.service.as_str(), self.operation.as_str()) == FOUNDATION
    }

    /// How long the step may take with all its tries and the pauses between them.
    pub(super) fn longest_ms(&self) -> i64 {
        ((self.timeout_ms + 1_000) * u64::from(self.retries + 1)) as i64
    }
}

impl Workflow {
    /// Everything that is wrong with it; nothing where it can run.
    pub(super) fn problems(&self, context: &Context) -> Vec<String> {
        let mut check = Check { workflow: self, context, problems: Vec::new() };
        check.workflow();
        check.problems
    }

    /// The services that its steps call.
    pub(super) fn services(&self) -> BTreeSet<&str> {
        self.steps.iter().filter(|step| !step.is_local()).map(|step| step.service.as_str()).collect()
    }

    pub(super) fn step(&self, id: &str) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The steps before a step, direct and indirect ones.
    fn before(&self, step: &Step) -> BTreeSet<&str> {
        let (mut found, mut open) = (BTreeSet::new(), vec![step]);
        while let Some(step) = open.pop() {
            for before in step.after.iter().filter_map(|id| self.step(id)) {
                if found.insert(before.id.as_str()) {
                    open.push(before);
                }
            }
        }
        found
    }
}

struct Check<'w> {
    workflow: &'w Workflow,
    context: &'w Context,
    problems: Vec<String>,
}

impl Check<'_> {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    fn workflow(&mut self) {
        let workflow = self.workflow;
        if !is_name(&workflow.id) {
            self.problem("`id` must be letters, digits, `_` and `-`");
        }
        if !(1..=STEPS_MAX).contains(&workflow.steps.len()) {
            self.problem(format!("`steps` must have 1 to {STEPS_MAX} elements"));
        }
        for (name, parameter) in &workflow.parameters {
            match parameter.pattern.as_deref().map(Pattern::parse) {
                Some(Err(text)) => self.problem(format!("parameter `{name}`: {text}")),
                Some(Ok(pattern)) if !parameter.required && !pattern.fits(&parameter.default) => {
                    self.problem(format!("parameter `{name}`: its default does not fit its pattern"));
                }
                _ => {}
            }
        }
        for (index, step) in workflow.steps.iter().enumerate() {
            if workflow.steps[..index].iter().any(|other| other.id == step.id) {
                self.problem(format!("step `{}` is there twice", step.id));
            }
            self.step(step);
        }
    }

    fn step(&mut self, step: &Step) {
        let (workflow, id) = (self.workflow, step.id.as_str());
        if !is_name(id) {
            self.problem(format!("step `{id}`: an id is letters, digits, `_` and `-`"));
        }
        for unknown in step.after.iter().filter(|after| workflow.step(after).is_none()) {
            self.problem(format!("step `{id}` comes after `{unknown}`, which there is not"));
        }
        let before = workflow.before(step);
        if before.contains(id) {
            self.problem(format!("step `{id}` comes after itself: `after` makes a circle"));
        }
        if !(1..=TIMEOUT_MAX_MS).contains(&step.timeout_ms) || step.retries > RETRIES_MAX {
            let text = format!("timeout_ms is 1 to {TIMEOUT_MAX_MS}, retries 0 to {RETRIES_MAX}");
            self.problem(format!("step `{id}`: {text}"));
        }
        if let Some(when) = step.when.as_ref().filter(|when| !workflow.parameters.contains_key(&when.parameter)) {
            self.problem(format!("step `{id}`: `when` names parameter `{}`, which there is not", when.parameter));
        }
        let scope = Scope { step, before: &before, has_item: step.for_each.is_some() };
        if let Some(list) = &step.for_each {
            self.template(&Scope { has_item: false, ..scope }, &Value::String(list.clone()));
        }
        let request = self.request_of(step, &step.operation);
        self.message(&scope, request, &step.request, "request");
        self.template(&scope, &step.request);
        if let Some(undo) = &step.compensate {
            let mut before = before.clone();
            before.insert(id);
            let scope = Scope { step, before: &before, has_item: false };
            let request = self.request_of(step, &undo.operation);
            self.message(&scope, request, &undo.request, "compensate.request");
            self.template(&scope, &undo.request);
        }
    }

    /// The request of a step's operation; nothing where it may not be called, or where this service runs it itself.
    fn request_of(&mut self, step: &Step, operation: &str) -> Option<MessageId> {
        let name = (step.service.as_str(), operation);
        if !ALLOWED.contains(&name) {
            let allowed: Vec<String> = ALLOWED.iter().map(|(service, name)| format!("{service} {name}")).collect();
            let text = format!("step `{}`: `{} {operation}` is none of {}", step.id, step.service, allowed.join(", "));
            self.problem(text);
            return None;
        }
        if name == FOUNDATION {
            return None;
        }
        let request = self.context.operation(name.0, name.1).map(|call| call.method().request);
        if request.is_none() {
            self.problem(format!("step `{}`: the schema has no `{} {operation}`", step.id, step.service));
        }
        request
    }

    /// Members of a request that its message does not have.
    fn message(&mut self, scope: &Scope<'_>, message: Option<MessageId>, template: &Value, path: &str) {
        let (Some(message), Value::Object(members)) = (message, template) else { return };
        let tables = self.context.tables().clone();
        let table = tables.message(message);
        if table.shape != Shape::Plain {
            return;
        }
        for (name, value) in members {
            let path = format!("{path}.{name}");
            let Some(field) = table.field_by_name(name.as_bytes()) else {
                self.problem(format!("step `{}`: `{}` has no field `{path}`", scope.step.id, table.name));
                continue;
            };
            let spec = &table.field(field).spec;
            let below = match (spec.kind, spec.cardinality) {
                (Kind::Message(below), Cardinality::Single | Cardinality::Repeated) => Some(below),
                _ => None,
            };
            match value {
                Value::Array(items) => items.iter().for_each(|item| self.message(scope, below, item, &path)),
                value => self.message(scope, below, value, &path),
            }
        }
    }

    /// References to what there is not.
    fn template(&mut self, scope: &Scope<'_>, template: &Value) {
        let id = &scope.step.id;
        let found = match references(template) {
            Ok(found) => found,
            Err(text) => return self.problem(format!("step `{id}`: {text}")),
        };
        for reference in found {
            let name = print(&reference);
            match &reference {
                Reference::Parameter(parameter) if !self.workflow.parameters.contains_key(parameter) => {
                    self.problem(format!("step `{id}`: there is no parameter for `{name}`"));
                }
                Reference::Reply { step, .. } if !scope.before.contains(step.as_str()) => {
                    self.problem(format!("step `{id}` takes `{name}`, but does not come after `{step}`"));
                }
                Reference::Reply { step, path } => {
                    let step = self.workflow.step(step);
                    if step.is_some_and(|step| !self.has_reply(step, path)) {
                        self.problem(format!("step `{id}`: the reply has nothing at `{name}`"));
                    }
                }
                Reference::Item(_) if !scope.has_item => {
                    self.problem(format!("step `{id}` takes `{name}` without `for_each`"));
                }
                _ => {}
            }
        }
    }

    /// True where a step's reply can have something at a path.
    fn has_reply(&self, step: &Step, path: &[String]) -> bool {
        let Some(call) = self.context.operation(&step.service, &step.operation) else { return true };
        let tables = self.context.tables();
        let is_number = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
        let mut path = path.iter();
        if step.for_each.is_some() && !path.next().is_none_or(is_number) {
            return false;
        }
        let mut message = call.method().reply;
        while let Some(name) = path.next() {
            let table = tables.message(message);
            if table.shape != Shape::Plain {
                return true;
            }
            let Some(field) = table.field_by_name(name.as_bytes()).map(|id| &table.field(id).spec) else {
                return false;
            };
            if field.cardinality == Cardinality::Map {
                return true;
            }
            if field.cardinality == Cardinality::Repeated && !path.next().is_none_or(is_number) {
                return false;
            }
            match field.kind {
                Kind::Message(below) => message = below,
                _ => return path.next().is_none(),
            }
        }
        true
    }
}

#[derive(Clone, Copy)]
struct Scope<'s> {
    step: &'s Step,
    before: &'s BTreeSet<&'s str>,
    has_item: bool,
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}
