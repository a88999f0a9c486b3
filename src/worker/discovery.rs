//! The NATS services protocol (ADR-32): `$SRV.PING`, `INFO` and `STATS`, for all services, one by name, or one
//! instance, so that `nats micro` shows the worker.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::dispatch::Endpoint;
use super::types::Timestamp;
use super::{Options, until_true};
use crate::bus::discovery::{Question, answer_of, questions};
use crate::bus::{Bus, BusError, Delivery, Headers, Message, Subscription};

/// The services of a worker, as they are found.
pub(super) struct Discovery {
    bus: Bus,
    instance: String,
    started: String,
    services: Vec<Vec<Endpoint>>,
}

impl Discovery {
    pub(super) fn new(options: &Options, services: Vec<Vec<Endpoint>>) -> Discovery {
        Discovery {
            bus: options.bus.clone(),
            instance: options.instance.clone(),
            started: Timestamp::from_millis((options.clock)()).to_string(),
            services,
        }
    }

    pub(super) async fn subscribe(&self) -> Result<Subscription, BusError> {
        questions(&self.bus).await
    }

    /// Answers until the worker drains: who drains is not to be found.
    pub(super) async fn run(self, mut questions: Subscription, mut draining: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                question = questions.next() => match question {
                    Some(Ok(question)) => self.answer(&question).await,
                    Some(Err(_)) => {}
                    None => return,
                },
                () = until_true(&mut draining) => return,
            }
        }
    }

    async fn answer(&self, question: &Delivery) {
        let Some(to) = &question.reply else { return };
        let Some(asked) = Question::of(&question.subject) else { return };
        for endpoints in &self.services {
            let Some((service, _)) = endpoints.first().map(Endpoint::service) else { continue };
            if !asked.is_for(service, &self.instance) {
                continue;
            }
            let answer = match asked.verb {
                "PING" => self.named(endpoints, "ping"),
                "INFO" => self.info(endpoints),
                "STATS" => self.stats(endpoints),
                _ => return,
            };
            let payload = Bytes::from(answer.to_string());
            let message = Message { subject: to.clone(), reply: None, headers: Headers::new(), payload };
            let _ = self.bus.publish(message).await;
        }
    }

    fn named(&self, endpoints: &[Endpoint], kind: &str) -> Value {
        let (name, version) = endpoints.first().map(Endpoint::service).unwrap_or_default();
        answer_of(kind, name, &self.instance, version, &json!({}))
    }

    fn info(&self, endpoints: &[Endpoint]) -> Value {
        let mut info = self.named(endpoints, "info");
        info["description"] = json!("");
        let rows = endpoints.iter().map(|endpoint| {
            let mut row = place(endpoint);
            let method = endpoint.method();
            row["metadata"] = json!({
                "method": &*method.name, "request": &*method.request_name, "reply": &*method.reply_name,
            });
            row
        });
        info["endpoints"] = rows.collect();
        info
    }

    fn stats(&self, endpoints: &[Endpoint]) -> Value {
        let mut stats = self.named(endpoints, "stats");
        stats["started"] = json!(self.started);
        let rows = endpoints.iter().map(|endpoint| {
            let mut row = place(endpoint);
            let stats = endpoint.stats();
            let requests = stats.requests.load(Ordering::Relaxed);
            let nanos = stats.nanos.load(Ordering::Relaxed);
            row["num_requests"] = json!(requests);
            row["num_errors"] = json!(stats.errors.load(Ordering::Relaxed));
            row["last_error"] = json!(*stats.last_error.lock().unwrap_or_else(PoisonError::into_inner));
            row["processing_time"] = json!(nanos);
            row["average_processing_time"] = json!(nanos.checked_div(requests).unwrap_or(0));
            row
        });
        stats["endpoints"] = rows.collect();
        stats
    }
}

/// Where an endpoint is; its name is the method's own.
fn place(endpoint: &Endpoint) -> Value {
    let method = endpoint.method();
    let name = method.name.rsplit('/').next().unwrap_or_default().replace('.', "_");
    json!({ "name": name, "subject": method.subject.as_str(), "queue_group": method.queue_group.as_deref().unwrap_or_default() })
}
