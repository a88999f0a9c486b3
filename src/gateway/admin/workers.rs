//! Who answers on the bus, by the NATS services protocol (ADR-32): one question to all, answers for a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::bus::Bus;
use crate::bus::discovery::{self, Answer};
use crate::fault::Fault;

/// Longest wait for all answers together.
const WAIT: Duration = Duration::from_secs(2);
/// Longest wait for the first answer, and silence behind the last one.
const QUIET: Duration = Duration::from_millis(300);
/// Most instances that are shown.
const INSTANCES_MAX: usize = 2_000;
/// Longest text that is taken over from an answer, in characters.
const TEXT_MAX: usize = 300;

/// A service of some name, with everybody who serves it.
#[derive(Debug, Default, Serialize)]
pub(super) struct Service {
    instances: Vec<Instance>,
}

/// One worker.
#[derive(Debug, Serialize)]
struct Instance {
    id: String,
    version: String,
    started: String,
    endpoints: Vec<Endpoint>,
}

/// One of its methods.
#[derive(Debug, Serialize)]
struct Endpoint {
    name: String,
    subject: String,
    requests: u64,
    errors: u64,
    average_ms: f64,
    last_error: String,
}

/// Services by name.
pub(super) async fn ask(bus: &Bus) -> Result<BTreeMap<String, Service>, Fault> {
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    let answers = discovery::ask(bus, "$SRV.STATS", QUIET, WAIT).await?;
    for answer in answers.iter().take(INSTANCES_MAX).filter_map(Answer::read) {
        services.entry(short(&answer.name)).or_default().instances.push(Instance::of(&answer));
    }
    for service in services.values_mut() {
        service.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(services)
}

impl Instance {
    fn of(answer: &Answer) -> Instance {
        let endpoints = answer.endpoints.iter().map(|endpoint| Endpoint {
            name: short(&endpoint.name),
            subject: short(&endpoint.subject),
            requests: endpoint.num_requests,
            errors: endpoint.num_errors,
            average_ms: endpoint.average_processing_time / 1e6,
            last_error: short(&endpoint.last_error),
        });
        Instance {
            id: short(&answer.id),
            version: short(&answer.version),
            started: short(&answer.started),
            endpoints: endpoints.collect(),
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}
