//! What a handler knows of its call: who calls, until when, the clock, whether anybody still waits; and the way to
//! peers. It sees neither the bus nor headers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::peer::Breakers;
use super::{Clock, Options, trace};
use crate::bus::{Bus, Delivery, Headers};
use crate::envelope::{Caller, Source};
use crate::fault::{Code, Fault};
use crate::snapshot::{Method, Snapshot};
use crate::store::{ConsumerConfig, Job, Store};
use crate::telemetry::trace::Span;
use crate::transcode::Tables;

/// Most labels that a handler may add to its reply.
const LABELS_MAX: usize = 32;

/// What all calls of a service share.
pub(super) struct Surroundings {
    pub(super) bus: Bus,
    pub(super) store: Store,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) clock: Clock,
    /// Name of the service.
    pub(super) service: String,
    /// `service@instance`.
    pub(super) instance: String,
    pub(super) heartbeat: Duration,
    pub(super) draining: watch::Receiver<bool>,
    pub(super) breakers: Breakers,
    /// Requests that are handled now, and most of them on one subject.
    pub(super) running: AtomicUsize,
    parallel: Arc<AtomicUsize>,
    /// Threads for work that computes.
    pub(super) pool: Arc<Semaphore>,
    /// What the service's own work runs as.
    own: Arc<Method>,
}

impl Surroundings {
    pub(super) fn new(
        options: &Options,
        service: &str,
        parallel: &Arc<AtomicUsize>,
        pool: &Arc<Semaphore>,
        draining: &watch::Receiver<bool>,
    ) -> Surroundings {
        Surroundings {
            bus: options.bus.clone(),
            store: options.store.clone(),
            snapshot: options.snapshot.clone(),
            clock: options.clock.clone(),
            service: service.to_owned(),
            instance: format!("{service}@{}", options.instance),
            heartbeat: options.heartbeat,
            draining: draining.clone(),
            breakers: Breakers::new(),
            running: AtomicUsize::new(0),
            parallel: parallel.clone(),
            pool: pool.clone(),
            own: Arc::new(Method::without_requests(service, options.snapshot.tables.clone())),
        }
    }
}

/// One call as its handler sees it. Cloning shares it.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    around: Arc<Surroundings>,
    method: Arc<Method>,
    caller: Caller,
    headers: Headers,
    payload: Bytes,
    deadline: Option<Instant>,
    labels: Mutex<BTreeMap<String, String>>,
    cancelled: watch::Sender<Option<&'static str>>,
    begun: Notify,
}

impl Context {
    pub(super) fn new(around: &Arc<Surroundings>, method: &Arc<Method>, delivery: Delivery) -> Context {
        let timeout = delivery.headers.get("Tidegate-Timeout").and_then(|text| text.trim().parse().ok());
        Context(Arc::new(Inner {
            around: around.clone(),
            method: method.clone(),
            caller: Caller::read(&method.envelope, &method.tables, &delivery.payload),
            deadline: timeout.and_then(|millis| Instant::now().checked_add(Duration::from_millis(millis))),
            headers: delivery.headers,
            payload: delivery.payload,
            labels: Mutex::default(),
            cancelled: watch::Sender::new(None),
            begun: Notify::new(),
        }))
    }

    /// A service's own work, which nobody has asked for: no user, no deadline, a request id of its own.
    pub(super) fn own(around: &Arc<Surroundings>, tenant: &str) -> Context {
        let mut headers = Headers::with_capacity(2);
        headers.push("Tidegate-Tenant", tenant);
        headers.push("Tidegate-Call", uuid::Uuid::new_v4().to_string());
        Context(Arc::new(Inner {
            around: around.clone(),
            method: around.own.clone(),
            caller: Caller::default(),
            headers,
            payload: Bytes::new(),
            deadline: None,
            labels: Mutex::default(),
            cancelled: watch::Sender::new(None),
            begun: Notify::new(),
        }))
    }

    /// The service's own work in a tenant: no user, no deadline, a request id of its own. Calls to peers are made on
    /// the service's account.
    pub fn for_tenant(&self, tenant: &str) -> Context {
        Context::own(&self.0.around, tenant)
    }

