//! The spans of a worker: requests and events that it handles, and calls that it makes. Where spans are written down,
//! what happens below one finds it in the context's `traceparent`.

use super::context::{Context, Surroundings};
use crate::bus::Headers;
use crate::snapshot::Method;
use crate::store::{ConsumerConfig, Logged};
use crate::telemetry::trace::{Position, Span, SpanKind, Tracer, tracer};

/// The span of a request; its headers then name it as the parent.
pub(super) fn request(around: &Surroundings, method: &Method, headers: &mut Headers) -> Span {
    let Some(tracer) = tracer() else { return Span::none() };
    let mut span = begin(tracer, SpanKind::Server, method.name.to_string(), around, headers);
    if span.is_recorded() {
        method.describe(&mut span);
    }
    span
}

/// The span of an event that a durable consumer handles; its context's headers then name it as the parent.
pub(super) fn event(
    around: &Surroundings,
    consumer: &ConsumerConfig,
    event: &Logged,
    deliveries: u32,
    headers: &mut Headers,
) -> Span {
    let Some(tracer) = tracer() else { return Span::none() };
    let mut span = begin(tracer, SpanKind::Consumer, format!("process {}", consumer.log), around, headers);
    if span.is_recorded() {
        span.set("messaging.system", "nats");
        span.set("messaging.operation.type", "process");
        span.set("messaging.destination.name", event.subject.as_str());
        span.set("messaging.consumer.group.name", consumer.name);
        span.set("tidegate.event.sequence", i64::try_from(event.sequence).unwrap_or(i64::MAX));
        span.set("tidegate.event.deliveries", i64::from(deliveries));
    }
    span
}

/// The span of a call to a peer, below what the context is about.
pub(super) fn call(context: &Context, method: &Method) -> Span {
    let Some(tracer) = tracer() else { return Span::none() };
    let parent = context.header("traceparent").and_then(|text| Position::parse(text.as_bytes()));
    let name = method.name.to_string();
    let mut span = tracer.begin(SpanKind::Client, name, tracer.below(parent), parent.map(|parent| parent.span));
    if span.is_recorded() {
        span.service(context.service());
        span.state(context.header("tracestate").unwrap_or_default());
        method.describe(&mut span);
    }
    span
}

fn begin(tracer: &'static Tracer, kind: SpanKind, name: String, around: &Surroundings, headers: &mut Headers) -> Span {
    let parent = headers.get("traceparent").and_then(|text| Position::parse(text.as_bytes()));
    let place = tracer.below(parent);
    let mut span = tracer.begin(kind, name, place, parent.map(|parent| parent.span));
    if span.is_recorded() {
        span.service(&around.service);
        span.state(headers.get("tracestate").unwrap_or_default());
        span.set("tidegate.instance", around.instance.as_str());
    }
    // Also where nothing is written down: those behind us then decide as we did.
    headers.set("traceparent", place.to_text());
    span
}
