//! What a subscription holds until it is read: bounded in messages and bytes; what does not fit ends the subscription
//! with an error, so that nothing is lost without a word.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::Delivery;

/// How much a subscription may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Messages.
    pub messages: usize,
    /// Bytes of their bodies and headers.
    pub bytes: usize,
    /// What happens above: true ends the subscription with [`StreamError::Overflow`], false drops the newest
    /// message and counts it.
    pub ends_on_overflow: bool,
}

impl Limits {
    /// For the chunks of one stream.
    pub const STREAM: Limits = Limits { messages: 256, bytes: 1024 * 1024, ends_on_overflow: true };
    /// For the requests of a worker's method.
    pub const WORKER: Limits = Limits { messages: 16 * 1024, bytes: 64 * 1024 * 1024, ends_on_overflow: false };
}

/// Why a subscription ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// More came than it may hold.
    Overflow,
    /// The connection was lost; what came meanwhile is gone.
    Disconnected,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    dropped: u64,
    /// True from the first message that did not fit to the next that does.
    is_dropping: bool,
    end: Option<Option<StreamError>>,
    waker: Option<Waker>,
}

/// The queue between an engine and a subscription.
pub(super) struct Queue {
    limits: Limits,
    state: Mutex<State>,
}

impl Queue {
    pub(super) fn new(limits: Limits) -> Arc<Queue> {
        Arc::new(Queue { limits, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message; false where it did not fit.
    pub(super) fn push(&self, delivery: Delivery) -> bool {
        let mut state = self.lock();
        if state.end.is_some() {
            return true;
        }
        let size = size_of(&delivery);
        let fits = state.waiting.len() < self.limits.messages && state.bytes + size <= self.limits.bytes;
        if fits {
            state.bytes += size;
            state.is_dropping = false;
            state.waiting.push_back(delivery);
        } else {
            state.dropped += 1;
            if !std::mem::replace(&mut state.is_dropping, true) {
                tracing::warn!(subject = %delivery.subject, "a subscription is full: messages are lost until it is read");
            }
            if self.limits.ends_on_overflow {
                state.end = Some(Some(StreamError::Overflow));
            }
        }
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        fits
    }

    /// Ends the subscription behind what waits.
    pub(super) fn end(&self, error: Option<StreamError>) {
        let mut state = self.lock();
        state.end.get_or_insert(error);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Delivery, StreamError>>> {
        let mut state = self.lock();
        if let Some(delivery) = state.waiting.pop_front() {
            state.bytes -= size_of(&delivery);
            return Poll::Ready(Some(Ok(delivery)));
        }
        match &mut state.end {
            Some(error) => Poll::Ready(error.take().map(Err)),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn size_of(delivery: &Delivery) -> usize {
    delivery.payload.len() + delivery.headers.size()
}

/// What an engine holds for a subscription; dropping it ends the subscription there.
pub(super) trait Engaged: Send + Sync {
    /// Lets nothing new in; ends the queue behind what has come already.
    fn drain(&mut self);
}

/// A running subscription. Dropping it ends it at the engine.
pub struct Subscription {
    queue: Arc<Queue>,
    engaged: Box<dyn Engaged>,
}

impl Subscription {
    pub(super) fn new(queue: Arc<Queue>, engaged: impl Engaged + 'static) -> Subscription {
        Subscription { queue, engaged: Box::new(engaged) }
    }

    /// Lets nothing new in. What has come already can still be read; then `next` gives `None`.
    pub fn drain(&mut self) {
        self.engaged.drain();
    }

    /// The next message; `None` once it has ended, an error before that where it ended badly.
    pub async fn next(&mut self) -> Option<Result<Delivery, StreamError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`Subscription::next`], for hand-written bodies.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Delivery, StreamError>>> {
        self.queue.poll(context)
    }

    /// Messages that a full queue could not take.
    pub fn dropped(&self) -> u64 {
        self.queue.lock().dropped
    }
}
