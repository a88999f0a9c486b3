//! What a route is and allows, as plain facts: for explanations, and for the console's table.

use serde::Serialize;

use crate::limits::Slots;
use crate::snapshot::{LimitKey, Route, Streaming};
use crate::transcode::{Defaults, Enums, Names};

/// A route in words and numbers.
#[derive(Debug, Serialize)]
pub struct RouteFacts {
    /// HTTP method, or `*`.
    pub verb: String,
    /// Path template.
    pub path: String,
    /// Full name of the method.
    pub method: String,
    /// Where requests go.
    pub subject: String,
    /// The workers' queue group.
    pub queue_group: Option<String>,
    /// Request message.
    pub request: String,
    /// Reply message.
    pub reply: String,
    /// Message of a stream's events, where the method can stream.
    pub chunk: Option<String>,
    /// `no`, `yes`, or `on request`.
    pub stream: &'static str,
    /// House style.
    pub style: String,
    /// Form of error answers: `problem`, `google` or `legacy`.
    pub errors: &'static str,
    /// `none`, `optional` or `required`.
    pub auth: &'static str,
    /// The method that checks a credential.
    pub credential: Option<String>,
    /// Longest wait for a reply, or for a stream to begin.
    pub timeout_ms: u64,
    /// Longest silence of a running stream.
    pub stream_idle_ms: u64,
    /// Largest body.
    pub body_max_bytes: usize,
    /// Token bucket.
    pub rate: Option<RateRow>,
    /// Calls in flight.
    pub calls: Option<LimitRow>,
    /// Open streams.
    pub streams: Option<LimitRow>,
    /// Repeats of a call that is safe to repeat.
    pub retries: u32,
    /// The breaker of its subject.
    pub breaker: Option<BreakerFacts>,
    /// Pages of other origins that may use it.
    pub cors: Option<String>,
    /// The old system beside its workers, while it moves.
    pub migration: Option<String>,
    /// Names, defaults and enum values of printed JSON.
    pub json: [&'static str; 3],
    /// Members and parameters without a field are passed over.
    pub ignores_unknown: bool,
    /// Where it is written.
    pub defined_at: String,
}

/// A token bucket.
#[derive(Debug, Serialize)]
pub struct RateRow {
    /// Requests in a window.
    pub requests: u32,
    /// Its length.
    pub per_ms: u64,
    /// Requests that may come at once.
    pub burst: u32,
    /// Who shares it: `route` or `client`.
    pub key: &'static str,
}

/// A breaker as it stands now.
#[derive(Debug, Serialize)]
pub struct BreakerFacts {
    /// Time-outs in a row that open it.
    pub failures: u32,
    /// How long it stays open before it tries again.
    pub open_ms: u64,
    /// Requests are refused now.
    pub is_open: bool,
}

/// Slots of a limit.
#[derive(Debug, Serialize)]
pub struct LimitRow {
    /// In use.
    pub taken: usize,
    /// All of them.
    pub max: usize,
}

impl LimitRow {
    /// A limit as it stands now.
    pub fn of(slots: &Slots) -> LimitRow {
        // A refused taker holds a slot above the maximum for a moment.
        LimitRow { taken: slots.taken().min(slots.max()), max: slots.max() }
    }
}

impl RouteFacts {
    /// The facts of a route as they stand now.
    pub fn new(route: &Route) -> RouteFacts {
        let (method, policies) = (&route.method, &route.policies);
        let can_stream = method.streaming != Streaming::Unary;
        RouteFacts {
            verb: route.verb.to_string(),
            path: route.template.to_string(),
            method: method.name.to_string(),
            subject: method.subject.to_string(),
            queue_group: method.queue_group.as_ref().map(ToString::to_string),
            request: method.request_name.to_string(),
            reply: method.reply_name.to_string(),
            chunk: can_stream.then(|| method.chunk_name.to_string()),
            stream: method.streaming.word(),
            style: method.envelope.style.name.clone(),
            errors: policies.error_style.word(),
            auth: match &policies.auth {
                None => "none",
                Some(auth) if auth.is_required => "required",
                Some(_) => "optional",
            },
            credential: policies.auth.as_ref().map(|auth| auth.credential.method.name.to_string()),
            timeout_ms: policies.timeout.as_millis() as u64,
            stream_idle_ms: policies.stream_idle.as_millis() as u64,
            body_max_bytes: policies.body_max,
            rate: policies.bucket.as_ref().map(|(key, bucket)| {
                let quota = bucket.quota();
                let key = if *key == LimitKey::Route { "route" } else { "client" };
                let per_ms = quota.per.as_millis() as u64;
                RateRow { requests: quota.requests, per_ms, burst: quota.burst, key }
            }),
            calls: policies.call_slots.as_deref().map(LimitRow::of),
            streams: policies.stream_slots.as_deref().map(LimitRow::of),
            retries: policies.retries,
            breaker: policies.breaker.as_ref().map(|subject| {
                let rule = subject.breaker.rule();
                let (open_ms, is_open) = (rule.open.as_millis() as u64, subject.breaker.is_open());
                BreakerFacts { failures: rule.failures, open_ms, is_open }
            }),
            cors: policies.cors.as_ref().map(ToString::to_string),
            migration: route.migration.as_ref().map(ToString::to_string),
            json: json_words(route),
            ignores_unknown: route.binding.fields(&method.tables).ignores_unknown,
            defined_at: route.defined_at.clone(),
        }
    }
}

fn json_words(route: &Route) -> [&'static str; 3] {
    let out = &route.policies.json_out;
    [
        if out.names == Names::Camel { "camel" } else { "proto" },
        if out.defaults == Defaults::Omit { "omit" } else { "print" },
        if out.enums == Enums::Name { "name" } else { "number" },
    ]
}
