//! Chunks of a stream: numbered, within the caller's credit, cancelled within one chunk, with a heartbeat in silence,
//! and exactly one end.

mod signs;

use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::context::Context;
use super::dispatch::panicked;
use super::reply;
use super::service::Running;
use super::until_true;
use crate::bus::{Branch, Headers, Limits, Message, Subject, Subscription};
use crate::envelope::{ErrorPlan, write_error};
use crate::fault::{Code, Fault};
use crate::transcode::number_order;
use crate::transcode::wire::put_number;

/// Largest chunk in bytes.
const CHUNK_MAX: usize = 256 * 1024;
/// Longest wait for credit.
const CREDIT_WAIT_MAX: Duration = Duration::from_secs(60);
/// How long a cancelled handler may take to notice.
const CANCEL_GRACE: Duration = Duration::from_secs(1);
/// A stream that is older ends, so that its caller connects anew, perhaps to a newer worker.
const AGE_MAX: Duration = Duration::from_secs(23 * 3_600);
/// What the control subscription holds: totals make all but the newest message superfluous.
const CONTROL: Limits = Limits { messages: 64, bytes: 64 * 1024, ends_on_overflow: false };

/// Where a handler sends its chunks.
///
/// A chunk's struct leaves out what the house style keeps for itself: context, index, last mark, error.
pub struct Chunks<C> {
    outlet: Outlet,
    chunk: PhantomData<fn(C)>,
}

impl<C: Serialize> Chunks<C> {
    pub(super) fn new(outlet: Outlet) -> Chunks<C> {
        Chunks { outlet, chunk: PhantomData }
    }

    /// Sends a chunk, as soon as the caller's credit allows it.
    ///
    /// Fails where nobody waits any more (give the fault back at once), where no credit comes for a minute, or where
    /// the chunk is larger than 256 KiB.
    pub async fn send(&mut self, chunk: &C) -> Result<(), Fault> {
        self.outlet.send(chunk, false).await
    }

    /// Sends the last chunk. The handler then returns `Ok`.
    pub async fn finish(self, chunk: &C) -> Result<(), Fault> {
        self.outlet.send(chunk, true).await
    }

    /// Chunks sent so far.
    pub fn count(&self) -> u64 {
        self.outlet.sent().chunks
    }
}

/// The sending side of one stream.
#[derive(Clone)]
pub(super) struct Outlet(Arc<Shared>);

struct Shared {
    context: Context,
    to: Subject,
    control: Option<Subject>,
    /// Totals of chunks and bytes that may have been sent.
    credit: watch::Sender<(u64, u64)>,
    sent: Mutex<Sent>,
}

#[derive(Clone, Copy)]
struct Sent {
    chunks: u64,
    bytes: u64,
    at: Instant,
    /// The caller knows that the stream is there, by its first chunk or by our word.
    is_begun: bool,
    is_over: bool,
}

/// Why a stream has to stop.
#[derive(Clone, Copy)]
struct Stop {
    reason: &'static str,
    /// We end it, and say so; otherwise nobody listens any more.
    is_ours: bool,
}

/// Runs a stream's handler to its end, and sends that end.
pub(super) async fn run(
    context: &Context,
    to: Subject,
    start: impl FnOnce(Outlet) -> Result<Running<Result<(), Fault>>, Fault>,
) -> Result<(), Fault> {
    let bus = &context.around().bus;
    let control = bus.new_inbox(Branch::Control);
    let messages = match bus.subscribe(&control.clone().into(), None, CONTROL).await {
        Ok(messages) => messages,
        Err(error) => {
            let fault = Fault::from(error);
            refuse(context, to, &fault).await;
            return Err(fault);
        }
    };
    let outlet = Outlet::new(context, to, Some(control));
    if context.time_left().is_some_and(|left| left.is_zero()) {
        let fault = Context::cancel_fault("deadline");
        outlet.fail(&fault).await;
        return Err(fault);
    }
    let work = async {
        match start(outlet.clone()) {
            Ok(running) => running.await,
            Err(fault) => Err(fault),
        }
    };
    let work = AssertUnwindSafe(work).catch_unwind();
    let (ended, stop) = watched(&outlet, work, messages).await;
    let ended = ended.unwrap_or_else(|panic| Err(panicked(context, &*panic)));
    match stop {
        // The caller has ended the stream itself; a chunk now would be its second end.
        Some(stop) if !stop.is_ours => Ok(()),
        Some(stop) => {
            let fault = Context::cancel_fault(stop.reason);
            outlet.fail(&fault).await;
            if stop.reason == "deadline" { Err(fault) } else { Ok(()) }
        }
        None => match ended {
            Ok(()) => {
                outlet.close().await;
                Ok(())
            }
            Err(fault) => {
                outlet.fail(&fault).await;
                Err(fault)
            }
        },
    }
}

