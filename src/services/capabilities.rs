//! What instances of services offer (`capability_registry.v1`), and what a request requires of it: all of it, of one and
//! the same capability.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::checks::invalid;
use super::paging::Pagination;
use crate::fault::Fault;
use crate::worker::Context;

/// `capability_registry.v1.Capability`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Capability {
    pub(super) capability_id: String,
    pub(super) capability_type: String,
    pub(super) supported_models: Vec<String>,
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) cost_multiplier: f64,
    pub(super) avg_latency_ms: f64,
}

/// `capability_registry.v1.ServiceCapability`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ServiceCapability {
    pub(super) service_id: String,
    pub(super) registration_id: String,
    pub(super) capabilities: Vec<Capability>,
    pub(super) is_online: bool,
    pub(super) last_heartbeat_ms: i64,
    /// Metrics of the last heartbeat are among it, as `metric.NAME`.
    pub(super) metadata: BTreeMap<String, String>,
}

impl ServiceCapability {
    /// Name of its service: its id is `service@instance`.
    pub(super) fn service(&self) -> &str {
        self.service_id.split('@').next().unwrap_or_default()
    }

    /// A figure of the last heartbeat.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        self.metadata.get(&format!("metric.{name}")).and_then(|text| text.parse().ok())
    }

    /// The same with some of its capabilities; nothing where none is left.
    pub(super) fn only(mut self, is_wanted: impl Fn(&Capability) -> bool) -> Option<ServiceCapability> {
        self.capabilities.retain(is_wanted);
        Some(self).filter(|service| !service.capabilities.is_empty())
    }
}

#[derive(Serialize, Deserialize)]
struct Query {
    include_offline: bool,
    page: Option<Pagination>,
}

#[derive(Serialize, Deserialize)]
struct Queried {
    services: Vec<ServiceCapability>,
    next_page_token: String,
}

/// Every instance that the registry knows in the tenant, those that are offline as well.
pub(super) async fn registered(context: &Context) -> Result<Vec<ServiceCapability>, Fault> {
    let (mut services, mut page) = (Vec::new(), Pagination::first(500));
    loop {
        let query = Query { include_offline: true, page: Some(page) };
        let found: Queried =
            context.call_as_service("capability_registry.v1.CapabilityRegistryService/Query", &query).await?;
        services.extend(found.services);
        if found.next_page_token.is_empty() {
            return Ok(services);
        }
        page = Pagination::behind(500, found.next_page_token);
    }
}

/// One requirement.
enum Requirement {
    Model(String),
    MaxLatency(f64),
    MaxCost(f64),
    MaxLoad(f64),
    Min(String, f64),
    Max(String, f64),
    Equal(String, String),
}

/// The requirements of a query.
pub(super) struct Requirements(Vec<Requirement>);

impl Requirements {
    /// Reads the pairs of a request. Fails where a limit is no number.
    pub(super) fn read(pairs: &BTreeMap<String, String>) -> Result<Requirements, Fault> {
        let read = |(key, value): (&String, &String)| {
            let number = || {
                let number = value.trim().parse().ok().filter(|number: &f64| number.is_finite());
                let text = format!("{key} must be a number");
                number.ok_or_else(|| invalid(&format!("requirements.{key}"), "bad_format", text))
            };
            Ok(match key.as_str() {
                "model" => Requirement::Model(value.clone()),
                "max_latency_ms" => Requirement::MaxLatency(number()?),
                "max_cost" => Requirement::MaxCost(number()?),
                "max_load" => Requirement::MaxLoad(number()?),
                key => match (key.strip_prefix("min_"), key.strip_prefix("max_")) {
                    (Some(name), _) => Requirement::Min(name.to_owned(), number()?),
                    (_, Some(name)) => Requirement::Max(name.to_owned(), number()?),
                    _ => Requirement::Equal(key.to_owned(), value.clone()),
                },
            })
        };
        pairs.iter().map(read).collect::<Result<_, _>>().map(Requirements)
    }

    /// True where a capability has all that is required.
    pub(super) fn hold(&self, service: &ServiceCapability, capability: &Capability) -> bool {
        self.missed(service, capability) == 0
    }

    /// How many requirements a capability does not meet.
    pub(super) fn missed(&self, service: &ServiceCapability, capability: &Capability) -> usize {
        let parameter = |name: &str| capability.parameters.get(name);
        let number = |name: &str| parameter(name).and_then(|text| text.trim().parse::<f64>().ok());
        let is_met = |requirement: &&Requirement| match requirement {
            Requirement::Model(model) => capability.supported_models.contains(model),
            Requirement::MaxLatency(max) => service.metric("latency_ms").unwrap_or(capability.avg_latency_ms) <= *max,
            Requirement::MaxCost(max) => capability.cost_multiplier <= *max,
            Requirement::MaxLoad(max) => service.metric("load").unwrap_or(0.0) <= *max,
            Requirement::Min(name, min) => number(name).is_some_and(|number| number >= *min),
            Requirement::Max(name, max) => number(name).is_some_and(|number| number <= *max),
            Requirement::Equal(name, value) => parameter(name) == Some(value),
        };
        self.0.iter().filter(|requirement| !is_met(requirement)).count()
    }
}
