//! Calls to peers by method name: on behalf of the caller or on the service's own account, within the caller's
//! deadline, repeated only where that is safe, and behind a breaker for each subject.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use super::context::{Context, is_repeat_key};
use super::trace;
use crate::bus::{BusError, Headers, Reply, Request};
use crate::envelope::{ContextWriter, Source};
use crate::fault::{Code, Fault, Reason};
use crate::limits::{Breaker, BreakerRule};
use crate::snapshot::{Method, Streaming};
use crate::transcode::table::{Cardinality, Field, Kind};
use crate::transcode::wire::{WireReader, put_bytes};
use crate::transcode::{
    BodyPlan, Claims, JsonIn, JsonOut, Root, Scratch, Unknown, from_wire, json_to_wire, number_order, to_wire,
    wire_to_json,
};

/// Longest wait for a peer.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// What is kept of the caller's time for the way back.
const MARGIN: Duration = Duration::from_millis(20);
/// Tries of a call that is safe to repeat, and the pause between them: full jitter under a bound that doubles.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// The breakers of one process's calls, by subject: as many as the tables have methods.
pub(super) struct Breakers {
    started: Instant,
    by_subject: Mutex<HashMap<String, Arc<Breaker>>>,
}

impl Breakers {
    pub(super) fn new() -> Breakers {
        Breakers { started: Instant::now(), by_subject: Mutex::default() }
    }

    fn of(&self, subject: &str) -> Arc<Breaker> {
        let mut breakers = self.by_subject.lock().unwrap_or_else(PoisonError::into_inner);
        match breakers.get(subject) {
            Some(breaker) => breaker.clone(),
            None => {
                let breaker = Arc::new(Breaker::new(BreakerRule::default()));
                breakers.insert(subject.to_owned(), breaker.clone());
                breaker
            }
        }
    }
}

/// In whose name a peer is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Behalf {
    Caller,
    Service,
}

/// A call of a peer that is being made ready.
pub struct PeerCall<'c> {
    pub(super) context: &'c Context,
    pub(super) method: Arc<Method>,
    pub(super) behalf: Behalf,
    pub(super) key: String,
    timeout: Duration,
    /// The breaker of its subject decides whether it is made.
    pub(super) is_guarded: bool,
}

impl Context {
    /// Calls a method of a peer for the caller: user, tenant and labels are passed on. `method` is its full name.
    pub async fn call<Q: Serialize + Sync, R: DeserializeOwned>(&self, method: &str, request: &Q) -> Result<R, Fault> {
        self.peer(method)?.ask(request).await
    }

    /// Calls a method of a peer on the service's own account: only tenant and trace are passed on.
    pub async fn call_as_service<Q: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<R, Fault> {
        self.peer(method)?.as_service().ask(request).await
    }

    /// A call of a peer's operation by the names that people use: `quest-system` and the last token of the subject,
    /// `generate`. `None` where the schema has no such operation.
    pub fn operation(&self, service: &str, operation: &str) -> Option<PeerCall<'_>> {
        let row = self.around().snapshot.services.iter().find(|row| &*row.short_name == service)?;
        let is_it = |method: &&Arc<Method>| method.subject.as_str().rsplit('.').next() == Some(operation);
        row.methods.iter().find(is_it).map(|method| PeerCall::new(self, method))
    }

    /// A call of a service's first operation that only reads, to find out whether it answers.
    pub fn first_read(&self, service: &str) -> Option<PeerCall<'_>> {
        let row = self.around().snapshot.services.iter().find(|row| &*row.short_name == service)?;
        let reads = |method: &&Arc<Method>| method.is_read && method.streaming != Streaming::Server;
        row.methods.iter().find(reads).map(|method| PeerCall::new(self, method))
    }

    /// True for the name of a service of the schema.
    pub fn knows_service(&self, service: &str) -> bool {
        self.around().snapshot.services.iter().any(|row| &*row.short_name == service)
    }

    /// A call of a peer's method by its full name, or by its subject.
    pub fn peer(&self, method: &str) -> Result<PeerCall<'_>, Fault> {
        let snapshot = &self.around().snapshot;
        let Some(method) = snapshot.method(method).or_else(|| snapshot.method_on(method)) else {
            let text = format!("no descriptor and no route names `{method}`");
            return Err(Fault::ours(Code::Internal, "a peer is not known here").internal(text));
        };
        Ok(PeerCall::new(self, method))
    }
}

