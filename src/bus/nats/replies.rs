//! Replies to requests: one subscription `PREFIX.*` for all of them, a slab of waiting slots, one sweep for all
//! deadlines. Each connection that carries requests has a table of its own.
//!
//! A slot's subject carries its generation. Time-outs, cancels and failed publishes raise it, so that a late reply
//! hits nobody. A subject is used again only for requests that bring a proof, and only between such requests, and it
//! rests first: a second reply to the same request would otherwise answer the next one.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::task::AbortHandle;

use super::super::{BusError, Headers, IN_FLIGHT_MAX, Reply, Request, Status};
use super::address::{self, Address};
use super::lane::Outbox;
use super::link::Link;
use super::{headers, is_no_responders, publish_error, to_nats};

/// How often deadlines are looked at.
const SWEEP: Duration = Duration::from_millis(10);
/// Slots that rest before the first of them is used again.
const RESTING_MIN: usize = 512;
/// Replies to one subject that wait for their proof behind the first.
const LATER_MAX: usize = 4;

/// The connection that requests go out on.
pub(super) enum Way {
    /// async-nats'.
    Client(Client),
    /// The request lane.
    Lane(Arc<Outbox>),
}

/// The reply table of one connection.
pub(super) struct Replies {
    way: Way,
    prefix: String,
    table: Mutex<Table>,
    link: Arc<Link>,
    strays: AtomicU64,
    started: Instant,
    /// Ends the task that holds the subscription, and with it the last handle of the connection.
    receiver: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    resting: VecDeque<u32>,
    pending: usize,
}

struct Slot {
    generation: u32,
    /// Milliseconds since the table was made.
    deadline_ms: u64,
    /// The reply subject of this generation.
    subject: async_nats::Subject,
    /// A request has been answered on this subject already.
    is_worn: bool,
    /// The request tells its reply from others.
    has_proof: bool,
    /// The connection's losses when it was taken: a later loss takes the reply with it.
    losses: u64,
    state: State,
    later: Vec<(Headers, Bytes)>,
}

enum State {
    Free,
    Waiting(Option<Waker>),
    Done(Result<(Headers, Bytes), BusError>),
}

impl Replies {
    /// A table whose replies come through [`Replies::deliver`], and the task that ends what waits too long.
    pub(super) fn new(way: Way, user: &str, link: Arc<Link>) -> Arc<Replies> {
        let table = Arc::new(Replies {
            way,
            prefix: format!("_INBOX.{user}.r.{}.", uuid::Uuid::new_v4().simple()),
            table: Mutex::default(),
            link,
            strays: AtomicU64::new(0),
            started: Instant::now(),
            receiver: OnceLock::new(),
        });
        tokio::spawn(sweep(Arc::downgrade(&table)));
        table
    }

    /// A table on async-nats, subscribed.
    pub(super) async fn on_client(client: Client, user: &str, link: Arc<Link>) -> Result<Arc<Replies>, BusError> {
        let table = Replies::new(Way::Client(client.clone()), user, link);
        let subscribed = client.subscribe(table.pattern()).await;
        let mut replies = subscribed.map_err(|error| BusError::Other(error.to_string()))?;
        let weak = Arc::downgrade(&table);
        let receiver = tokio::spawn(async move {
            while let Some(message) = replies.next().await {
                let Some(table) = weak.upgrade() else { return };
                table.deliver_message(message);
            }
        });
        let _ = table.receiver.set(receiver.abort_handle());
        Ok(table)
    }

