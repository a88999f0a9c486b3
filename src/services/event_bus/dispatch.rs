//! The dispatcher of a log: one replica holds its lease, pulls its events and pushes each to the subscriptions that take
//! it. An event is answered to the log once everybody has it, so another replica goes on where this one dies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::subscriptions::{Kept, Lease, Subscription, tenant_of};
use super::{ENVELOPE, EventBus};
use crate::fault::Fault;
use crate::services::notices::GameEvent;
use crate::store::{Consumer, ConsumerConfig, Job};
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed, Setback, dead_letters};

/// How often a lease is renewed, or tried for.
const RENEW: Duration = Duration::from_secs(1);
/// Events that wait in the dispatcher, and events whose receivers have not answered yet.
const WAITING_MAX: usize = 64;
const UNANSWERED_MAX: usize = 256;
/// How long a receiver has to answer, and the pauses before it gets an event again.
const ANSWER_MAX: Duration = Duration::from_secs(30);
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];
/// How often the log is told that an event is still being brought.
const IN_PROGRESS: Duration = Duration::from_secs(10);
/// Sequences that are looked through for the newest event of a new subscription.
const LOOK_BACK: u64 = 200;
/// Types that are counted.
const TYPES_MAX: usize = 1_000;

type Counts = BTreeMap<String, BTreeMap<String, i64>>;

/// An event that waits, with its place in the log.
struct Waiting {
    event: Arc<GameEvent>,
    job: Job,
}

