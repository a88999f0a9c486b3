//! What is written down of a request once it is over: its spans, and its line in the access log. A request of which
//! nothing is written down carries nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{Method as Verb, StatusCode, Version, header};
use http_body::Body as _;

use super::access_log::AccessLog;
use super::body::Answer;
use super::inbound::Inbound;
use super::{Edge, respond};
use crate::fault::Fault;
use crate::snapshot::{Method, Route};
use crate::telemetry::trace::{Span, tracer};
use crate::transcode::{json_string, rfc3339};

/// Status of a request whose client has gone away before its answer.
const CLIENT_GONE: u16 = 499;

/// A request as it is going to be written down. Dropped before its answer, it says that the client has gone away.
pub(super) struct Record(Option<Box<Open>>);

struct Open {
    span: Span,
    /// The request over the bus, while it lasts.
    call: Span,
    asked: Option<Instant>,
    log: Option<Arc<AccessLog>>,
    line: Line,
}

/// What a line says.
struct Line {
    verb: Verb,
    version: Version,
    route: Option<Arc<Route>>,
    client: IpAddr,
    request_id: String,
    client_request_id: Option<String>,
    trace_id: String,
    received: Instant,
    bytes_in: usize,
    bytes_out: u64,
    bus: Option<Duration>,
    status: u16,
    /// The error's token.
    error: Option<String>,
    /// How a stream ended, and its chunks.
    stream: Option<(&'static str, u64)>,
}

impl Record {
    /// Nothing.
    pub(super) const fn none() -> Record {
        Record(None)
    }

    /// Begins with the request's head.
    pub(super) fn begin(edge: &Edge, inbound: &Inbound, route: Option<&Arc<Route>>) -> Record {
        if tracer().is_none() && edge.access.is_none() {
            return Record(None);
        }
        Record::of(edge, inbound, route)
    }

    #[cold]
    fn of(edge: &Edge, inbound: &Inbound, route: Option<&Arc<Route>>) -> Record {
        let verb = &inbound.head.method;
        let name = route.map_or_else(|| verb.to_string(), |route| format!("{verb} {}", route.template));
        let mut span = inbound.trace.begin(name);
        if span.is_recorded() {
            span.set("http.request.method", verb.as_str());
            span.set("url.path", inbound.head.uri.path());
            span.set("url.scheme", "http");
            span.set("network.protocol.version", version_of(inbound.head.version));
            span.set("client.address", inbound.client.to_string().as_str());
            span.set("tidegate.request_id", inbound.request_id.as_str());
            if let Some(route) = route {
                span.set("http.route", &*route.template);
            }
            for (name, field) in [("server.address", header::HOST), ("user_agent.original", header::USER_AGENT)] {
                if let Some(text) = inbound.text(&field) {
                    span.set(name, text);
                }
            }
        } else if edge.access.is_none() {
            return Record(None);
        }
        let line = Line {
            verb: verb.clone(),
            version: inbound.head.version,
            route: route.cloned(),
            client: inbound.client,
            request_id: inbound.request_id.clone(),
            client_request_id: inbound.client_request_id().map(str::to_owned),
            trace_id: inbound.trace.id().to_owned(),
            received: inbound.received,
            bytes_in: 0,
            bytes_out: 0,
            bus: None,
            status: CLIENT_GONE,
            error: None,
            stream: None,
        };
        Record(Some(Box::new(Open { span, call: Span::none(), asked: None, log: edge.access.clone(), line })))
    }

    /// The body has come.
    pub(super) fn body(&mut self, bytes: usize) {
        if let Some(open) = &mut self.0 {
            open.line.bytes_in = bytes;
        }
    }

    /// The bus is going to be asked at this moment.
    pub(super) fn call(&mut self, inbound: &Inbound, method: &Method, asked: Instant) {
        if let Some(open) = &mut self.0 {
            open.call = inbound.trace.call(method);
            open.asked = Some(asked);
        }
    }

    /// What the request over the bus says as its `traceparent`, where it has a span of its own.
    pub(super) fn traceparent(&self) -> Option<String> {
        self.0.as_ref().and_then(|open| open.call.traceparent())
    }

    /// The bus has answered.
    pub(super) fn called(&mut self, fault: Option<&Fault>) {
        if let Some(open) = &mut self.0 {
            open.called(fault);
        }
    }

