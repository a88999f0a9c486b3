//! What is asked: an HTTP address, or a method over NATS by the same tables as everywhere.

use std::sync::Arc;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::BenchArgs;
use crate::bus::{Bus, Headers, Limits, Message, Request};
use crate::cli::{build, connected};
use crate::envelope::{ErrorPlan, SERVICE_ERROR_CODE};
use crate::fault::{Code, Fault};
use crate::snapshot::{Method, Snapshot};
use crate::transcode::{BodyPlan, Claims, JsonIn, Root, json_to_wire};

/// Chunks and bytes that a worker may send before it hears from us, and how often it does.
const WINDOW: (u64, u64) = (1_024, 1 << 26);
const CREDIT_EVERY: u64 = 256;

/// A successful answer.
pub(super) struct Answer {
    /// Its status or code.
    pub(super) outcome: String,
    /// When it was there, or a stream's first event.
    pub(super) first: Instant,
    /// When all of it was there.
    pub(super) end: Instant,
    pub(super) events: u64,
    pub(super) bytes: u64,
}

pub(super) enum Target {
    Http { client: reqwest::Client, request: Box<reqwest::Request>, stream: bool },
    Bus { bus: Bus, method: Arc<Method>, payload: bytes::Bytes, stream: bool, timeout_ms: u64 },
}

impl Target {
    /// Fails where the target, a header or the request is not understood, or nobody takes a connection.
    pub(super) async fn new(args: &BenchArgs) -> Result<Target, Fault> {
        if args.target.starts_with("http://") || args.target.starts_with("https://") {
            return http(args);
        }
        let (_, snapshot) = build(args.tables.source()?.as_ref())?;
        let method = method_of(&snapshot, &args.target)?;
        let mut payload = Vec::new();
        let root = Root::Message(method.request);
        let plan = BodyPlan { root, options: JsonIn::default(), claims: Claims::new(), lift: None };
        let json = args.json.as_deref().unwrap_or("{}");
        json_to_wire(&method.tables, &plan, 0, json.as_bytes(), &mut payload, None)
            .map_err(|error| wrong(format!("the request does not fit: {error}")))?;
        if args.stream {
            method.envelope.ask_for_stream(&mut payload);
        }
        let bus = connected(&args.nats, "tidegate bench", "client").await?;
        let timeout_ms = args.timeout.as_millis() as u64;
        Ok(Target::Bus { bus, method, payload: payload.into(), stream: args.stream, timeout_ms })
    }

    /// Asks once; an answer that is no success is its status or code.
    pub(super) async fn ask(&self) -> Result<Answer, String> {
        match self {
            Target::Http { client, request, stream } => {
                let request = request.try_clone().ok_or_else(|| "not sent".to_owned())?;
                ask_http(client, request, *stream).await
            }
            Target::Bus { bus, method, payload, stream: false, timeout_ms } => {
                ask_bus(bus, method, payload.clone(), *timeout_ms).await
            }
            Target::Bus { bus, method, payload, stream: true, .. } => stream_bus(bus, method, payload.clone()).await,
        }
    }
}

fn wrong(text: String) -> Fault {
    Fault::client(Code::InvalidArgument, text)
}

fn method_of(snapshot: &Snapshot, name: &str) -> Result<Arc<Method>, Fault> {
    let found = snapshot.method(name).or_else(|| snapshot.method_on(name));
    found.cloned().ok_or_else(|| {
        let text = format!(
            "`{name}` is no http:// address, and the tables have no such method or subject: see `tidegate routes`"
        );
        Fault::client(Code::NotFound, text)
    })
}

fn http(args: &BenchArgs) -> Result<Target, Fault> {
    let mut headers = HeaderMap::new();
    if args.stream {
        headers.insert("accept", HeaderValue::from_static("text/event-stream"));
    }
    if args.json.is_some() {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
    }
    for text in &args.headers {
        let parts = text.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        let header =
            parts.and_then(|(name, value)| HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok()));
        let (name, value) = header.ok_or_else(|| wrong(format!("`{text}` is no header: expected `name: value`")))?;
        headers.insert(name, value);
    }
    let verb = args.request.as_deref().unwrap_or(if args.json.is_some() { "POST" } else { "GET" });
    let verb = verb.parse().map_err(|_| wrong(format!("`{verb}` is no HTTP method")))?;
    // Each task keeps its connection; redirects would measure two requests.
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(args.connections.into())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tcp_nodelay(true)
        .build()
        .map_err(|error| Fault::ours(Code::Internal, format!("no HTTP client: {error}")))?;
    let mut request = client.request(verb, &args.target).headers(headers);
    if let Some(json) = &args.json {
        request = request.body(json.clone());
    }
    let request = request.build().map_err(|error| wrong(format!("`{}` cannot be asked: {error}", args.target)))?;
    Ok(Target::Http { client, request: Box::new(request), stream: args.stream })
}

