//! `--otlp`: where traces go, and the variables that OpenTelemetry gives every program (its "General SDK
//! Configuration" and "OTLP Exporter Configuration").

mod export;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use super::nats_url::decoded;
use crate::config::variable;
use crate::fault::{Code, Fault};
use crate::telemetry::otlp::Resource;
use crate::telemetry::trace::{self, Sampler};
use export::Exporter;

/// Spans that wait, spans of one message, the longest pause between two messages and the longest wait for an answer,
/// where no variable says otherwise.
const QUEUE: usize = 2_048;
const BATCH: usize = 512;
const PAUSE_MS: u64 = 5_000;
const TIMEOUT_MS: u64 = 10_000;

#[derive(Args, Clone)]
pub(super) struct TraceArgs {
    /// Where traces go: the address of an OpenTelemetry collector that speaks OTLP over HTTP, such as
    /// http://collector:4318. Nowhere without it. Sampling, headers and names come from OTEL_ variables.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp: Option<String>,
}

impl TraceArgs {
    /// Begins to send what is traced, where somebody said where to; `process` is its name where no variable has one.
    /// Dropping the value sends the rest.
    pub(super) fn start(&self, process: &str) -> Result<Option<Exporter>, Fault> {
        let Some(settings) = Settings::read(self.otlp.as_deref(), process, variable)? else { return Ok(None) };
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        match trace::install(settings.sampler, clock, settings.queue) {
            Some(spans) => Exporter::start(settings, spans).map(Some),
            None => Ok(None),
        }
    }
}

/// What the variables say.
#[derive(Debug, PartialEq)]
struct Settings {
    url: String,
    headers: Vec<(String, String)>,
    timeout: Duration,
    sampler: Sampler,
    resource: Resource,
    queue: usize,
    batch: usize,
    pause: Duration,
}

