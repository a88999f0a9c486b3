//! Section `router`.

use std::time::Duration;

use super::{Keys, seconds};

/// Calls by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// Target services that are refused.
    pub deny: Vec<String>,
    /// Services that decide `overall_healthy`.
    pub critical: Vec<String>,
    /// Share of calls that publish an event, 0 to 1.
    pub events_sample: f64,
    /// How often an idle service is probed.
    pub probe_idle: Duration,
    /// How long an unhealthy service is left alone.
    pub retry_unhealthy: Duration,
}

impl Router {
    pub(super) fn read(keys: &mut Keys) -> Router {
        // Targets may be services of other projects, so any name is good.
        let any = |_: &str| Ok(());
        let pause = seconds(1)..=seconds(3_600);
        Router {
            deny: keys.key("deny", "target services that are refused").texts(&[], any),
            critical: keys
                .key("critical", "services that decide `overall_healthy`")
                .texts(&["auth", "state-manager", "payment", "ai-integration"], any),
            events_sample: keys
                .key("events", "its events")
                .section(|keys| keys.key("sample", "share of calls that publish an event").real(1.0, 0.0..=1.0)),
            probe_idle: keys.key("probe_idle", "probing of idle services").length(seconds(30), pause.clone()),
            retry_unhealthy: keys.key("retry_unhealthy", "probing of unhealthy services").length(seconds(60), pause),
        }
    }
}