impl<'c> PeerCall<'c> {
    fn new(context: &'c Context, method: &Arc<Method>) -> PeerCall<'c> {
        let (key, timeout) = (String::new(), TIMEOUT_MAX);
        PeerCall { context, method: method.clone(), behalf: Behalf::Caller, key, timeout, is_guarded: true }
    }

    /// The method that is called.
    pub fn method(&self) -> &Arc<Method> {
        &self.method
    }

    /// On the service's own account: only tenant and trace are passed on.
    #[must_use]
    pub fn as_service(mut self) -> Self {
        self.behalf = Behalf::Service;
        self
    }

    /// With an idempotency key: the call can be repeated.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    /// With another longest wait than 5 s; the caller's deadline shortens it.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A request that is refused before anything is read or made: its first text is a blank, which is no id and no name.
    /// An empty text would not do, because to some methods it means something, such as the world `default`. Where the
    /// request has no text it is empty.
    pub fn refused_request(&self) -> Vec<u8> {
        let fields = &self.method.tables.message(self.method.request).fields;
        let is_text = |field: &&Field| field.spec.kind == Kind::String && field.spec.cardinality == Cardinality::Single;
        let mut request = Vec::new();
        if let Some(text) = fields.iter().filter(is_text).min_by_key(|field| field.spec.number) {
            put_bytes(text.spec.number, b" ", &mut request);
        }
        request
    }

    /// The reply, as plain structs.
    ///
    /// Fails as the peer does; with UNAVAILABLE where nobody answers on its subject or the breaker is open, with
    /// DEADLINE_EXCEEDED where no reply comes in time.
    pub async fn ask<Q: Serialize + Sync, R: DeserializeOwned>(&self, request: &Q) -> Result<R, Fault> {
        let mut fields = Vec::with_capacity(256);
        to_wire(&self.method.tables, self.method.request, request, &mut fields)
            .map_err(|error| unencoded(error.to_string()))?;
        let reply = self.ask_encoded(&fields).await?;
        from_wire(&self.method.tables, self.method.reply, &reply).map_err(|error| self.undecoded(&error.to_string()))
    }

    /// The reply, as ProtoJSON. Unknown members of the request are refused.
    pub async fn ask_json(&self, request: &Value) -> Result<Value, Fault> {
        let reply = self.ask_encoded(&self.encode(request)?).await?;
        self.reply_json(&reply)
    }

    /// A request in ProtoJSON as bytes. Unknown members are refused.
    pub fn encode(&self, request: &Value) -> Result<Vec<u8>, Fault> {
        let method = &self.method;
        let plan = BodyPlan {
            root: Root::Message(method.request),
            options: JsonIn { unknown: Unknown::Reject },
            claims: Claims::new(),
            lift: None,
        };
        let text = serde_json::to_vec(request).map_err(|error| unencoded(error.to_string()))?;
        let mut fields = Vec::with_capacity(text.len());
        json_to_wire(&method.tables, &plan, 0, &text, &mut fields, None).map_err(|error| {
            let text = format!("the request is no `{}`: {error}", method.request_name);
            Fault::client(Code::InvalidArgument, text).detail("reason", "malformed")
        })?;
        Ok(fields)
    }

    /// A reply's bytes as ProtoJSON, with the fields' proto names.
    pub fn reply_json(&self, reply: &[u8]) -> Result<Value, Fault> {
        let method = &self.method;
        let (mut json, options) = (
            Vec::with_capacity(reply.len() * 2),
            JsonOut { names: crate::transcode::Names::Proto, ..JsonOut::default() },
        );
        wire_to_json(&method.tables, method.reply, &options, reply, &mut Scratch::default(), &mut json)
            .map_err(|error| self.undecoded(&error.to_string()))?;
        serde_json::from_slice(&json).map_err(|error| self.undecoded(&error.to_string()))
    }

    /// The reply's bytes, for a request that is encoded already; a caller context in it is replaced by ours.
    pub async fn ask_encoded(&self, fields: &[u8]) -> Result<Bytes, Fault> {
        let method = &self.method;
        let mut payload = Vec::with_capacity(fields.len() + 256);
        self.write_context(&mut payload);
        let context = method.envelope.context.as_ref().map(|plan| plan.number);
        let mut reader = WireReader::new(fields);
        loop {
            let from = reader.at();
            let Some(record) = reader.record().map_err(|error| unencoded(error.to_string()))? else { break };
            if Some(record.number) != context {
                payload.extend_from_slice(&fields[from..reader.at()]);
            }
        }
        number_order(&mut payload, 0).map_err(|error| unencoded(error.to_string()))?;
        let reply = self.send(payload.into()).await?;
        self.open(&reply)?;
        Ok(reply.payload)
    }

    /// The reply's error, where it is one.
    pub(super) fn open(&self, reply: &Reply) -> Result<(), Fault> {
        let method = &self.method;
        method.envelope.open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload)
    }

