//! The NATS services protocol (ADR-32): `$SRV.PING`, `INFO` and `STATS`, for all services, one by name, or one
//! instance, so that `nats micro` shows the worker.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::dispatch::Endpoint;
use super::types::Timestamp;
use super::{Options, until_true};
use crate::bus::discovery::{ANNOUNCED, BYTES, DIGEST, PART_BYTES, Question, answer_of, digest, questions};
use crate::bus::{Bus, BusError, Delivery, Headers, Message, Subscription};
use crate::schema::{self, SourceFile};

/// The services of a worker, as they are found.
pub(super) struct Discovery {
    bus: Bus,
    instance: String,
    started: String,
    services: Vec<Found>,
}

/// A service with its methods.
struct Found {
    endpoints: Vec<Endpoint>,
    /// The descriptor set that gateways may take routes from, and what is said of it.
    set: Bytes,
    metadata: Value,
}

impl Discovery {
    pub(super) fn new(options: &Options, services: Vec<Vec<Endpoint>>) -> Discovery {
        Discovery {
            bus: options.bus.clone(),
            instance: options.instance.clone(),
            started: Timestamp::from_millis((options.clock)()).to_string(),
            services: found(options.announced.as_deref().map(Vec::as_slice), services),
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
        for found in &self.services {
            let Some((service, _)) = found.endpoints.first().map(Endpoint::service) else { continue };
            if !asked.is_for(service, &self.instance) {
                continue;
            }
            let payload = match asked.verb {
                "PING" => self.named(found, "ping").to_string().into(),
                "INFO" => self.info(found).to_string().into(),
                "STATS" => self.stats(found).to_string().into(),
                "SCHEMA" => part(&found.set, &question.payload),
                _ => return,
            };
            let message = Message { subject: to.clone(), reply: None, headers: Headers::new(), payload };
            let _ = self.bus.publish(message).await;
        }
    }

    fn named(&self, found: &Found, kind: &str) -> Value {
        let (name, version) = found.endpoints.first().map(Endpoint::service).unwrap_or_default();
        answer_of(kind, name, &self.instance, version, &found.metadata)
    }

    fn info(&self, found: &Found) -> Value {
        let mut info = self.named(found, "info");
        info["description"] = json!("");
        let rows = found.endpoints.iter().map(|endpoint| {
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

    fn stats(&self, found: &Found) -> Value {
        let mut stats = self.named(found, "stats");
        stats["started"] = json!(self.started);
        let rows = found.endpoints.iter().map(|endpoint| {
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

/// The services, with what each announces.
fn found(files: Option<&[SourceFile]>, services: Vec<Vec<Endpoint>>) -> Vec<Found> {
    let names = |endpoints: &Vec<Endpoint>| -> Vec<String> {
        let service_of = |endpoint: &Endpoint| endpoint.method().name.split('/').next().map(str::to_owned);
        let names: BTreeSet<String> = endpoints.iter().filter_map(service_of).collect();
        names.into_iter().collect()
    };
    let names: Vec<Vec<String>> = services.iter().map(names).collect();
    let wanted: Vec<Vec<&str>> = names.iter().map(|names| names.iter().map(String::as_str).collect()).collect();
    // The schema has been loaded before, so it loads now.
    let sets = files.and_then(|files| schema::sets(files, &wanted).ok()).unwrap_or_default();
    let mut sets = sets.into_iter();
    let with_set = |(endpoints, names): (Vec<Endpoint>, Vec<String>)| match sets.next() {
        Some(set) => {
            let metadata = json!({
                ANNOUNCED: names.join(","), DIGEST: digest(&set), BYTES: set.len().to_string(),
            });
            Found { endpoints, set: set.into(), metadata }
        }
        None => Found { endpoints, set: Bytes::new(), metadata: json!({}) },
    };
    services.into_iter().zip(names).map(with_set).collect()
}

/// The part of a descriptor set that a request asks for; nothing behind its end.
fn part(set: &Bytes, from: &[u8]) -> Bytes {
    let from = std::str::from_utf8(from).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0).min(set.len());
    set.slice(from..set.len().min(from + PART_BYTES))
}

/// Where an endpoint is; its name is the method's own.
fn place(endpoint: &Endpoint) -> Value {
    let method = endpoint.method();
    let name = method.name.rsplit('/').next().unwrap_or_default().replace('.', "_");
    json!({ "name": name, "subject": method.subject.as_str(), "queue_group": method.queue_group.as_deref().unwrap_or_default() })
}
