//! Whether an execution may begin: its parameters, and the services that it needs.

use std::collections::{BTreeMap, BTreeSet};

use super::pattern::Pattern;
use super::workflow::Workflow;
use crate::fault::{Code, Fault};
use crate::services::capabilities::registered;
use crate::services::checks::{invalid, required};
use crate::worker::Context;

/// Parameters that are missing, unknown or against their pattern.
pub(super) fn check_parameters(workflow: &Workflow, given: &BTreeMap<String, String>) -> Result<(), Fault> {
    if let Some(name) = given.keys().find(|name| !workflow.parameters.contains_key(*name)) {
        let text = format!("workflow {} has no parameter {name}", workflow.id);
        return Err(invalid(&format!("parameters.{name}"), "unknown_value", text));
    }
    for (name, row) in &workflow.parameters {
        let field = format!("parameters.{name}");
        let value = given.get(name).map_or("", String::as_str);
        if value.is_empty() && row.required {
            return Err(required(&field));
        }
        let pattern = row.pattern.as_deref().filter(|_| given.contains_key(name));
        // Patterns are read when the workflow is.
        if let Some(Ok(read)) = pattern.map(Pattern::parse)
            && !read.fits(value)
        {
            let text = format!("{field} must be like {}", pattern.unwrap_or_default());
            return Err(invalid(&field, "bad_format", text));
        }
    }
    Ok(())
}

/// Refuses to begin where a service is missing that the request or a step names. Those of steps count where services
/// register themselves: then this one is among them.
pub(super) async fn check_services(context: &Context, workflow: &Workflow, wanted: &[String]) -> Result<(), Fault> {
    // Instances register in the default tenant, whoever asks.
    let found = match registered(&context.for_tenant("")).await {
        Ok(found) => found,
        Err(fault) if wanted.is_empty() => {
            tracing::debug!(%fault, "the registry does not answer");
            return Ok(());
        }
        Err(fault) => {
            let text = "the registry of services does not answer";
            return Err(Fault::upstream(Code::Unavailable, text).internal(fault.to_string()));
        }
    };
    let online: BTreeSet<&str> =
        found.iter().filter(|service| service.is_online).map(|service| service.service()).collect();
    let mut needed: BTreeSet<&str> = wanted.iter().map(String::as_str).collect();
    if online.contains("orchestration") {
        needed.extend(workflow.services());
    }
    let missing: Vec<&str> = needed.difference(&online).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Fault::client(Code::FailedPrecondition, "required services are offline")
        .detail("reason", "service_offline")
        .detail("missing", missing.join(",")))
}
