//! The calls of steps: made for whoever started the execution, repeated where an error may pass, under keys that make a
//! repeat by another replica harmless.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;

use super::execution::{DEADLINE, Execution, Job, StepStatus};
use super::foundation;
use super::template::{Reference, at, expand};
use super::workflow::Step;
use crate::fault::{Code, Fault};
use crate::transcode::wire::{WireReader, put_bytes};
use crate::worker::Context;

/// Pause before a try is repeated, which doubles, and the longest one.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Most elements that a step runs for.
const ITEMS_MAX: usize = 1_000;

/// Makes the calls of one execution.
pub(super) struct Caller {
    context: Context,
    execution: Arc<Execution>,
    parallel: usize,
}

/// One call of a step.
struct Call<'c> {
    step: &'c Step,
    operation: &'c str,
    request: Value,
    key: String,
    /// Moment after which nobody wants the answer.
    until_ms: i64,
}

impl Caller {
    pub(super) fn new(context: &Context, execution: &Arc<Execution>, parallel: usize) -> Caller {
        Caller { context: context.clone(), execution: execution.clone(), parallel }
    }

    /// Makes a job's calls. Gives the reply's bytes; those of a step that runs for each element as one message, each
    /// reply as bytes in its field 1. Fails with the message of the step.
    pub(super) async fn make(&self, job: &Job) -> Result<Vec<u8>, String> {
        let (execution, step) = (&self.execution, &self.execution.workflow.steps[job.step]);
        let key = format!("{}:{}", execution.execution_id, step.id);
        if let Some(undo) = step.compensate.as_ref().filter(|_| job.is_undo) {
            let request = self.expand(&undo.request, None)?;
            let key = format!("{key}:undo");
            return self.call(Call { step, operation: &undo.operation, request, key, until_ms: i64::MAX }).await;
        }
        let call = |item: Option<&Value>, key: String| -> Result<Call<'_>, String> {
            let request = self.expand(&step.request, item)?;
            Ok(Call { step, operation: &step.operation, request, key, until_ms: execution.deadline_ms })
        };
        let Some(list) = &step.for_each else { return self.call(call(None, key)?).await };
        let items = elements(self.expand(&Value::String(list.clone()), None)?)?;
        let mut calls = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            calls.push(self.call(call(Some(item), format!("{key}:{index}"))?));
        }
        let replies: Vec<_> = futures_util::stream::iter(calls).buffered(self.parallel.max(1)).collect().await;
        let mut all = Vec::new();
        for reply in replies {
            put_bytes(1, &reply?, &mut all);
        }
        Ok(all)
    }

    /// One call with its repeats.
    async fn call(&self, call: Call<'_>) -> Result<Vec<u8>, String> {
        let Call { step, operation, request, key, until_ms } = call;
        if step.is_local() {
            return self.foundation(&request);
        }
        let said = |fault: &Fault| format!("{}: {}", fault.code_name(), fault.message());
        let context = self.context.for_requester(&self.execution.requester);
        let unknown = || format!("the schema has no `{} {operation}`", step.service);
        let peer = || context.operation(&step.service, operation).ok_or_else(unknown);
        let encoded = peer()?.encode(&request).map_err(|fault| said(&fault))?;
        let mut pause = PAUSE;
        for attempt in 0.. {
            let left_ms = until_ms.saturating_sub(context.now_ms()).clamp(0, step.timeout_ms as i64);
            if left_ms == 0 {
                break;
            }
            let timeout = Duration::from_millis(left_ms as u64);
            match peer()?.key(&*key).timeout(timeout).ask_encoded(&encoded).await {
                Ok(reply) => return Ok(reply.to_vec()),
                Err(_) if context.now_ms() >= until_ms => break,
                Err(fault) if attempt >= step.retries || !may_pass(fault.code()) => return Err(said(&fault)),
                Err(fault) => tokio::time::sleep(fault.retry().unwrap_or(pause).min(PAUSE_MAX)).await,
            }
            pause *= 2;
        }
        Err(DEADLINE.to_owned())
    }

    fn foundation(&self, request: &Value) -> Result<Vec<u8>, String> {
        let seed = request.get("seed").and_then(Value::as_str).filter(|seed| !seed.is_empty());
        let source = seed.unwrap_or(&self.execution.execution_id);
        let ground = foundation::generate(self.execution.requester.tenant(), source);
        serde_json::to_vec(&ground).map_err(|error| error.to_string())
    }

    fn expand(&self, template: &Value, item: Option<&Value>) -> Result<Value, String> {
        let find = |reference: &Reference| match reference {
            Reference::Parameter(name) => self.execution.parameters.get(name).map(|text| Value::String(text.clone())),
            Reference::ExecutionId => Some(Value::String(self.execution.execution_id.clone())),
            Reference::Item(path) => item.and_then(|item| at(item, path)).cloned(),
            Reference::Reply { step, path } => at(&self.reply(step)?, path).cloned(),
        };
        expand(template, &find)
    }

    /// The reply of a step that was completed; a list for one that ran for each element.
    fn reply(&self, id: &str) -> Option<Value> {
        let index = self.execution.workflow.steps.iter().position(|step| step.id == id)?;
        let (step, state) = (&self.execution.workflow.steps[index], &self.execution.steps[index]);
        let result = self.execution.result(index);
        if state.status != StepStatus::Completed || !state.error_message.is_empty() {
            return None;
        }
        if step.is_local() {
            return serde_json::from_slice(&result).ok();
        }
        let call = self.context.operation(&step.service, &step.operation)?;
        let Some(_) = step.for_each else { return call.reply_json(&result).ok() };
        let (mut replies, mut reader) = (Vec::new(), WireReader::new(&result));
        while let Some(record) = reader.record().ok()? {
            replies.push(call.reply_json(&result[record.from..record.to]).ok()?);
        }
        Some(Value::Array(replies))
    }
}

/// The elements of a list; those of a text are separated by commas.
fn elements(list: Value) -> Result<Vec<Value>, String> {
    let items: Vec<Value> = match list {
        Value::Array(items) => items,
        Value::String(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(|item| Value::String(item.to_owned())).collect()
        }
        _ => return Err("`for_each` is no list".to_owned()),
    };
    if items.len() > ITEMS_MAX { Err(format!("`for_each` has more than {ITEMS_MAX} elements")) } else { Ok(items) }
}

/// True for errors that may be gone the next time.
fn may_pass(code: Code) -> bool {
    matches!(code, Code::Aborted | Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted)
}
