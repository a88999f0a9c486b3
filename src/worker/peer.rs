//! Calls to peers by method name, and events: on behalf of the caller, within the caller's deadline.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::{Context, is_repeat_key};
use super::records::Sealed;
use crate::bus::{BusError, Headers, Message, Request, Subject};
use crate::envelope::{ContextWriter, Source};
use crate::fault::{Code, Fault, Reason};
use crate::snapshot::Method;
use crate::store::{Appended, Event};
use crate::transcode::{from_wire, number_order, to_wire};

/// Longest wait for a peer.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// What is kept of the caller's time for the way back.
const MARGIN: Duration = Duration::from_millis(20);

/// In whose name a peer is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Behalf {
    Caller,
    Service,
}

impl Context {
    /// Calls a method of a peer for the caller: user, tenant and labels are passed on. `method` is its full name.
    pub async fn call<Q: Serialize + Sync, R: DeserializeOwned>(&self, method: &str, request: &Q) -> Result<R, Fault> {
        self.ask(method, request, Behalf::Caller).await
    }

    /// Calls a method of a peer on the service's own account: only tenant and trace are passed on.
    pub async fn call_as_service<Q: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &str,
        request: &Q,
    ) -> Result<R, Fault> {
        self.ask(method, request, Behalf::Service).await
    }

    /// Publishes an event and waits until a log has kept it. A second one with the same `id` within the log's window
    /// changes nothing. `subject` is literal, `message` the full name of its type.
    pub async fn append<T: Serialize + Sync>(
        &self,
        subject: &str,
        message: &str,
        value: &T,
        id: &str,
    ) -> Result<Appended, Fault> {
        let (subject, headers, payload) = self.event(subject, message, value)?;
        Ok(self.store().append(Event { subject, id: id.to_owned(), headers, payload }).await?)
    }

    /// The same for an event that is encoded already.
    pub async fn append_sealed(&self, subject: &str, sealed: &Sealed, id: &str) -> Result<Appended, Fault> {
        let subject = literal(subject)?;
        let mut headers = self.headers(&sealed.message);
        for (name, value) in &sealed.headers {
            headers.push(*name, value.as_str());
        }
        let payload = Bytes::from(sealed.payload.clone());
        Ok(self.store().append(Event { subject, id: id.to_owned(), headers, payload }).await?)
    }

    /// Publishes a notice to whoever listens now; nobody answers, and nothing keeps it.
    pub async fn publish<T: Serialize + Sync>(&self, subject: &str, message: &str, value: &T) -> Result<(), Fault> {
        let (subject, headers, payload) = self.event(subject, message, value)?;
        Ok(self.around().bus.publish(Message { subject, reply: None, headers, payload }).await?)
    }

    fn event<T: Serialize>(&self, subject: &str, message: &str, value: &T) -> Result<(Subject, Headers, Bytes), Fault> {
        let subject = literal(subject)?;
        let tables = &self.around().snapshot.tables;
        let Some(message_id) = tables.message_id(message) else {
            return Err(internal("an event has an unknown type", format!("`{message}` is in no descriptor")));
        };
        let mut payload = Vec::with_capacity(256);
        to_wire(tables, message_id, value, &mut payload)
            .map_err(|error| internal("an event does not encode", error.to_string()))?;
        Ok((subject, self.headers(message), payload.into()))
    }

    async fn ask<Q: Serialize + Sync, R: DeserializeOwned>(
        &self,
        name: &str,
        request: &Q,
        behalf: Behalf,
    ) -> Result<R, Fault> {
        let around = self.around();
        let Some(method) = around.snapshot.method(name) else {
            return Err(internal("a peer is not known here", format!("no descriptor and no route names `{name}`")));
        };
        let mut payload = Vec::with_capacity(256);
        self.write_context(method, behalf, &mut payload);
        to_wire(&method.tables, method.request, request, &mut payload)
            .and_then(|()| number_order(&mut payload, 0).map_err(Into::into))
            .map_err(|error| internal("a request to a peer does not encode", error.to_string()))?;
        let left = self.time_left().map_or(TIMEOUT_MAX, |left| left.saturating_sub(MARGIN)).min(TIMEOUT_MAX);
        if left.is_zero() {
            return Err(Context::cancel_fault("deadline"));
        }
        let mut headers = self.headers(&method.request_name);
        headers.push("Tidegate-Timeout", left.as_millis().to_string());
        if method.envelope.context.is_none() {
            for header in ["Tidegate-User", "Tidegate-Tenant", "Tidegate-Roles"] {
                let is_passed = behalf == Behalf::Caller || header == "Tidegate-Tenant";
                if let Some(value) = self.header(header).filter(|_| is_passed) {
                    headers.push(header, value);
                }
            }
        }
        let subject = method.subject.clone();
        let request = Request { subject, headers, payload: payload.into(), timeout: left, proof: None };
        let asked = Instant::now();
        let reply = around.bus.request(request).await;
        method.metrics.ended(BusError::outcome(&reply), asked.elapsed());
        let reply = reply?;
        method.envelope.open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload)?;
        from_wire(&method.tables, method.reply, &reply.payload).map_err(|error| {
            Fault::upstream(Code::Internal, "a peer's reply does not decode")
                .reason(Reason::MalformedReply)
                .internal(format!("`{name}`: {error}"))
        })
    }

    /// What every message of ours says.
    fn headers(&self, message_type: &str) -> Headers {
        let mut headers = Headers::with_capacity(8);
        headers.push("content-type", "application/x-protobuf");
        headers.push("message-type", message_type);
        for name in ["traceparent", "tracestate"] {
            if let Some(value) = self.header(name) {
                headers.push(name, value);
            }
        }
        headers
    }

    /// The context of a call to a peer.
    fn write_context(&self, method: &Method, behalf: Behalf, out: &mut Vec<u8>) {
        let Some(plan) = &method.envelope.context else { return };
        let caller = self.caller();
        let mut writer = ContextWriter::new(plan, out);
        for field in &plan.fields {
            if field.is_time {
                writer.time(field.number, u128::from(self.now_ms().unsigned_abs()) * 1_000_000);
                continue;
            }
            let is_ours = |source: &Source| matches!(source, Source::Value(_));
            let is_private = |source: &Source| *source == Source::CallerUser;
            if field.sources.iter().any(is_ours) {
                writer.text(field.number, &self.around().service);
            } else if field.sources.first() == Some(&Source::CallerTenant) {
                writer.text(field.number, self.tenant());
            } else if plan.request_id == Some(field.number) {
                writer.text(field.number, self.request_id());
            } else if !field.sources.first().is_some_and(is_repeat_key)
                && (behalf == Behalf::Caller || !field.sources.iter().any(is_private))
            {
                writer.text(field.number, caller.text(&field.name));
            }
        }
        if let Some(labels) = plan.labels.as_ref().filter(|_| behalf == Behalf::Caller) {
            for (name, value) in &caller.labels {
                writer.label(labels.number, name, value);
            }
        }
        writer.finish();
    }
}

fn literal(subject: &str) -> Result<Subject, Fault> {
    Subject::new(subject).map_err(|error| internal("an event has no valid subject", error.to_string()))
}

fn internal(text: &'static str, details: String) -> Fault {
    Fault::ours(Code::Internal, text).internal(details)
}