    /// What the replies are subscribed with.
    pub(super) fn pattern(&self) -> String {
        format!("{}*", self.prefix)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pending(&self) -> u64 {
        self.lock().pending as u64
    }

    pub(super) fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Sends a request and waits for its reply.
    pub(super) async fn request(&self, request: Request<'_>) -> Result<Reply, BusError> {
        let timeout_ms = u64::try_from(request.timeout.as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = self.now_ms().saturating_add(timeout_ms);
        let is_reused = request.proof.is_some();
        // The guard comes before the publish, so that a cancelled one gives the slot back, too.
        let waiting = self.take_slot(deadline_ms, is_reused)?;
        let client = match &self.way {
            Way::Client(client) => client,
            Way::Lane(outbox) => {
                outbox.publish(request.subject.as_str(), &waiting.subject, &request.headers, &request.payload)?;
                return waiting.run(std::future::ready(Ok(())), request.proof).await;
            }
        };
        let subject = to_nats(&request.subject)?;
        let (reply_to, payload) = (waiting.subject.clone(), request.payload);
        let map = headers::to_nats(&request.headers)?;
        let publish = async {
            match request.headers.is_empty() {
                true => client.publish_with_reply(subject, reply_to, payload).await,
                false => client.publish_with_reply_and_headers(subject, reply_to, map, payload).await,
            }
        };
        waiting.run(publish, request.proof).await
    }

    fn take_slot(&self, deadline_ms: u64, is_reused: bool) -> Result<Waiting<'_>, BusError> {
        let mut table = self.lock();
        if table.pending >= IN_FLIGHT_MAX {
            return Err(BusError::Busy);
        }
        let rested = if table.resting.len() > RESTING_MIN { table.resting.pop_front() } else { None };
        let index = match rested {
            Some(index) => index,
            None => {
                let index = table.slots.len() as u32;
                let subject = address::subject(&self.prefix, index, 0);
                table.slots.push(Slot {
                    generation: 0,
                    deadline_ms: 0,
                    subject,
                    is_worn: false,
                    has_proof: false,
                    losses: 0,
                    state: State::Free,
                    later: Vec::new(),
                });
                index
            }
        };
        table.pending += 1;
        let slot = &mut table.slots[index as usize];
        if slot.is_worn && !is_reused {
            self.renew(index, slot);
        }
        slot.has_proof = is_reused;
        slot.deadline_ms = deadline_ms;
        slot.losses = self.link.lost();
        slot.state = State::Waiting(None);
        Ok(Waiting { replies: self, index, generation: slot.generation, subject: slot.subject.clone(), is_reused })
    }

    /// A new subject, which no earlier reply can hit.
    fn renew(&self, index: u32, slot: &mut Slot) {
        slot.generation = slot.generation.wrapping_add(1);
        slot.subject = address::subject(&self.prefix, index, slot.generation);
        slot.is_worn = false;
    }

    /// The slot that a reply's subject names.
    pub(super) fn address(&self, subject: &[u8]) -> Address {
        address::read(&self.prefix, subject)
    }

    fn deliver_message(&self, message: async_nats::Message) {
        let address = self.address(message.subject.as_bytes());
        if is_no_responders(&message) {
            return self.deliver(address, Err(BusError::NoResponders));
        }
        let headers = message.headers.as_ref().map(headers::from_nats).unwrap_or_default();
        self.deliver(address, Ok((headers, message.payload)));
    }

    /// Hands a reply to the request that waits in its slot.
    pub(super) fn deliver(&self, address: Address, result: Result<(Headers, Bytes), BusError>) {
        let mut table = self.lock();
        let slot = address
            .and_then(|(index, generation)| table.slots.get_mut(index).filter(|slot| slot.generation == generation));
        match slot {
            Some(Slot { state: state @ State::Waiting(_), .. }) => {
                let before = std::mem::replace(state, State::Done(result));
                drop(table);
                if let State::Waiting(Some(waker)) = before {
                    waker.wake();
                }
            }
            // Before the waiting task has run: what came first may be an old reply, and this one the true one.
            Some(Slot { has_proof: true, state: State::Done(Ok(_)), later, .. }) if later.len() < LATER_MAX => {
                later.extend(result);
            }
            _ => {
                self.strays.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Ends every waiting slot that is due.
    fn fail(&self, error: &BusError, is_due: impl Fn(&Slot) -> bool) {
        let mut wakers = Vec::new();
        let mut table = self.lock();
        if table.pending > 0 {
            for slot in &mut table.slots {
                if matches!(slot.state, State::Waiting(_)) && is_due(slot) {
                    let before = std::mem::replace(&mut slot.state, State::Done(Err(error.clone())));
                    if let State::Waiting(Some(waker)) = before {
                        wakers.push(waker);
                    }
                }
            }
        }
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.get() {
            receiver.abort();
        }
    }
}

/// Looks at all deadlines every [`SWEEP`], and fails everything that a lost connection took with it.
async fn sweep(replies: Weak<Replies>) {
    let Some((mut losses, mut status)) = replies.upgrade().map(|table| (table.link.losses(), table.link.status()))
    else {
        return;
    };
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = losses.changed() => {}
            _ = status.changed() => {}
        }
        let Some(replies) = replies.upgrade() else { return };
        let (now_ms, lost) = (replies.now_ms(), *losses.borrow_and_update());
        if *status.borrow_and_update() == Status::Closed {
            replies.fail(&BusError::Closed, |_| true);
        }
        replies.fail(&BusError::Disconnected, |slot| slot.losses < lost);
        // Both are rounded down: only the next millisecond is past the deadline for certain.
        replies.fail(&BusError::Timeout, |slot| slot.deadline_ms < now_ms);
    }
}

/// A taken slot; dropping it gives the slot back.
struct Waiting<'r> {
    replies: &'r Replies,
    index: u32,
    generation: u32,
    subject: async_nats::Subject,
    is_reused: bool,
}

impl Waiting<'_> {
    /// Publishes and waits in one future: a publish that blocks, as it does while disconnected, does not keep the
    /// deadline from ending the wait.
    async fn run(
        self,
        publish: impl Future<Output = Result<(), async_nats::PublishError>>,
        proof: Option<&(dyn Fn(&Reply) -> bool + Sync)>,
    ) -> Result<Reply, BusError> {
        let mut publish = pin!(publish);
        let (mut is_published, mut mismatches) = (false, 0);
        std::future::poll_fn(|context| {
            if !is_published && let Poll::Ready(sent) = publish.as_mut().poll(context) {
                is_published = true;
                if let Err(error) = sent {
                    return Poll::Ready(Err(publish_error(&error)));
                }
            }
            self.poll_reply(context, proof, &mut mismatches)
        })
        .await
    }

