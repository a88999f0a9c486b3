//! One method's requests: each delivery becomes a call of the handler under its deadline, and an answer, whatever
//! happens.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use metrics::Counter;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::blocking::{stalls, watched};
use super::context::{Context, Surroundings};
use super::service::{Answer, Call, Running, Service};
use super::{Options, reply, streams, trace, until_true};
use crate::bus::{BusError, Delivery, Limits, Message, Subject, Subscription};
use crate::fault::{Code, Fault, Reason, Source};
use crate::snapshot::{Method, Streaming};
use crate::telemetry::trace::Span;

/// After this long a caller that met a full worker comes back.
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// What a method has done, for discovery.
#[derive(Default)]
pub(super) struct Stats {
    pub(super) requests: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) nanos: AtomicU64,
    pub(super) last_error: Mutex<String>,
}

impl Stats {
    fn note(&self, started: Instant, fault: Option<&Fault>) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        if let Some(fault) = fault {
            self.errors.fetch_add(1, Ordering::Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) =
                format!("{}:{}", fault.code().number(), fault.message());
        }
    }
}

/// A request counts as running while it is handled.
struct Counted(Arc<Surroundings>);

impl Counted {
    fn new(around: &Arc<Surroundings>) -> Counted {
        around.running.fetch_add(1, Ordering::Relaxed);
        Counted(around.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A method with its handlers, as subscribed to.
#[derive(Clone)]
pub(super) struct Endpoint(Arc<Inner>);

struct Inner {
    around: Arc<Surroundings>,
    version: String,
    method: Arc<Method>,
    calls: Vec<Call>,
    /// Requests at the same time; changes while the worker runs.
    parallel: Arc<AtomicUsize>,
    stats: Stats,
    stalls: Counter,
}

impl Endpoint {
    /// The methods of a service.
    pub(super) fn all_of(
        around: &Arc<Surroundings>,
        options: &Options,
        parallel: &Arc<AtomicUsize>,
        service: Service,
    ) -> Vec<Endpoint> {
        let version = service.version().to_owned();
        let methods = service.into_methods(&options.snapshot).into_iter();
        methods
            .map(|(method, calls)| {
                let (around, version) = (around.clone(), version.clone());
                let (parallel, stats) = (parallel.clone(), Stats::default());
                let stalls = stalls(&around.service, &method.name);
                Endpoint(Arc::new(Inner { around, version, method, calls, parallel, stats, stalls }))
            })
            .collect()
    }

    pub(super) fn method(&self) -> &Method {
        &self.0.method
    }

    pub(super) fn service(&self) -> (&str, &str) {
        (&self.0.around.service, &self.0.version)
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Subscribes as a member of the method's queue group.
    pub(super) async fn subscribe(&self) -> Result<Subscription, BusError> {
        let method = &self.0.method;
        let pattern = method.subject.clone().into();
        self.0.around.bus.subscribe(&pattern, method.queue_group.as_deref(), Limits::WORKER).await
    }

    /// Handles requests until the worker drains, then finishes those that have come.
    pub(super) async fn run(self, mut requests: Subscription) {
        let mut draining = self.0.around.draining.clone();
        let mut running = JoinSet::new();
        let mut is_open = true;
        loop {
            tokio::select! {
                delivery = requests.next() => match delivery {
                    Some(Ok(delivery)) => {
                        // What has ended takes no place any more.
                        while running.try_join_next().is_some() {}
                        if running.len() < self.0.parallel.load(Ordering::Relaxed).max(1) {
                            running.spawn(self.clone().handle(delivery));
                        } else {
                            self.refuse(delivery).await;
                        }
                    }
                    Some(Err(_)) => {}
                    None => break,
                },
                () = until_true(&mut draining), if is_open => {
                    requests.drain();
                    is_open = false;
                }
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Tells a caller that the worker is full.
    async fn refuse(&self, delivery: Delivery) {
        let Some(to) = delivery.reply.clone() else { return };
        let context = Context::new(&self.0.around, &self.0.method, delivery);
        let text = "the worker handles as many requests as it can: try again";
        let fault = Fault::ours(Code::ResourceExhausted, text).retry_after(BUSY_WAIT).detail("reason", "busy");
        let answer = reply::refusal(&context, fault);
        self.0.stats.note(Instant::now(), Some(&answer.0));
        if self.streams(&context) {
            streams::refuse(&context, to, &answer.0).await;
        } else {
            self.answer(&context, Some(to), Err(answer)).await;
        }
    }

    async fn handle(self, mut delivery: Delivery) {
        let started = Instant::now();
        let mut span = trace::request(&self.0.around, &self.0.method, &mut delivery.headers);
        let to = delivery.reply.clone();
        let _running = Counted::new(&self.0.around);
        let context = Context::new(&self.0.around, &self.0.method, delivery);
        span.set("tidegate.request_id", context.request_id());
        if self.streams(&context) {
            let call =
                self.0.calls.iter().find_map(|call| if let Call::Stream(call) = call { Some(call) } else { None });
            let ended = match (to, call) {
                (None, _) => Ok(()),
                (Some(to), None) => {
                    let fault = Fault::ours(Code::Unimplemented, "the method does not stream here");
                    streams::refuse(&context, to, &fault).await;
                    Err(fault)
                }
                (Some(to), Some(call)) => {
                    let start = |outlet| {
                        let running =
                            check_type(&context).and_then(|()| call(context.clone(), context.payload(), outlet))?;
                        let stalls = self.0.stalls.clone();
                        let watched = async move { watched(&stalls, running).await };
                        Ok(Box::pin(watched) as Running<Result<(), Fault>>)
                    };
                    streams::run(&context, to, start).await
                }
            };
            self.note(started, ended.err().as_ref(), &mut span);
            return;
        }
        let answer = self.call(&context).await;
        self.note(started, answer.as_ref().err().map(|error| &error.0), &mut span);
        self.answer(&context, to, answer).await;
    }

    /// True where the request is answered by a stream.
    fn streams(&self, context: &Context) -> bool {
        match self.0.method.streaming {
            Streaming::Unary => false,
            Streaming::Server => true,
            Streaming::OnRequest => self.0.method.envelope.wants_stream(context.payload()),
        }
    }

    /// Runs the unary handler: under the deadline, its panics caught.
    async fn call(&self, context: &Context) -> Answer {
        let call = self.0.calls.iter().find_map(|call| if let Call::Unary(call) = call { Some(call) } else { None });
        let Some(call) = call else {
            return Err(reply::refusal(context, Fault::client(Code::Unimplemented, "the method only streams here")));
        };
        if context.time_left().is_some_and(|left| left.is_zero()) {
            return Err(reply::refusal(context, Context::cancel_fault("deadline")));
        }
        let work = async {
            let decoded = check_type(context).and_then(|()| call(context.clone(), context.payload()));
            match decoded {
                Ok(running) => running.await,
                Err(fault) => Err(reply::malformed(context, fault)),
            }
        };
        let work = AssertUnwindSafe(watched(&self.0.stalls, work)).catch_unwind();
        let done = match context.deadline() {
            Some(deadline) => tokio::time::timeout_at(deadline, work).await,
            None => Ok(work.await),
        };
        match done {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => Err(reply::refusal(context, panicked(context, &*panic))),
            Err(_) => {
                context.cancel("deadline");
                Err(reply::refusal(context, Context::cancel_fault("deadline")))
            }
        }
    }

    async fn answer(&self, context: &Context, to: Option<Subject>, answer: Answer) {
        let Some(to) = to else { return };
        let method = &self.0.method;
        let mut headers = reply::headers(&method.reply_name);
        reply::identify(context, &mut headers);
        let payload = match answer {
            Ok(payload) => payload,
            Err((fault, payload)) => {
                reply::error_headers(context, &method.envelope.reply_error, &fault, &mut headers);
                payload
            }
        };
        let message = Message { subject: to, reply: None, headers, payload: Bytes::from(payload) };
        if let Err(error) = self.0.around.bus.publish(message).await {
            tracing::warn!(method = &*method.name, %error, "a reply could not be sent");
        }
    }

    fn note(&self, started: Instant, fault: Option<&Fault>, span: &mut Span) {
        self.0.stats.note(started, fault);
        if let Some(fault) = fault {
            span.fault(fault);
        }
        if let Some(fault) = fault.filter(|fault| fault.source() == Source::Us && fault.internal_text().is_some()) {
            tracing::warn!(method = &*self.0.method.name, %fault, "a handler failed");
        }
    }
}

/// Refuses a request that says it is of another type.
fn check_type(context: &Context) -> Result<(), Fault> {
    let method = context.method();
    match context.header("message-type") {
        Some(name) if *name != *method.request_name => {
            let text = format!("expected a `{}`, found a `{name}`", method.request_name);
            Err(Fault::client(Code::InvalidArgument, text).detail("reason", "malformed"))
        }
        _ => Ok(()),
    }
}

/// The fault of a handler that panicked; what it said is for our logs only.
pub(super) fn panicked(context: &Context, panic: &(dyn std::any::Any + Send)) -> Fault {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
    tracing::error!(method = &*context.method().name, panic = text, "a handler panicked");
    Fault::ours(Code::Internal, "the handler failed").reason(Reason::Panicked).detail("reason", "panicked")
}
