//! What a query requires of a capability: all of it, of one and the same capability.

use std::collections::BTreeMap;

use super::{Capability, Registration};
use crate::fault::Fault;
use crate::services::checks::invalid;

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

    /// True where a capability of a registration has all that is required.
    pub(super) fn hold(&self, registration: &Registration, capability: &Capability) -> bool {
        let metric = |name: &str| registration.metrics.get(name).copied();
        let parameter = |name: &str| capability.parameters.get(name);
        let number = |name: &str| parameter(name).and_then(|text| text.trim().parse::<f64>().ok());
        self.0.iter().all(|requirement| match requirement {
            Requirement::Model(model) => capability.supported_models.contains(model),
            Requirement::MaxLatency(max) => metric("latency_ms").unwrap_or(capability.avg_latency_ms) <= *max,
            Requirement::MaxCost(max) => capability.cost_multiplier <= *max,
            Requirement::MaxLoad(max) => metric("load").unwrap_or(0.0) <= *max,
            Requirement::Min(name, min) => number(name).is_some_and(|number| number >= *min),
            Requirement::Max(name, max) => number(name).is_some_and(|number| number <= *max),
            Requirement::Equal(name, value) => parameter(name) == Some(value),
        })
    }
}