    /// The answer is there. What is left of a stream's record belongs to its body.
    pub(super) fn answered(mut self, answer: &mut http::Response<Answer>, fault: Option<&Fault>) {
        let Some(open) = &mut self.0 else { return };
        open.line.status = answer.status().as_u16();
        if let (Some(trace), Some(route)) = (open.span.trace(), &open.line.route) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            route.metrics.exemplar(trace, open.line.received.elapsed(), now);
        }
        if let Some(fault) = fault {
            open.failed(fault);
        }
        match answer.body_mut() {
            Answer::Events(events) => events.record = self,
            body => {
                open.line.bytes_out = body.size_hint().exact().unwrap_or_default();
                open.called(fault);
            }
        }
    }

    /// A stream has failed on its way.
    pub(super) fn failed(&mut self, fault: &Fault) {
        if let Some(open) = &mut self.0 {
            open.failed(fault);
        }
    }

    /// A stream is over.
    pub(super) fn streamed(&mut self, end: &'static str, chunks: u64, bytes: u64) {
        if let Some(open) = &mut self.0 {
            open.called(None);
            open.span.set("tidegate.stream.end", end);
            open.span.set("tidegate.stream.chunks", chunks as i64);
            (open.line.stream, open.line.bytes_out) = (Some((end, chunks)), bytes);
        }
    }
}

impl Open {
    fn called(&mut self, fault: Option<&Fault>) {
        let mut call = std::mem::replace(&mut self.call, Span::none());
        if let Some(fault) = fault {
            call.fault(fault);
        }
        if let Some(asked) = self.asked.take() {
            self.line.bus = Some(asked.elapsed());
        }
    }

    fn failed(&mut self, fault: &Fault) {
        let error = respond::kind_of(fault);
        let is_stream = self.line.status == StatusCode::OK.as_u16();
        if self.line.status >= 500 || is_stream {
            self.span.fail(&error, fault.message());
        }
        if is_stream {
            self.called(Some(fault));
        }
        self.line.error = Some(error);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.called(None);
        self.span.set("http.response.status_code", i64::from(self.line.status));
        if self.line.status == CLIENT_GONE && self.line.error.is_none() {
            self.line.error = Some("client_gone".to_owned());
            self.span.set("error.type", "client_gone");
        }
        if let Some(log) = &self.log
            && (self.line.error.is_some() || log.samples())
        {
            log.take(self.line.print());
        }
    }
}

fn version_of(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

impl Line {
    fn print(&self) -> Vec<u8> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = Duration::from_millis(now.as_millis() as u64);
        let mut row = Row(Vec::with_capacity(512));
        row.text("time", &rfc3339(millis.as_secs() as i64, millis.subsec_nanos() as i32).unwrap_or_default());
        row.text("method", self.verb.as_str());
        row.text("protocol", &format!("HTTP/{}", version_of(self.version)));
        if let Some(route) = &self.route {
            row.text("route", &route.template);
            row.text("call", &route.method.name);
        }
        row.number("status", self.status);
        if let Some(error) = &self.error {
            row.text("error", error);
        }
        if let Some((end, chunks)) = self.stream {
            row.text("stream_end", end);
            row.number("chunks", chunks);
        }
        row.millis("duration_ms", self.received.elapsed());
        if let Some(bus) = self.bus {
            row.millis("bus_ms", bus);
        }
        row.number("bytes_in", self.bytes_in);
        row.number("bytes_out", self.bytes_out);
        row.text("client", &self.client.to_string());
        row.text("request_id", &self.request_id);
        if let Some(id) = &self.client_request_id {
            row.text("client_request_id", id);
        }
        row.text("trace_id", &self.trace_id);
        row.0.extend_from_slice(b"}\n");
        row.0
    }
}

/// A JSON object that is being written.
struct Row(Vec<u8>);

impl Row {
    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        json_string(name, &mut self.0);
        self.0.push(b':');
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        json_string(text, &mut self.0);
    }

    fn number<N: std::fmt::Display>(&mut self, name: &str, number: N) {
        self.name(name);
        self.0.extend_from_slice(number.to_string().as_bytes());
    }

    fn millis(&mut self, name: &str, length: Duration) {
        self.number(name, format_args!("{:.3}", length.as_secs_f64() * 1e3));
    }
}
