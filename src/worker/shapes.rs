//! The structs of handlers and hooks, held against the messages of their method.

use serde::de::DeserializeOwned;

use crate::envelope::ErrorPlan;
use crate::snapshot::Method;
use crate::transcode::{ShapeProblem, shape_check};

pub(super) fn check_unary<Q: DeserializeOwned, R: DeserializeOwned>(method: &Method) -> Vec<String> {
    let mut problems = check_request::<Q>(method);
    problems.extend(check_reply::<R>(method, &[]));
    problems
}

pub(super) fn check_stream<Q: DeserializeOwned, C: DeserializeOwned>(method: &Method) -> Vec<String> {
    let mut problems = check_request::<Q>(method);
    problems.extend(check_chunk::<C>(method));
    problems
}

pub(super) fn check_request<Q: DeserializeOwned>(method: &Method) -> Vec<String> {
    let given: Vec<u32> = method.envelope.context.iter().map(|plan| plan.number).collect();
    named("request", shape_check::<Q>(&method.tables, method.request, &given))
}

/// A reply may leave out what is filled for it.
pub(super) fn check_reply<R: DeserializeOwned>(method: &Method, filled: &[u32]) -> Vec<String> {
    let envelope = &method.envelope;
    let given = [envelope.reply_context, error_field(&envelope.reply_error)].into_iter().flatten();
    let given: Vec<u32> = given.chain(filled.iter().copied()).collect();
    named("reply", shape_check::<R>(&method.tables, method.reply, &given))
}

pub(super) fn check_chunk<C: DeserializeOwned>(method: &Method) -> Vec<String> {
    let plan = &method.envelope.chunk;
    let given = [plan.context, plan.index, plan.last, error_field(&plan.error)];
    let given: Vec<u32> = given.into_iter().flatten().collect();
    named("chunk", shape_check::<C>(&method.tables, method.chunk, &given))
}

pub(super) fn named(part: &str, checked: Result<(), Vec<ShapeProblem>>) -> Vec<String> {
    let problems = checked.err().unwrap_or_default();
    problems.into_iter().map(|problem| format!("{part}: {problem}")).collect()
}

fn error_field(plan: &ErrorPlan) -> Option<u32> {
    match plan {
        ErrorPlan::InBand { field, .. } => Some(*field),
        ErrorPlan::Headers | ErrorPlan::Status => None,
    }
}
