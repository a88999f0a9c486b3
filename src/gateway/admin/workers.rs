//! Who answers on the bus, by the NATS services protocol (ADR-32): one question to all, answers for a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::bus::{Bus, discovery};
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
    for answer in answers.iter().take(INSTANCES_MAX) {
        let Ok(stats) = serde_json::from_slice::<Value>(&answer.payload) else { continue };
        if let Some(instance) = Instance::read(&stats) {
            services.entry(text(&stats, "name")).or_default().instances.push(instance);
        }
    }
    for service in services.values_mut() {
        service.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Ok(services)
}

impl Instance {
    fn read(stats: &Value) -> Option<Instance> {
        let endpoints = stats["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
        let (id, version, started) = (text(stats, "id"), text(stats, "version"), text(stats, "started"));
        let endpoints = endpoints.iter().map(|row| Endpoint {
            name: text(row, "name"),
            subject: text(row, "subject"),
            requests: row["num_requests"].as_u64().unwrap_or_default(),
            errors: row["num_errors"].as_u64().unwrap_or_default(),
            average_ms: row["average_processing_time"].as_f64().unwrap_or_default() / 1e6,
            last_error: text(row, "last_error"),
        });
        (!id.is_empty()).then(|| Instance { id, version, started, endpoints: endpoints.collect() })
    }
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_default().chars().take(TEXT_MAX).collect()
}