    /// Sends it, up to three times where a repeat is safe.
    pub(super) async fn send(&self, payload: Bytes) -> Result<Reply, Fault> {
        let (context, method) = (self.context, &self.method);
        let is_repeatable = method.is_repeatable || !self.key.is_empty();
        let deadline = Instant::now() + self.time_left();
        let breakers = &context.around().breakers;
        let breaker = breakers.of(method.subject.as_str());
        for attempt in 1.. {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Context::cancel_fault("deadline"));
            }
            let admitted = self.is_guarded.then(|| breaker.admit(breakers.started.elapsed())).transpose();
            let pass = admitted.map_err(|wait| {
                Fault::upstream(Code::Unavailable, format!("`{}` fails: calls to it are paused", method.subject))
                    .reason(Reason::BreakerOpen)
                    .retry_after(wait)
            })?;
            let subject = method.subject.clone();
            let (mut span, mut headers) = (trace::call(context, method), self.headers(left));
            if let Some(own) = span.traceparent() {
                headers.set("traceparent", own);
            }
            let request = Request { subject, headers, payload: payload.clone(), timeout: left, proof: None };
            let asked = Instant::now();
            let reply = context.around().bus.request(request).await;
            method.metrics.ended(BusError::outcome(&reply), asked.elapsed());
            let had_time = left >= self.timeout / 2;
            let error = match reply {
                Ok(reply) => {
                    if let Some(pass) = pass {
                        pass.ended(None, had_time, breakers.started.elapsed());
                    }
                    if span.is_recorded()
                        && let Err(fault) = self.open(&reply)
                    {
                        span.fault(&fault);
                    }
                    return Ok(reply);
                }
                Err(error) => error,
            };
            let is_safe = is_repeatable || matches!(error, BusError::NoResponders);
            let is_last = !is_safe || attempt >= TRIES || matches!(error, BusError::TooLarge { .. } | BusError::Closed);
            let fault = Fault::from(error);
            if span.is_recorded() {
                span.fault(&fault);
            }
            if let Some(pass) = pass {
                pass.ended(Some(&fault), had_time, breakers.started.elapsed());
            }
            if is_last {
                return Err(fault);
            }
            let bound = (PAUSE * 2_u32.pow(attempt - 1)).min(PAUSE_MAX).as_millis() as u64;
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..=bound))).await;
        }
        Err(Context::cancel_fault("deadline"))
    }

    /// Time for the call: the caller's, less what the way back takes.
    fn time_left(&self) -> Duration {
        self.context.time_left().map_or(self.timeout, |left| left.saturating_sub(MARGIN)).min(self.timeout)
    }

    fn headers(&self, left: Duration) -> Headers {
        let mut headers = self.context.headers(&self.method.request_name);
        headers.push("Tidegate-Timeout", left.as_millis().max(1).to_string());
        if !self.key.is_empty() {
            headers.push("Nats-Msg-Id", self.key.clone());
        }
        if self.method.envelope.context.is_none() {
            for header in ["Tidegate-User", "Tidegate-Tenant", "Tidegate-Roles"] {
                let is_passed = self.behalf == Behalf::Caller || header == "Tidegate-Tenant";
                if let Some(value) = self.context.header(header).filter(|_| is_passed) {
                    headers.push(header, value);
                }
            }
        }
        headers
    }

    /// The context of the call, where the peer's messages carry one.
    fn write_context(&self, out: &mut Vec<u8>) {
        let Some(plan) = &self.method.envelope.context else { return };
        let (context, is_for_caller) = (self.context, self.behalf == Behalf::Caller);
        let caller = context.caller();
        let mut writer = ContextWriter::new(plan, out);
        for field in &plan.fields {
            if field.is_time {
                writer.time(field.number, u128::from(context.now_ms().unsigned_abs()) * 1_000_000);
                continue;
            }
            let first = field.sources.first();
            let text = if field.sources.iter().any(|source| matches!(source, Source::Value(_))) {
                context.service()
            } else if first.is_some_and(is_repeat_key) {
                &self.key
            } else if first == Some(&Source::CallerTenant) {
                context.tenant()
            } else if plan.request_id == Some(field.number) {
                context.request_id()
            } else if is_for_caller || !field.sources.contains(&Source::CallerUser) {
                caller.text(&field.name)
            } else {
                ""
            };
            writer.text(field.number, text);
        }
        if let Some(labels) = plan.labels.as_ref().filter(|_| is_for_caller) {
            for (name, value) in &caller.labels {
                writer.label(labels.number, name, value);
            }
        }
        writer.finish();
    }

    fn undecoded(&self, text: &str) -> Fault {
        Fault::upstream(Code::Internal, "a peer's reply does not decode")
            .reason(Reason::MalformedReply)
            .internal(format!("`{}`: {text}", self.method.name))
    }
}

pub(super) fn unencoded(text: String) -> Fault {
    Fault::ours(Code::Internal, "a request to a peer does not encode").internal(text)
}
