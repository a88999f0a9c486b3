//! Events followed as a stream, and statistics. Each replica reads a log once for all who follow it; who resumes reads
//! what was missed for itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};
use tokio::time::timeout;

use super::patterns::{ALL, check_type, log_of};
use super::subscriptions::{Filter, Kept};
use super::{ENVELOPE, EventBus, check_patterns, is_wanted};
use crate::fault::Fault;
use crate::services::checks::invalid;
use crate::services::events::EVENT_DISPATCH;
use crate::services::notices::GameEvent;
use crate::store::Logged;
use crate::worker::{Chunks, Context};

/// Events that a slow follower may be behind before it reads the log for itself.
const BEHIND_MAX: usize = 1_024;
/// Events of one type that statistics show, their bytes, and how long a log may be silent while they are read.
const RECENT_MAX: usize = 100;
const RECENT_BYTES_MAX: usize = 512 * 1024;
const SILENCE: Duration = Duration::from_millis(250);

#[derive(Serialize, Deserialize)]
pub(super) struct Follow {
    event_patterns: Vec<String>,
    filters: BTreeMap<String, String>,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    revision: u64,
    event: Option<GameEvent>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Stats {
    event_type: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct StatsShown {
    published: BTreeMap<String, i64>,
    recent: Vec<GameEvent>,
}

/// The logs as this replica reads them, those that somebody follows.
#[derive(Default)]
pub(super) struct Hub(Mutex<HashMap<&'static str, Sender<Arc<Logged>>>>);

impl Hub {
    /// New events of a log, from now on.
    async fn follow(&self, context: &Context, log: &'static str) -> Result<Receiver<Arc<Logged>>, Fault> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = known().get(log).filter(|sender| sender.receiver_count() > 0) {
            return Ok(sender.subscribe());
        }
        let last = context.store().log_figures(log).await?.last;
        let mut reader = context.store().read_log(log, "evt.>", last).await?;
        let (sender, receiver) = channel(BEHIND_MAX);
        known().insert(log, sender.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    logged = reader.next() => match logged {
                        Ok(logged) => if sender.send(Arc::new(logged)).is_err() {
                            return;
                        },
                        Err(error) => return tracing::warn!(log, %error, "a log cannot be read"),
                    },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(receiver)
    }
}

/// The logs that patterns lie in.
pub(super) fn logs_of(patterns: &[String]) -> BTreeSet<&'static str> {
    if patterns.iter().any(|pattern| pattern == ALL) {
        return EVENT_DISPATCH.iter().map(|consumer| consumer.log).collect();
    }
    patterns.iter().filter_map(|pattern| log_of(pattern)).collect()
}

impl EventBus {
    pub(super) async fn stream(
        self: Arc<Self>,
        context: Context,
        request: Follow,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let patterns = check_patterns(&request.event_patterns)?;
        let filter = Filter::read(&request.filters)?;
        let (logs, is_all) = (logs_of(&patterns), patterns[0] == ALL);
        if (logs.len() > 1 && !is_all) || (is_all && request.after_revision > 0) {
            return Err(invalid("event_patterns", "several_streams", "patterns lie in several streams"));
        }
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let mut followers = tokio::task::JoinSet::new();
        for log in logs {
            let receiver = self.hub.follow(&context, log).await?;
            let (context, tell, after) = (context.clone(), tell.clone(), request.after_revision);
            followers.spawn(async move { follow(&context, log, receiver, after, &tell).await });
        }
        drop(tell);
        loop {
            let logged = tokio::select! {
                Some(logged) = told.recv() => logged,
                Some(ended) = followers.join_next() => match ended {
                    Ok(ended) => return ended,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                _ = context.until_cancelled() => return Ok(()),
            };
            let Ok(event) = context.decode::<GameEvent>(ENVELOPE, &logged.payload) else { continue };
            if is_wanted(&patterns, &filter, context.tenant(), &event) {
                let revision = if is_all { 0 } else { logged.sequence };
                chunks.send(&Item { revision, event: Some(event) }).await?;
            }
        }
    }

    /// Counts of the tenant's events, and the last ones of a type.
    pub(super) async fn stats(self: Arc<Self>, context: Context, request: Stats) -> Result<StatsShown, Fault> {
        if !request.event_type.is_empty() {
            check_type("event_type", &request.event_type)?;
        }
        let mut published = BTreeMap::new();
        for consumer in EVENT_DISPATCH {
            let lease = self.kept.get_cached(&context, &format!("_lease.{}", consumer.log)).await?;
            if let Some(Kept::Lease(lease)) = lease.map(|document| document.value) {
                published.extend(lease.published.get(context.tenant()).cloned().unwrap_or_default());
            }
        }
        if !request.event_type.is_empty() {
            published.retain(|event_type, _| *event_type == request.event_type);
        }
        Ok(StatsShown { published, recent: recent(&context, &request.event_type).await? })
    }
}

/// Tells of events behind a position (0: from now on), in order and each once.
async fn follow(
    context: &Context,
    log: &'static str,
    mut receiver: Receiver<Arc<Logged>>,
    after: u64,
    tell: &tokio::sync::mpsc::Sender<Arc<Logged>>,
) -> Result<(), Fault> {
    let mut told = match after {
        0 => context.store().log_figures(log).await?.last,
        after => read_missed(context, log, after, tell).await?,
    };
    context.begin_stream();
    loop {
        match receiver.recv().await {
            Ok(logged) if logged.sequence > told => {
                told = logged.sequence;
                if tell.send(logged).await.is_err() {
                    return Ok(());
                }
            }
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => told = read_missed(context, log, told, tell).await?,
            Err(RecvError::Closed) => {
                let text = "the log cannot be followed any more: connect again";
                return Err(Fault::upstream(crate::fault::Code::Unavailable, text));
            }
        }
    }
}

/// Reads behind a position up to what the log has now; gives the last position told.
async fn read_missed(
    context: &Context,
    log: &str,
    after: u64,
    tell: &tokio::sync::mpsc::Sender<Arc<Logged>>,
) -> Result<u64, Fault> {
    let mut told = after;
    let last = context.store().log_figures(log).await?.last;
    let mut reader = context.store().read_log(log, "evt.>", after).await?;
    while told < last {
        // The last ones may have been removed: then nothing more comes.
        let Ok(logged) = timeout(SILENCE, reader.next()).await else { break };
        let logged = logged?;
        told = logged.sequence;
        if tell.send(Arc::new(logged)).await.is_err() {
            break;
        }
    }
    Ok(told)
}

/// The last events of a type, oldest first; none where no type is named.
async fn recent(context: &Context, event_type: &str) -> Result<Vec<GameEvent>, Fault> {
    let (mut found, mut bytes) = (VecDeque::new(), 0);
    let Some(log) = log_of(event_type) else { return Ok(Vec::new()) };
    let mut reader = context.store().read_log(log, &format!("evt.{event_type}.v1"), 0).await?;
    while let Ok(logged) = timeout(SILENCE, reader.next()).await {
        let logged = logged?;
        let Ok(event) = context.decode::<GameEvent>(ENVELOPE, &logged.payload) else { continue };
        if super::subscriptions::tenant_of(&event) != context.tenant() {
            continue;
        }
        bytes += logged.payload.len();
        found.push_back((logged.payload.len(), event));
        while found.len() > RECENT_MAX || bytes > RECENT_BYTES_MAX {
            bytes -= found.pop_front().map_or(bytes, |(size, _)| size);
        }
    }
    Ok(found.into_iter().map(|(_, event)| event).collect())
}
