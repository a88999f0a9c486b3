//! Every service makes itself known to capability-registry: registered while it runs, a heartbeat a minute with its
//! load, deregistered at its end. A registry that is not there is no matter: it is told later.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::capabilities::Capability;
use crate::fault::Fault;
use crate::worker::{Context, Service};

const REGISTER: &str = "capability_registry.v1.CapabilityRegistryService/Register";
const HEARTBEAT: &str = "capability_registry.v1.CapabilityRegistryService/Heartbeat";
const DEREGISTER: &str = "capability_registry.v1.CapabilityRegistryService/Deregister";

/// Interval of heartbeats.
const BEAT: Duration = Duration::from_secs(60);
/// Pause before a registry that did not answer is asked again; it doubles up to its bound. The first ones are short, as
/// a registry that starts together with its services is there in a moment.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the registry at the end.
const GOODBYE: Duration = Duration::from_secs(1);
/// What the capability of an operation is called.
const OPERATION: &str = "operation";

#[derive(Serialize)]
struct Register {
    service_id: String,
    capabilities: Vec<Capability>,
    endpoint: String,
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Heartbeat<'r> {
    registration_id: &'r str,
    metrics: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct Deregister<'r> {
    registration_id: &'r str,
}

#[derive(Deserialize)]
struct Registered {
    registration_id: String,
}

#[derive(Deserialize)]
struct Done {
    #[allow(dead_code, reason = "the reply says success or is an error")]
    success: bool,
}

/// The service, which registers itself.
pub(super) fn registered(service: Service) -> Service {
    service.task("registration", keep)
}

/// Keeps a registration until the service drains.
async fn keep(context: Context) {
    let mut pause = RETRY;
    while context.cancelled().is_none() {
        match register(&context).await {
            Ok(registration_id) => {
                pause = RETRY;
                // Where a heartbeat fails the registry may have forgotten us: it is told again.
                beat(&context, &registration_id).await;
                if context.cancelled().is_some() {
                    return deregister(&context, &registration_id).await;
                }
            }
            Err(fault) => tracing::debug!(service = context.service(), %fault, "not registered"),
        }
        wait(&context, pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

async fn register(context: &Context) -> Result<String, Fault> {
    let subjects: BTreeSet<&str> = context.operations().collect();
    let mut capabilities: Vec<Capability> = Vec::new();
    for subject in &subjects {
        let name = subject.rsplit('.').next().unwrap_or(subject);
        if capabilities.iter().all(|known| known.capability_id != name) {
            capabilities.push(Capability {
                capability_id: name.to_owned(),
                capability_type: OPERATION.to_owned(),
                supported_models: Vec::new(),
                parameters: BTreeMap::from([("subject".to_owned(), (*subject).to_owned())]),
                cost_multiplier: 0.0,
                avg_latency_ms: 0.0,
            });
        }
    }
    let request = Register {
        service_id: context.instance().to_owned(),
        capabilities,
        endpoint: endpoint(&subjects),
        metadata: BTreeMap::from([("version".to_owned(), VERSION.to_owned())]),
    };
    let reply: Registered = context.call_as_service(REGISTER, &request).await?;
    Ok(reply.registration_id)
}

/// Beats until the service drains or a heartbeat fails.
async fn beat(context: &Context, registration_id: &str) {
    loop {
        wait(context, BEAT).await;
        if context.cancelled().is_some() {
            return;
        }
        let request = Heartbeat { registration_id, metrics: BTreeMap::from([("load", context.load())]) };
        if let Err(fault) = context.call_as_service::<_, Done>(HEARTBEAT, &request).await {
            return tracing::debug!(service = context.service(), %fault, "no heartbeat");
        }
    }
}

/// Says goodbye; a registry that stops at the same time lets the registration lapse.
async fn deregister(context: &Context, registration_id: &str) {
    let own = context.for_tenant("");
    let asked = match own.peer(DEREGISTER) {
        Ok(peer) => peer.as_service().timeout(GOODBYE).ask::<_, Done>(&Deregister { registration_id }).await,
        Err(fault) => Err(fault),
    };
    if let Err(fault) = asked {
        tracing::debug!(service = context.service(), %fault, "not deregistered");
    }
}

async fn wait(context: &Context, pause: Duration) {
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        _ = context.until_cancelled() => {}
    }
}

/// The tokens that all subjects begin with: `svc.quest.v1.>`.
fn endpoint(subjects: &BTreeSet<&str>) -> String {
    let (Some(first), Some(last)) = (subjects.first(), subjects.last()) else { return String::new() };
    // In sorted order, what the first and the last have in common all have in common.
    let before = |subject: &str| subject.rsplit_once('.').map(|(before, _)| before.to_owned()).unwrap_or_default();
    let (first, last) = (before(first), before(last));
    let shared = first.split('.').zip(last.split('.')).take_while(|(a, b)| a == b).map(|(token, _)| token);
    let shared: Vec<&str> = shared.filter(|token| !token.is_empty()).collect();
    if shared.is_empty() { String::new() } else { format!("{}.>", shared.join(".")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_what_all_subjects_begin_with() {
        let rows: &[(&[&str], &str)] = &[
            (&["svc.quest.v1.generate", "svc.quest.v1.get"], "svc.quest.v1.>"),
            (&["svc.ai.llm.v1.infer", "svc.ai.v1.cancel"], "svc.ai.>"),
            (&["svc.auth.v1.validate"], "svc.auth.v1.>"),
            (&["a.b", "c.d"], ""),
            (&[], ""),
        ];
        for (subjects, expected) in rows {
            assert_eq!(endpoint(&subjects.iter().copied().collect()), *expected, "{subjects:?}");
        }
    }
}
