//! Notices as they are published: every replica that listens hears them, and nothing keeps them. For what may be missed
//! or is only true now; what must arrive goes through a log.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use crate::bus::{BusError, Delivery, Limits, Message, Pattern, Request, Subscription};
use crate::fault::{Code, Fault};
use crate::transcode::from_wire;

/// What a service's own work listens to.
pub struct Notices {
    context: Context,
    subscription: Subscription,
}

/// A notice that has come.
pub struct Heard {
    context: Context,
    delivery: Delivery,
}

impl Context {
    /// Listens to a subject; it may have wildcards. Fails where the bus refuses it.
    pub async fn listen(&self, subject: &str) -> Result<Notices, Fault> {
        let pattern = Pattern::new(subject).map_err(|error| {
            Fault::ours(Code::Internal, "a service listens to no valid subject").internal(error.to_string())
        })?;
        let subscription = self.around().bus.subscribe(&pattern, None, Limits::WORKER).await?;
        Ok(Notices { context: self.clone(), subscription })
    }

    /// Publishes a notice to every replica that listens, and waits until the first of them answers it. False where
    /// none does.
    pub async fn ask_any<T: Serialize + Sync>(
        &self,
        subject: &str,
        message: &str,
        value: &T,
        wait: Duration,
    ) -> Result<bool, Fault> {
        let (subject, headers, payload) = self.event(subject, message, value)?;
        let request = Request { subject, headers, payload, timeout: wait, proof: None };
        match self.around().bus.request(request).await {
            Ok(_) => Ok(true),
            Err(BusError::Timeout | BusError::NoResponders) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Notices {
    /// The next notice; nothing once the bus has closed.
    pub async fn next(&mut self) -> Option<Heard> {
        loop {
            // What was dropped because nobody read fast enough is missed, as anything here may be.
            match self.subscription.next().await? {
                Ok(delivery) => return Some(Heard { context: self.context.clone(), delivery }),
                Err(error) => tracing::debug!(?error, "notices were missed"),
            }
        }
    }
}

impl Heard {
    /// What it says, as a message of that full name.
    pub fn read<T: DeserializeOwned>(&self, message: &str) -> Result<T, Fault> {
        self.context.read_message(message, &self.delivery.payload)
    }

    /// Tells the sender that it was heard.
    pub async fn answer(&self) -> Result<(), Fault> {
        let Some(subject) = self.delivery.reply.clone() else { return Ok(()) };
        let headers = self.context.headers("");
        let message = Message { subject, reply: None, headers, payload: bytes::Bytes::new() };
        Ok(self.context.around().bus.publish(message).await?)
    }
}

impl Context {
    /// A message of that full name out of its bytes.
    pub fn read_message<T: DeserializeOwned>(&self, message: &str, payload: &bytes::Bytes) -> Result<T, Fault> {
        let broken = |text: String| Fault::ours(Code::Internal, "a message does not decode").internal(text);
        let tables = self.tables();
        let id = tables.message_id(message).ok_or_else(|| broken(format!("`{message}` is in no descriptor")))?;
        from_wire(tables, id, payload).map_err(|error| broken(error.to_string()))
    }
}