    fn poll_reply(
        &self,
        context: &mut Context<'_>,
        proof: Option<&(dyn Fn(&Reply) -> bool + Sync)>,
        mismatches: &mut u32,
    ) -> Poll<Result<Reply, BusError>> {
        let mut table = self.replies.lock();
        let slot = &mut table.slots[self.index as usize];
        loop {
            match &mut slot.state {
                State::Waiting(waker) => {
                    match waker {
                        Some(known) if known.will_wake(context.waker()) => {}
                        _ => *waker = Some(context.waker().clone()),
                    }
                    return Poll::Pending;
                }
                State::Done(Ok((headers, payload))) => {
                    let (headers, payload) = (std::mem::take(headers), std::mem::take(payload));
                    let reply = Reply { headers, payload, mismatches: *mismatches };
                    if proof.is_none_or(|proof| proof(&reply)) {
                        return Poll::Ready(Ok(reply));
                    }
                    *mismatches += 1;
                    self.replies.strays.fetch_add(1, Ordering::Relaxed);
                    let next = if slot.later.is_empty() { None } else { Some(slot.later.remove(0)) };
                    slot.state = next.map_or(State::Waiting(None), |reply| State::Done(Ok(reply)));
                }
                State::Done(Err(BusError::Timeout)) if *mismatches > 0 => {
                    return Poll::Ready(Err(BusError::Unproven(*mismatches)));
                }
                State::Done(Err(error)) => return Poll::Ready(Err(error.clone())),
                State::Free => return Poll::Ready(Err(BusError::Closed)),
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.replies.lock();
        table.pending -= 1;
        let slot = &mut table.slots[self.index as usize];
        let is_answered = matches!(slot.state, State::Done(Ok(_) | Err(BusError::NoResponders)));
        slot.state = State::Free;
        self.replies.strays.fetch_add(slot.later.len() as u64, Ordering::Relaxed);
        slot.later.clear();
        debug_assert_eq!(slot.generation, self.generation);
        match is_answered && self.is_reused {
            true => slot.is_worn = true,
            false => self.replies.renew(self.index, slot),
        }
        table.resting.push_back(self.index);
    }
}

/// The reply future must be able to move between threads.
const _: fn() = || {
    fn is_send<T: Send>(_: T) {}
    fn check(replies: &Replies, request: Request<'_>) {
        is_send(replies.request(request));
    }
    let _ = check;
};
