//! Events and notices of a handler: what its messages say, and how they reach a log or whoever listens.

use bytes::Bytes;
use serde::Serialize;

use super::context::Context;
use super::records::Sealed;
use crate::bus::{Headers, Message, Subject};
use crate::fault::{Code, Fault};
use crate::store::{Appended, Event, key_token};
use crate::transcode::to_wire;

impl Context {
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

    /// An event's id among all tenants': as it stands in the default one, behind the tenant's token in others.
    pub fn of_tenant(&self, id: &str) -> String {
        match self.tenant() {
            "" => id.to_owned(),
            tenant => format!("{}:{id}", key_token(tenant)),
        }
    }

    /// Publishes a notice to whoever listens now; nobody answers, and nothing keeps it.
    pub async fn publish<T: Serialize + Sync>(&self, subject: &str, message: &str, value: &T) -> Result<(), Fault> {
        let (subject, headers, payload) = self.event(subject, message, value)?;
        Ok(self.around().bus.publish(Message { subject, reply: None, headers, payload }).await?)
    }

    pub(super) fn event<T: Serialize>(
        &self,
        subject: &str,
        message: &str,
        value: &T,
    ) -> Result<(Subject, Headers, Bytes), Fault> {
        let subject = literal(subject)?;
        let tables = self.tables();
        let Some(message_id) = tables.message_id(message) else {
            return Err(internal("an event has an unknown type", format!("`{message}` is in no descriptor")));
        };
        let mut payload = Vec::with_capacity(256);
        to_wire(tables, message_id, value, &mut payload)
            .map_err(|error| internal("an event does not encode", error.to_string()))?;
        Ok((subject, self.headers(message), payload.into()))
    }

    /// What every message of ours says.
    pub(super) fn headers(&self, message_type: &str) -> Headers {
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
}

fn literal(subject: &str) -> Result<Subject, Fault> {
    Subject::new(subject).map_err(|error| internal("an event has no valid subject", error.to_string()))
}

fn internal(text: &'static str, details: String) -> Fault {
    Fault::ours(Code::Internal, text).internal(details)
}