async fn ask_http(client: &reqwest::Client, request: reqwest::Request, stream: bool) -> Result<Answer, String> {
    let mut answer = client.execute(request).await.map_err(|error| {
        if error.is_connect() { "not connected".to_owned() } else { "broken connection".to_owned() }
    })?;
    let status = answer.status();
    let (mut first, mut bytes, mut lines) = (None, 0, Lines::default());
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) => {
                bytes += chunk.len() as u64;
                lines.read(&chunk);
                if !stream || lines.data > 0 {
                    first.get_or_insert_with(Instant::now);
                }
            }
            Ok(None) => break,
            Err(_) => return Err("broken connection".to_owned()),
        }
    }
    let end = Instant::now();
    match status.as_u16() {
        200..=399 if lines.errors > 0 && stream => Err(format!("{} with an error event", status.as_u16())),
        code @ 200..=399 => {
            let (outcome, events) = (code.to_string(), if stream { lines.data } else { 0 });
            let first = if stream { first.unwrap_or(end) } else { end };
            Ok(Answer { outcome, first, end, events, bytes })
        }
        code => Err(code.to_string()),
    }
}

/// Counts the lines of an event stream that carry data, and the events that are errors, across pieces.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    data: u64,
    errors: u64,
}

impl Lines {
    fn read(&mut self, piece: &[u8]) {
        for byte in piece {
            if *byte == b'\n' {
                self.data += u64::from(self.begun.starts_with(b"data:"));
                self.errors += u64::from(self.begun.starts_with(b"event: error"));
                self.begun.clear();
            } else if self.begun.len() < 16 {
                self.begun.push(*byte);
            }
        }
    }
}

fn headers(method: &Method, name: &str, value: &str) -> Headers {
    let mut headers = method.request_headers.and_room_for(4);
    headers.push("Tidegate-Call", uuid::Uuid::new_v4().to_string());
    headers.push(name, value);
    headers
}

async fn ask_bus(bus: &Bus, method: &Method, payload: bytes::Bytes, timeout_ms: u64) -> Result<Answer, String> {
    let headers = headers(method, "Tidegate-Timeout", &timeout_ms.to_string());
    let (subject, timeout) = (method.subject.clone(), std::time::Duration::from_millis(timeout_ms));
    let reply = bus.request(Request { subject, headers, payload, timeout, proof: None }).await;
    let reply = reply.map_err(|error| error.to_string())?;
    let end = Instant::now();
    method
        .envelope
        .open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload)
        .map_err(|fault| fault.code_name().to_owned())?;
    Ok(Answer { outcome: "OK".to_owned(), first: end, end, events: 0, bytes: reply.payload.len() as u64 })
}

async fn stream_bus(bus: &Bus, method: &Method, payload: bytes::Bytes) -> Result<Answer, String> {
    let headers = headers(method, "Tidegate-Window", &format!("{} {}", WINDOW.0, WINDOW.1));
    let opened = bus.open_stream(method.subject.clone(), headers, payload, Limits::STREAM).await;
    let mut chunks = opened.map_err(|error| error.to_string())?;
    let (mut first, mut events, mut bytes) = (None, 0, 0);
    loop {
        let chunk = match chunks.next().await {
            Some(Ok(chunk)) if chunk.is_no_responders => return Err("no responders".to_owned()),
            Some(Ok(chunk)) => chunk,
            _ => return Err("broken stream".to_owned()),
        };
        if chunk.payload.is_empty() && chunk.headers.get("Stream-Heartbeat").is_some() {
            continue;
        }
        first.get_or_insert_with(Instant::now);
        (events, bytes) = (events + 1, bytes + chunk.payload.len() as u64);
        let opened = method.envelope.open_chunk(&method.tables, method.chunk, &chunk.payload);
        let opened = opened.map_err(|fault| fault.code_name().to_owned())?;
        if let Some(fault) = opened.fault {
            return Err(fault.code_name().to_owned());
        }
        let is_in_band = matches!(method.envelope.chunk.error, ErrorPlan::InBand { .. });
        if !is_in_band && chunk.headers.get(SERVICE_ERROR_CODE).is_some() {
            let header = |name: &str| chunk.headers.get(name);
            let opened = method.envelope.open_reply(&method.tables, method.chunk, header, &chunk.payload);
            opened.map_err(|fault| fault.code_name().to_owned())?;
        }
        if opened.is_last || chunk.headers.get("Tidegate-End").is_some() {
            let end = Instant::now();
            return Ok(Answer { outcome: "OK".to_owned(), first: first.unwrap_or(end), end, events, bytes });
        }
        if let Some(subject) = chunk.reply.filter(|_| events % CREDIT_EVERY == 0) {
            let mut headers = Headers::with_capacity(1);
            headers.push("Tidegate-Credit", format!("{} {}", events + WINDOW.0, bytes + WINDOW.1));
            let message = Message { subject, reply: None, headers, payload: bytes::Bytes::new() };
            bus.publish(message).await.map_err(|error| error.to_string())?;
        }
    }
}