/// Ends a stream that was never begun.
pub(super) async fn refuse(context: &Context, to: Subject, fault: &Fault) {
    Outlet::new(context, to, None).fail(fault).await;
}

type Caught = std::thread::Result<Result<(), Fault>>;

/// The handler beside its control messages, heartbeats and limits. A handler that is told to stop has
/// [`CANCEL_GRACE`] to return, then it is dropped.
async fn watched(
    outlet: &Outlet,
    work: impl Future<Output = Caught>,
    mut messages: Subscription,
) -> (Caught, Option<Stop>) {
    let context = &outlet.0.context;
    tokio::pin!(work);
    let stop = tokio::select! {
        ended = &mut work => return (ended, None),
        stop = outlet.watch(&mut messages) => stop,
        () = outlet.until_late() => Stop { reason: "deadline", is_ours: true },
    };
    context.cancel(stop.reason);
    let ended = timeout(CANCEL_GRACE, work).await.unwrap_or(Ok(Ok(())));
    (ended, Some(stop))
}

impl Outlet {
    fn new(context: &Context, to: Subject, control: Option<Subject>) -> Outlet {
        let window = context.header("Tidegate-Window").and_then(pair_of_numbers);
        Outlet(Arc::new(Shared {
            context: context.clone(),
            to,
            control,
            // Who sends no window gives no credit, and none is waited for.
            credit: watch::Sender::new(window.unwrap_or((u64::MAX, u64::MAX))),
            sent: Mutex::new(Sent { chunks: 0, bytes: 0, at: Instant::now(), is_begun: false, is_over: false }),
        }))
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.0.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send<C: Serialize>(&self, chunk: &C, is_last: bool) -> Result<(), Fault> {
        let context = &self.0.context;
        self.send_with(is_last, |out| reply::append(context, context.method().chunk, chunk, out)).await
    }

    /// Sends a chunk that is encoded already.
    pub(super) async fn send_encoded(&self, chunk: &[u8]) -> Result<(), Fault> {
        self.send_with(false, |out| reply::append_encoded(chunk, out)).await
    }

    /// Sends the last chunk, encoded already.
    pub(super) async fn finish_encoded(&self, chunk: &[u8]) -> Result<(), Fault> {
        self.send_with(true, |out| reply::append_encoded(chunk, out)).await
    }

    async fn send_with(
        &self,
        is_last: bool,
        append: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        self.wait_for_credit().await?;
        let context = &self.0.context;
        let (method, index) = (context.method(), self.sent().chunks);
        let mut out = Vec::with_capacity(256);
        if index == 0 || is_last {
            reply::echo(context, method.envelope.chunk.context, &mut out);
        }
        self.mark(index, is_last, &mut out);
        append(&mut out)?;
        if out.len() > CHUNK_MAX {
            let text = format!("the chunk has {} bytes", out.len());
            return Err(Fault::ours(Code::Internal, "a chunk is larger than 256 KiB").internal(text));
        }
        self.publish(out, is_last, None).await
    }

    /// Returns once the next chunk may be sent.
    async fn wait_for_credit(&self) -> Result<(), Fault> {
        let context = &self.0.context;
        let mut credit = self.0.credit.subscribe();
        let sent = *self.sent();
        if sent.is_over {
            return Err(Fault::ours(Code::Internal, "a chunk came behind the last one"));
        }
        let is_granted = |total: &(u64, u64)| sent.chunks < total.0 && sent.bytes < total.1;
        if let Some(reason) = context.cancelled() {
            return Err(Context::cancel_fault(reason));
        }
        tokio::select! {
            biased;
            granted = timeout(CREDIT_WAIT_MAX, credit.wait_for(is_granted)) => match granted {
                Ok(_) => Ok(()),
                Err(_) => Err(Fault::client(Code::ResourceExhausted, "the caller gave no credit for a minute")
                    .detail("reason", "slow_consumer")),
            },
            reason = context.until_cancelled() => Err(Context::cancel_fault(reason)),
        }
    }

    /// Appends the chunk's own number and last mark, where its message has them.
    fn mark(&self, index: u64, is_last: bool, out: &mut Vec<u8>) {
        let plan = &self.0.context.method().envelope.chunk;
        if let Some(number) = plan.index.filter(|_| index > 0) {
            put_number(number, index, out);
        }
        if let Some(number) = plan.last.filter(|_| is_last) {
            put_number(number, 1, out);
        }
    }

    async fn publish(&self, out: Vec<u8>, is_last: bool, fault: Option<&Fault>) -> Result<(), Fault> {
        let context = &self.0.context;
        let method = context.method();
        let plan = &method.envelope.chunk;
        let mut headers = reply::headers(&method.chunk_name);
        let index = {
            let mut sent = self.sent();
            let index = sent.chunks;
            let bytes = sent.bytes + out.len() as u64;
            *sent = Sent { chunks: index + 1, bytes, at: Instant::now(), is_begun: true, is_over: is_last };
            index
        };
        if index == 0 {
            reply::identify(context, &mut headers);
        }
        if plan.index.is_none() {
            headers.push("Tidegate-Seq", index.to_string());
        }
        if is_last && (plan.last.is_none() || fault.is_some() && !matches!(plan.error, ErrorPlan::InBand { .. })) {
            headers.push("Tidegate-End", "1");
        }
        if let Some(fault) = fault {
            reply::error_headers(context, &plan.error, fault, &mut headers);
        }
        self.publish_raw(headers, out.into()).await
    }

    async fn publish_raw(&self, headers: Headers, payload: Bytes) -> Result<(), Fault> {
        let (subject, reply) = (self.0.to.clone(), self.0.control.clone());
        Ok(self.0.context.around().bus.publish(Message { subject, reply, headers, payload }).await?)
    }

    /// The end of a handler that returned without a last chunk.
    async fn close(&self) {
        if self.sent().is_over {
            return;
        }
        let context = &self.0.context;
        let (plan, index) = (&context.method().envelope.chunk, self.sent().chunks);
        let mut out = Vec::new();
        if plan.last.is_some() {
            reply::echo(context, plan.context, &mut out);
            self.mark(index, true, &mut out);
            let _ = number_order(&mut out, 0);
        }
        self.end(out, None).await;
    }

    /// The end of a stream that failed. It needs no credit: callers have room for it.
    async fn fail(&self, fault: &Fault) {
        if self.sent().is_over {
            return;
        }
        let context = &self.0.context;
        let (method, index) = (context.method(), self.sent().chunks);
        let plan = &method.envelope.chunk;
        let mut out = Vec::new();
        if matches!(plan.error, ErrorPlan::InBand { .. }) {
            reply::echo(context, plan.context, &mut out);
            self.mark(index, true, &mut out);
        }
        write_error(&method.tables, &plan.error, fault, &mut out);
        let _ = number_order(&mut out, 0);
        self.end(out, Some(fault)).await;
    }

    async fn end(&self, out: Vec<u8>, fault: Option<&Fault>) {
        if let Err(error) = self.publish(out, true, fault).await {
            tracing::warn!(method = &*self.0.context.method().name, %error, "the end of a stream could not be sent");
        }
    }

    /// Takes credit, sends heartbeats, and returns when the stream has to stop.
    async fn watch(&self, messages: &mut Subscription) -> Stop {
        let around = self.0.context.around();
        let mut draining = around.draining.clone();
        let old = Instant::now() + AGE_MAX;
        loop {
            let silent = self.sent().at + around.heartbeat;
            tokio::select! {
                message = messages.next() => {
                    let Some(Ok(message)) = message else { return Stop { reason: "client_gone", is_ours: false } };
                    if message.is_no_responders {
                        return Stop { reason: "client_gone", is_ours: false };
                    }
                    if let Some(reason) = message.headers.get("Tidegate-Cancel") {
                        return Stop { reason: known_reason(reason), is_ours: false };
                    }
                    if let Some(total) = message.headers.get("Tidegate-Credit").and_then(pair_of_numbers) {
                        self.0.credit.send_modify(|now| *now = (now.0.max(total.0), now.1.max(total.1)));
                    }
                }
                () = until_true(&mut draining) => return Stop { reason: "draining", is_ours: true },
                () = sleep_until(old) => return Stop { reason: "age", is_ours: true },
                () = sleep_until(silent) => self.beat().await,
                () = self.0.context.until_begun() => self.begin().await,
            }
        }
    }
}

/// `64 1048576`.
fn pair_of_numbers(text: &str) -> Option<(u64, u64)> {
    let (first, second) = text.trim().split_once(' ')?;
    Some((first.parse().ok()?, second.trim().parse().ok()?))
}

/// A caller's reason in our words; it may say what it likes.
fn known_reason(reason: &str) -> &'static str {
    match reason {
        "deadline" => "deadline",
        "reloaded" => "reloaded",
        "revoked" => "revoked",
        _ => "client_gone",
    }
}
