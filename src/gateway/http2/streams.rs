//! The streams of one HTTP/2 connection: each is a task of its own, counted while it lives, and given up where its
//! client opens no window for what it has asked for. The protocol has no clock for that.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};

/// What a body has given out so far, and whether the last of it is still held up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Given {
    frames: u64,
    is_held: bool,
}

thread_local! {
    /// Of the stream that is being polled now.
    static GIVEN: Cell<Given> = const { Cell::new(Given { frames: 0, is_held: false }) };
}

/// A body has been asked for its next frame: the one before has found room.
pub(in super::super) fn note_asked() {
    GIVEN.with(|given| given.set(Given { is_held: false, ..given.get() }));
}

/// A body has given a frame out.
pub(in super::super) fn note_given() {
    GIVEN.with(|given| given.set(Given { frames: given.get().frames + 1, is_held: true }));
}

/// The tasks of one connection.
#[derive(Clone)]
pub(super) struct Streams {
    stall: Duration,
    tally: Arc<Mutex<Tally>>,
}

struct Tally {
    running: usize,
    /// When the last one ended.
    ended: Instant,
}

impl Streams {
    /// None yet; `stall` is how long one may wait for its client's window.
    pub(super) fn new(stall: Duration) -> Streams {
        Streams { stall, tally: Arc::new(Mutex::new(Tally { running: 0, ended: Instant::now() })) }
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until none has run for that long, from now on.
    pub(super) async fn idle(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            let left = {
                let tally = self.lock();
                if tally.running > 0 { limit } else { limit.saturating_sub(tally.ended.max(start).elapsed()) }
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        self.lock().running += 1;
        let (running, stall) = (Running(self.clone()), self.stall);
        tokio::spawn(async move {
            let _running = running;
            Watched { stream: Some(Box::pin(stream)), given: Given::default(), stall, timer: None }.await;
        });
    }
}

/// Counts a stream until it is gone.
struct Running(Streams);

impl Drop for Running {
    fn drop(&mut self) {
        let mut tally = self.0.lock();
        tally.running -= 1;
        tally.ended = Instant::now();
    }
}

/// A stream that ends, and so is reset, when nothing of its body moves for too long.
struct Watched<F> {
    stream: Option<Pin<Box<F>>>,
    given: Given,
    stall: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Watched<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let me = &mut *self;
        let Some(stream) = &mut me.stream else { return Poll::Ready(()) };
        GIVEN.set(me.given);
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let before = std::mem::replace(&mut me.given, GIVEN.get());
        if !me.given.is_held {
            me.timer = None;
            return Poll::Pending;
        }
        if me.given != before {
            me.timer = None;
        }
        let stall = me.stall;
        let timer = me.timer.get_or_insert_with(|| Box::pin(sleep(stall)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        metrics::counter!(crate::telemetry::CONNECTION_LIMITS, "limit" => "stream_stall").increment(1);
        me.stream = None;
        Poll::Ready(())
    }
}