impl EventBus {
    /// Dispatches a log whenever this replica holds its lease, until the worker drains.
    pub(super) async fn dispatch(self: Arc<Self>, context: Context, config: ConsumerConfig) {
        self.index.until_current().await;
        while context.cancelled().is_none() {
            let dispatched = match self.hold(&context, config.log, &mut Counts::new()).await {
                Ok(true) => self.dispatch_held(&context, &config).await,
                held => held.map(drop),
            };
            if let Err(fault) = dispatched {
                tracing::warn!(log = config.log, %fault, "a log is not dispatched for a moment");
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW) => {}
                _ = context.until_cancelled() => return,
            }
        }
    }

    /// Takes the lease or renews it, and adds counts to it; false where another replica has it.
    async fn hold(&self, context: &Context, log: &str, counts: &mut Counts) -> Result<bool, Fault> {
        let rule = |current: &Current<Kept>| {
            let mut lease = match &current.value {
                Some(Kept::Lease(lease)) => lease.clone(),
                _ => Lease::default(),
            };
            if lease.holder != context.instance() && lease.until_ms > current.now_ms {
                return Ok(Change::nothing(false));
            }
            context.instance().clone_into(&mut lease.holder);
            lease.until_ms = current.now_ms + self.lease.as_millis() as i64;
            for (tenant, types) in &*counts {
                let published = lease.published.entry(tenant.clone()).or_default();
                for (event_type, count) in types {
                    if published.len() < TYPES_MAX || published.contains_key(event_type) {
                        *published.entry(event_type.clone()).or_default() += count;
                    }
                }
            }
            Ok(Change::put(Kept::Lease(lease), true))
        };
        let place = format!("_lease.{log}");
        let held = self.kept.change(context, &place, rule).await.map_err(|failed: Failed<bool>| failed.fault)?.reply;
        if held {
            counts.clear();
        }
        Ok(held)
    }

    /// Gives the lease up, so that another replica need not wait for its end.
    async fn give_up(&self, context: &Context, log: &str) -> Result<(), Fault> {
        let rule = |current: &Current<Kept>| match &current.value {
            Some(Kept::Lease(lease)) if lease.holder == context.instance() => {
                Ok(Change::put(Kept::Lease(Lease { until_ms: 0, ..lease.clone() }), ()))
            }
            _ => Ok(Change::nothing(())),
        };
        let given = self.kept.change(context, &format!("_lease.{log}"), rule).await;
        given.map(drop).map_err(|failed: Failed<()>| failed.fault)
    }

    /// Dispatches until the lease is lost or the worker drains.
    async fn dispatch_held(self: &Arc<Self>, context: &Context, config: &ConsumerConfig) -> Result<(), Fault> {
        let mut consumer = context.store().consumer(config.log, config.name).await?;
        let mut bringing = JoinSet::new();
        let ended = self.pull(context, config, &mut consumer, &mut bringing).await;
        consumer.leave().await;
        if context.cancelled().is_some() {
            // What is under way goes to whoever holds the lease next.
            bringing.shutdown().await;
            self.give_up(context, config.log).await?;
        }
        ended
    }

    async fn pull(
        self: &Arc<Self>,
        context: &Context,
        config: &ConsumerConfig,
        consumer: &mut Consumer,
        bringing: &mut JoinSet<()>,
    ) -> Result<(), Fault> {
        let mut counts = Counts::new();
        let mut held_until = Instant::now() + self.lease;
        let mut renew = tokio::time::interval_at(Instant::now() + RENEW, RENEW);
        let mut queues = Queues::default();
        loop {
            while bringing.try_join_next().is_some() {}
            // What has been given out already comes first, so that the most urgent of it goes first.
            while queues.len() < WAITING_MAX && bringing.len() < UNANSWERED_MAX {
                let room = WAITING_MAX - queues.len();
                let Ok(job) = timeout(Duration::ZERO, consumer.next(room)).await else { break };
                self.enqueue(context, job?, &mut queues).await;
            }
            let has_lease = Instant::now() < held_until;
            if let Some(waiting) = has_lease.then(|| queues.next()).flatten() {
                let event = waiting.event.clone();
                *counts
                    .entry(tenant_of(&event).to_owned())
                    .or_default()
                    .entry(event.event_type.clone())
                    .or_default() += 1;
                self.bring(context, config.log, waiting, bringing).await;
                if renew_is_due(&mut renew).await {
                    match self.hold(context, config.log, &mut counts).await? {
                        true => held_until = Instant::now() + self.lease,
                        false => return Ok(()),
                    }
                }
                continue;
            }
            tokio::select! {
                _ = renew.tick() => match self.hold(context, config.log, &mut counts).await? {
                    true => held_until = Instant::now() + self.lease,
                    false => return Ok(()),
                },
                job = consumer.next(WAITING_MAX), if bringing.len() < UNANSWERED_MAX => {
                    self.enqueue(context, job?, &mut queues).await;
                }
                Some(_) = bringing.join_next(), if !bringing.is_empty() => {}
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }

    async fn enqueue(&self, context: &Context, job: Job, queues: &mut Queues) {
        match context.decode::<GameEvent>(ENVELOPE, &job.event.payload) {
            Ok(event) => queues.push(Waiting { event: Arc::new(event), job }),
            Err(Setback::Never(fault) | Setback::Again(fault)) => {
                // Whoever published it past the services; the store says so to the reader of advisories.
                tracing::warn!(sequence = job.event.sequence, %fault, "an event is none");
                if let Err(error) = job.end("malformed").await {
                    tracing::warn!(%error, "the log does not answer");
                }
            }
        }
    }

    /// Pushes an event to everybody who takes it; those who answer are waited for behind the dispatcher's back.
    async fn bring(
        self: &Arc<Self>,
        context: &Context,
        log: &'static str,
        waiting: Waiting,
        bringing: &mut JoinSet<()>,
    ) {
        let takers = self.index.takers(&waiting.event, context.now_ms());
        let (explicit, silent): (Vec<_>, Vec<_>) = takers.into_iter().partition(|taker| taker.filter.is_explicit);
        for taker in silent {
            push(context, &taker, &waiting.event).await;
        }
        let acknowledge = async move |job: &Job| {
            if let Err(error) = job.ack().await {
                tracing::warn!(log, %error, "an event may be dispatched once more");
            }
        };
        if explicit.is_empty() {
            return acknowledge(&waiting.job).await;
        }
        let context = context.clone();
        bringing.spawn(async move {
            let all = explicit.iter().map(|taker| insist(&context, taker, &waiting));
            let all = futures_util::future::join_all(all);
            tokio::pin!(all);
            loop {
                tokio::select! {
                    _ = &mut all => break,
                    () = tokio::time::sleep(IN_PROGRESS) => drop(waiting.job.in_progress().await),
                }
            }
            acknowledge(&waiting.job).await;
        });
    }

    /// Pushes the newest event that a new subscription takes.
    pub(super) async fn bring_last(&self, context: &Context, subscription: &Subscription) -> Result<(), Fault> {
        let mut newest: Option<(i64, GameEvent)> = None;
        for log in super::streams::logs_of(&subscription.patterns) {
            let last = context.store().log_figures(log).await?.last;
            for sequence in (last.saturating_sub(LOOK_BACK) + 1..=last).rev() {
                let Some(logged) = context.store().event(log, sequence).await? else { continue };
                let Ok(event) = context.decode::<GameEvent>(ENVELOPE, &logged.payload) else { continue };
                if subscription.takes(&event, context.now_ms()) {
                    if newest.as_ref().is_none_or(|(at_ms, _)| *at_ms < logged.created_ms) {
                        newest = Some((logged.created_ms, event));
                    }
                    break;
                }
            }
        }
        if let Some((_, event)) = newest {
            push(context, subscription, &event).await;
        }
        Ok(())
    }
}

/// True where a renewal is due; never waits.
async fn renew_is_due(renew: &mut tokio::time::Interval) -> bool {
    timeout(Duration::ZERO, renew.tick()).await.is_ok()
}

async fn push(context: &Context, taker: &Subscription, event: &GameEvent) {
    if let Err(fault) = context.publish(&taker.callback_subject, ENVELOPE, event).await {
        tracing::warn!(subscription = taker.subscription_id, %fault, "an event was not pushed");
    }
}

/// Pushes an event until its receiver answers; after the last try it is a dead letter of the subscription.
async fn insist(context: &Context, taker: &Subscription, waiting: &Waiting) {
    for attempt in 0..=PAUSES.len() {
        match context.ask_any(&taker.callback_subject, ENVELOPE, &*waiting.event, ANSWER_MAX).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(fault) => tracing::warn!(subscription = taker.subscription_id, %fault, "an event was not pushed"),
        }
        if let Some(pause) = PAUSES.get(attempt) {
            tokio::time::sleep(*pause).await;
        }
    }
    let tries = PAUSES.len() as u32 + 1;
    let kept = dead_letters::keep_unanswered(context, "event_bus", &taker.subscription_id, &waiting.job.event, tries);
    if let Err(fault) = kept.await {
        tracing::error!(subscription = taker.subscription_id, %fault, "a dead letter is lost");
    }
}

/// Events that wait: in order within each type; of the types' first ones the most urgent goes next, of equals the
/// oldest.
#[derive(Default)]
struct Queues {
    by_type: BTreeMap<String, VecDeque<Waiting>>,
    count: usize,
}

impl Queues {
    fn len(&self) -> usize {
        self.count
    }

    fn push(&mut self, waiting: Waiting) {
        self.count += 1;
        self.by_type.entry(waiting.event.event_type.clone()).or_default().push_back(waiting);
    }

    fn next(&mut self) -> Option<Waiting> {
        let urgency = |waiting: &Waiting| (waiting.event.priority, std::cmp::Reverse(waiting.job.event.sequence));
        let first = |queue: &VecDeque<Waiting>| queue.front().map(urgency);
        let name = self.by_type.iter().max_by_key(|(_, queue)| first(queue))?.0.clone();
        let queue = self.by_type.get_mut(&name)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.by_type.remove(&name);
        }
        self.count -= usize::from(next.is_some());
        next
    }
}