impl Settings {
    /// The settings; `None` where traces go nowhere.
    fn read(
        base: Option<&str>,
        process: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Settings>, Fault> {
        let is_set = |name: &str, value: &str| variable(name).is_some_and(|text| text.eq_ignore_ascii_case(value));
        if is_set("OTEL_SDK_DISABLED", "true") || is_set("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let whole = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let Some(url) = whole.or_else(|| base.map(|base| format!("{}/v1/traces", base.trim_end_matches('/')))) else {
            return Ok(None);
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(refused(format!("`{url}` is no address of a collector: expected http://HOST:4318")));
        }
        // What is only for traces comes before what is for everything.
        let of_traces = |name: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if let Some(protocol) = of_traces("PROTOCOL").filter(|protocol| protocol != "http/protobuf") {
            let text = format!("OTEL_EXPORTER_OTLP_PROTOCOL: `{protocol}` is not spoken: expected `http/protobuf`");
            return Err(refused(text));
        }
        let whole_number = |name: &str, text: Option<String>, default: u64| match text {
            None => Ok(default),
            Some(text) => text
                .trim()
                .parse::<u64>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| refused(format!("{name}: expected a whole number above 0, found `{text}`"))),
        };
        let of_queue = |name: &str, default: u64| whole_number(name, variable(name), default);
        let timeout = whole_number("OTEL_EXPORTER_OTLP_TIMEOUT", of_traces("TIMEOUT"), TIMEOUT_MS)?;
        let queue = of_queue("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE as u64)? as usize;
        Ok(Some(Settings {
            url,
            headers: of_traces("HEADERS").map_or(Ok(Vec::new()), |text| pairs("OTEL_EXPORTER_OTLP_HEADERS", &text))?,
            timeout: Duration::from_millis(timeout),
            sampler: sampler(&variable)?,
            resource: resource(process, &variable)?,
            queue,
            batch: (of_queue("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH as u64)? as usize).min(queue),
            pause: Duration::from_millis(of_queue("OTEL_BSP_SCHEDULE_DELAY", PAUSE_MS)?),
        }))
    }
}

fn refused(text: String) -> Fault {
    Fault::client(Code::InvalidArgument, text)
}

fn sampler(variable: &impl Fn(&str) -> Option<String>) -> Result<Sampler, Fault> {
    let name = variable("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_always_on".to_owned());
    let (is_parent_based, own) = match name.strip_prefix("parentbased_") {
        Some(own) => (true, own),
        None => (false, name.as_str()),
    };
    let ratio = match own {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let text = variable("OTEL_TRACES_SAMPLER_ARG").unwrap_or_else(|| "1".to_owned());
            let ratio = text.trim().parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            ratio.ok_or_else(|| {
                refused(format!("OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, found `{text}`"))
            })?
        }
        _ => {
            let known = "`always_on`, `always_off`, `traceidratio`, or one of them behind `parentbased_`";
            return Err(refused(format!("OTEL_TRACES_SAMPLER: expected {known}, found `{name}`")));
        }
    };
    Ok(Sampler { ratio, is_parent_based })
}

fn resource(process: &str, variable: &impl Fn(&str) -> Option<String>) -> Result<Resource, Fault> {
    let mut attributes = vec![
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), uuid::Uuid::new_v4().to_string()),
        ("process.pid".to_owned(), std::process::id().to_string()),
        ("telemetry.sdk.name".to_owned(), "tidegate".to_owned()),
        ("telemetry.sdk.language".to_owned(), "rust".to_owned()),
        ("telemetry.sdk.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let written =
        variable("OTEL_RESOURCE_ATTRIBUTES").map_or(Ok(Vec::new()), |text| pairs("OTEL_RESOURCE_ATTRIBUTES", &text))?;
    let mut named = None;
    for (name, value) in written {
        if name == "service.name" {
            named = Some(value);
            continue;
        }
        attributes.retain(|row| row.0 != name);
        attributes.push((name, value));
    }
    let named = variable("OTEL_SERVICE_NAME").or(named);
    Ok(Resource { is_service_fixed: named.is_some(), service: named.unwrap_or_else(|| process.to_owned()), attributes })
}

/// `name=value,name=value`, values percent-encoded (W3C Baggage without properties).
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>, Fault> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').filter(|pair| !pair.0.trim().is_empty()).ok_or_else(|| {
            // Its value may be a secret.
            refused(format!("{variable}: expected `name=value` pairs joined by commas"))
        })?;
        Ok((name.trim().to_owned(), decoded(value.trim())))
    };
    parts.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(base: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        let variable =
            |name: &str| variables.iter().find(|variable| variable.0 == name).map(|variable| variable.1.to_owned());
        Settings::read(base, "gateway", variable).map_err(|fault| fault.message().to_owned())
    }

    const COLLECTOR: Option<&str> = Some("http://collector:4318/");

    #[test]
    fn without_an_address_nothing_is_traced() {
        assert_eq!(read(None, &[("OTEL_TRACES_SAMPLER", "nonsense")]), Ok(None));
        assert_eq!(read(COLLECTOR, &[("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(read(COLLECTOR, &[("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    }

    #[test]
    fn the_defaults_are_opentelemetrys() {
        let settings = read(COLLECTOR, &[]).unwrap().unwrap();
        assert_eq!(settings.url, "http://collector:4318/v1/traces");
        assert_eq!(settings.sampler, Sampler { ratio: 1.0, is_parent_based: true });
        assert_eq!((settings.queue, settings.batch), (2_048, 512));
        assert_eq!((settings.pause, settings.timeout), (Duration::from_secs(5), Duration::from_secs(10)));
        assert_eq!((settings.resource.service.as_str(), settings.resource.is_service_fixed), ("gateway", false));
    }

    #[test]
    fn the_variables_say_more() {
        let settings = read(
            None,
            &[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces.example/in"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team = sea"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "5000"),
                ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
                ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod,service.name=ignored,process.pid=1"),
                ("OTEL_SERVICE_NAME", "edge"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ],
        );
        let settings = settings.unwrap().unwrap();
        assert_eq!(settings.url, "https://traces.example/in");
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(settings.headers, [header("authorization", "Bearer abc"), header("x-team", "sea")]);
        assert_eq!(settings.timeout, Duration::from_millis(250));
        assert_eq!(settings.sampler, Sampler { ratio: 0.25, is_parent_based: true });
        assert_eq!((settings.queue, settings.batch), (100, 100));
        let Resource { service, is_service_fixed, attributes } = settings.resource;
        assert_eq!((service.as_str(), is_service_fixed), ("edge", true));
        for row in [header("deployment.environment", "prod"), header("process.pid", "1")] {
            assert_eq!(attributes.iter().filter(|attribute| attribute.0 == row.0).collect::<Vec<_>>(), [&row]);
        }
    }

    #[test]
    fn what_a_variable_cannot_mean_is_said() {
        let rows = [
            (
                &[][..],
                Some("collector:4317"),
                "`collector:4317/v1/traces` is no address of a collector: expected http://HOST:4318",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                COLLECTOR,
                "OTEL_EXPORTER_OTLP_PROTOCOL: `grpc` is not spoken: expected `http/protobuf`",
            ),
            (
                &[("OTEL_TRACES_SAMPLER", "jaeger")],
                COLLECTOR,
                "OTEL_TRACES_SAMPLER: expected `always_on`, `always_off`, `traceidratio`, or one of them behind `parentbased_`, found `jaeger`",
            ),
            (
                &[("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "50%")],
                COLLECTOR,
                "OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1, found `50%`",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_HEADERS", "secret")],
                COLLECTOR,
                "OTEL_EXPORTER_OTLP_HEADERS: expected `name=value` pairs joined by commas",
            ),
            (
                &[("OTEL_BSP_SCHEDULE_DELAY", "0")],
                COLLECTOR,
                "OTEL_BSP_SCHEDULE_DELAY: expected a whole number above 0, found `0`",
            ),
        ];
        for (variables, base, text) in rows {
            assert_eq!(read(base, variables), Err(text.to_owned()), "{variables:?}");
        }
    }
}