    /// [`Context::own`] for a caller, with those of the headers that say something.
    pub(super) fn own_for(
        around: &Arc<Surroundings>,
        tenant: &str,
        caller: Caller,
        headers: &[(&'static str, &String)],
    ) -> Context {
        let mut context = Context::own(around, tenant);
        if let Some(inner) = Arc::get_mut(&mut context.0) {
            inner.caller = caller;
            for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
                inner.headers.push(*name, value.as_str());
            }
        }
        context
    }

    /// The service's own work on an event, whose trace goes on, and the span of that work.
    pub(super) fn of_event(around: &Arc<Surroundings>, consumer: &ConsumerConfig, job: &Job) -> (Context, Span) {
        let (mut context, event, mut span) = (Context::own(around, ""), &job.event, Span::none());
        if let Some(inner) = Arc::get_mut(&mut context.0) {
            for name in ["traceparent", "tracestate"] {
                if let Some(value) = event.headers.get(name) {
                    inner.headers.push(name, value);
                }
            }
            span = trace::event(around, consumer, event, job.deliveries, &mut inner.headers);
        }
        (context, span)
    }

    /// The caller context as the house style carries it: texts by field name, and labels.
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The verified user; empty where there is none.
    pub fn user(&self) -> &str {
        self.sourced(|source| *source == Source::CallerUser, "Tidegate-User")
    }

    /// The tenant, which is the key space of everything stored; empty is the default tenant.
    pub fn tenant(&self) -> &str {
        self.sourced(|source| *source == Source::CallerTenant, "Tidegate-Tenant")
    }

    /// The verified roles.
    pub fn roles(&self) -> impl Iterator<Item = &str> {
        let label = self.0.method.envelope.context.as_ref().and_then(|plan| plan.labels.as_ref());
        let label = label.and_then(|labels| labels.set.iter().find(|row| row.1 == Source::CallerRole));
        let roles = match label {
            Some((name, _)) => self.0.caller.label(name).unwrap_or_default(),
            None => self.0.headers.get("Tidegate-Roles").unwrap_or_default(),
        };
        roles.split(',').map(str::trim).filter(|role| !role.is_empty())
    }

    /// The call's id.
    pub fn request_id(&self) -> &str {
        self.sourced(|source| *source == Source::Generated, "Tidegate-Call")
    }

    /// The key under which a repeat of this call gives the same reply; empty without one.
    pub fn idempotency_key(&self) -> &str {
        self.sourced(is_repeat_key, "Nats-Msg-Id")
    }

    /// The field of the context that has such a first source; the header where the style has no such field.
    fn sourced(&self, is_it: impl Fn(&Source) -> bool, header: &str) -> &str {
        let fields = self.0.method.envelope.context.iter().flat_map(|plan| &plan.fields);
        match fields.into_iter().find(|field| field.sources.first().is_some_and(&is_it)) {
            Some(field) => self.0.caller.text(&field.name),
            None => self.0.headers.get(header).unwrap_or_default(),
        }
    }

    /// Now, in milliseconds since 1970: the only clock of a handler.
    pub fn now_ms(&self) -> i64 {
        (self.0.around.clock)()
    }

    /// Time left for this call; `None` without a deadline.
    pub fn time_left(&self) -> Option<Duration> {
        self.0.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Says that this call's stream has begun, where there is nothing to send yet: its client gets status and headers now,
    /// and there is no limit for the first chunk any more. To be called once nothing can be refused, because a fault is an
    /// event of the stream from then on. A watch of records says so by itself, once it has told what was there. Does
    /// nothing behind the first chunk, and in calls without a stream.
    pub fn begin_stream(&self) {
        self.0.begun.notify_one();
    }

    /// Why nobody waits for this call any more; `None` while somebody does.
    pub fn cancelled(&self) -> Option<&'static str> {
        *self.0.cancelled.borrow()
    }

    /// Returns once nobody waits for this call any more, with the reason.
    pub async fn until_cancelled(&self) -> &'static str {
        let mut cancelled = self.0.cancelled.subscribe();
        let reason = cancelled.wait_for(Option::is_some).await.ok().and_then(|reason| *reason);
        match reason {
            Some(reason) => reason,
            // The sender lives in `self`, so this never comes; and if it did, nobody would wait.
            None => "closed",
        }
    }

    /// Adds a label to the reply's context; one of the same name from the request is replaced. At most
    /// 32; nothing where the style has no labels.
    pub fn label(&self, name: impl Into<String>, value: impl Into<String>) {
        let mut labels = self.0.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if labels.len() < LABELS_MAX {
            labels.insert(name.into(), value.into());
        }
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.0.around.store
    }

    /// The schema.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.0.around.snapshot.tables
    }

    /// Name of the service.
    pub fn service(&self) -> &str {
        &self.0.around.service
    }

    /// The subjects of the service's methods.
    pub fn operations(&self) -> impl Iterator<Item = &str> {
        let rows = self.0.around.snapshot.services.iter().filter(|row| *row.short_name == *self.0.around.service);
        rows.flat_map(|row| &row.methods).map(|method| method.subject.as_str())
    }

    /// How busy this replica of the service is, 0 to 1: what it handles now, of what one of its subjects may have.
    pub fn load(&self) -> f64 {
        let around = &self.0.around;
        let (running, parallel) = (around.running.load(Ordering::Relaxed), around.parallel.load(Ordering::Relaxed));
        (running as f64 / parallel.max(1) as f64).min(1.0)
    }

    /// The method that was called.
    pub fn method(&self) -> &Arc<Method> {
        &self.0.method
    }

    /// The request's bytes as they came.
    pub fn payload(&self) -> &Bytes {
        &self.0.payload
    }

    /// `service@instance` of this replica.
    pub fn instance(&self) -> &str {
        &self.0.around.instance
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.get(name)
    }

    pub(super) fn around(&self) -> &Arc<Surroundings> {
        &self.0.around
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.0.labels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns once a handler has said so.
    pub(super) async fn until_begun(&self) {
        self.0.begun.notified().await;
    }

    /// Nobody waits any more; the first reason counts.
    pub(super) fn cancel(&self, reason: &'static str) {
        self.0.cancelled.send_if_modified(|now| now.is_none() && now.insert(reason) == &reason);
    }

    /// The fault of work that nobody waits for.
    pub(super) fn cancel_fault(reason: &'static str) -> Fault {
        match reason {
            "draining" => {
                Fault::ours(Code::Unavailable, "the worker is stopping: connect again").detail("reason", reason)
            }
            "age" => Fault::ours(Code::Unavailable, "the stream has grown old: connect again").detail("reason", reason),
            "deadline" => Fault::ours(Code::DeadlineExceeded, "the deadline has passed").detail("reason", reason),
            _ => Fault::client(Code::Cancelled, "the caller has gone away").detail("reason", reason),
        }
    }
}

/// True for a source of the idempotency key.
pub(super) fn is_repeat_key(source: &Source) -> bool {
    match source {
        Source::Header { name, .. } => name == "idempotency-key",
        Source::BodyMember(_) => true,
        _ => false,
    }
}
