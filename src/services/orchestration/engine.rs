//! Carries executions on: a work item goes to one replica, which begins what can begin, makes the calls and stores what
//! comes of them. Where a replica dies, its item goes to another, which takes its steps over under the same keys.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::calls::Caller;
use super::execution::{Execution, Job, Moves, Status};
use super::{Orchestration, work_notice};
use crate::fault::Fault;
use crate::services::notices::GameEvent;
use crate::store::{Keys, Logged, key};
use crate::worker::records::{Change, Current, RecordSeen};
use crate::worker::{Context, Failed, Setback};

/// How often steps of others are looked at again.
const LOOK: Duration = Duration::from_secs(1);
/// How long an execution may stand still before its work is queued anew, and how often that is looked for.
const STILL: Duration = Duration::from_secs(60);
const WATCHDOG: Duration = Duration::from_secs(5);

/// `orchestration.v1.GetStatusRequest`: whose work it is.
#[derive(Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) execution_id: String,
}

/// An execution and what to do for it.
#[derive(Serialize, Deserialize)]
struct Turn {
    execution: Execution,
    moves: Moves,
}

type Outcome = (Job, Result<Vec<u8>, String>);

impl Orchestration {
    /// Handles a work item: returns once the execution is over.
    pub(super) async fn work(self: Arc<Self>, context: Context, event: Logged) -> Result<(), Setback> {
        let event: GameEvent = context.decode("event_bus.v1.GameEvent", &event.payload)?;
        let work: Work = context.decode("orchestration.v1.GetStatusRequest", &event.payload)?;
        let tenant = event.metadata.get("tenant_id").map_or("", String::as_str);
        let context = context.for_tenant(tenant);
        let place = key(&[tenant, &work.execution_id]);
        if self.executions.get(&context, &place).await?.is_none() {
            // It has expired.
            return Ok(());
        }
        self.carry_on(&context, &place).await
    }

    async fn carry_on(self: &Arc<Self>, context: &Context, place: &str) -> Result<(), Setback> {
        let mut watch = self.executions.watch(Keys::One(place.to_owned()), None).await?;
        let mut calls: JoinSet<Outcome> = JoinSet::new();
        let mut turn = self.turn(context, place, |execution, _| execution.take()).await?;
        let mut is_abandoned = false;
        loop {
            if turn.execution.status == Status::Cancelled && !is_abandoned {
                // What runs is abandoned; what is to be undone comes now.
                calls.abort_all();
                is_abandoned = true;
            }
            if turn.execution.is_over() {
                return Ok(());
            }
            let execution = Arc::new(turn.execution);
            for job in turn.moves.jobs {
                let caller = Caller::new(context, &execution, self.settings.now().orchestration.for_each_parallel);
                calls.spawn(async move {
                    let outcome = caller.make(&job).await;
                    (job, outcome)
                });
            }
            turn = tokio::select! {
                Some(ended) = calls.join_next(), if !calls.is_empty() => match ended {
                    Ok((job, outcome)) => self.finish(context, place, &job, &outcome).await?,
                    Err(error) if error.is_cancelled() => self.turn(context, place, |_, _| ()).await?,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                seen = watch.next(context) => {
                    if let RecordSeen::Change { document: None, .. } = seen? {
                        return Ok(());
                    }
                    self.turn(context, place, |_, _| ()).await?
                }
                () = tokio::time::sleep(LOOK) => self.turn(context, place, |_, _| ()).await?,
            };
        }
    }

    async fn finish(
        &self,
        context: &Context,
        place: &str,
        job: &Job,
        outcome: &Result<Vec<u8>, String>,
    ) -> Result<Turn, Fault> {
        let outcome = outcome.as_ref().map(Vec::as_slice).map_err(String::as_str);
        self.turn(context, place, |execution, now_ms| execution.finish(job, outcome, now_ms)).await
    }

    /// Changes an execution and lets it go on, in one write; none where nothing changes.
    async fn turn(&self, context: &Context, place: &str, change: impl Fn(&mut Execution, i64)) -> Result<Turn, Fault> {
        let rule = |current: &Current<Execution>| {
            let Some(before) = &current.value else { return Err(Failed::from(gone())) };
            let mut execution = before.clone();
            change(&mut execution, current.now_ms);
            let moves = execution.advance(current.now_ms);
            let is_same = !moves.is_changed && is_equal(before, &execution);
            let turn = Turn { execution: execution.clone(), moves };
            if is_same {
                return Ok(Change::nothing(turn));
            }
            self.changed(context, before.status, execution, turn, current.now_ms).map_err(Failed::from)
        };
        Ok(self.executions.change(context, place, rule).await.map_err(|failed| failed.fault)?.reply)
    }

    /// Queues the work of executions anew that stand still: their item was given up, or their replica died too often.
    pub(super) async fn watchdog(self: Arc<Self>, context: Context) {
        while context.cancelled().is_none() {
            if let Err(fault) = self.watch_over(&context).await {
                tracing::warn!(%fault, "executions that stand still are looked for again");
                tokio::select! {
                    () = tokio::time::sleep(WATCHDOG) => {}
                    _ = context.until_cancelled() => return,
                }
            }
        }
    }

    async fn watch_over(&self, context: &Context) -> Result<(), Fault> {
        let mut watch = self.executions.watch(Keys::All, None).await?;
        let mut open: HashMap<String, (Instant, String)> = HashMap::new();
        let mut looks = tokio::time::interval(WATCHDOG);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                seen = watch.next(context) => if let RecordSeen::Change { key, document, .. } = seen? {
                    match document.filter(|document| !document.value.is_over()) {
                        Some(document) => drop(open.insert(key, (Instant::now(), document.value.requester.tenant().to_owned()))),
                        None => drop(open.remove(&key)),
                    }
                },
                _ = looks.tick() => {
                    let still = open.iter_mut().filter(|(_, (since, _))| since.elapsed() >= STILL);
                    for (place, (since, tenant)) in still {
                        *since = Instant::now();
                        self.queue_anew(&context.for_tenant(tenant), place).await?;
                    }
                }
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }

    /// Of two replicas that see it stand still one queues it: the other one finds it just changed.
    async fn queue_anew(&self, context: &Context, place: &str) -> Result<(), Fault> {
        let rule = |current: &Current<Execution>| {
            let is_still = current.now_ms - current.updated_ms >= STILL.as_millis() as i64;
            let Some(before) = &current.value else { return Ok(Change::nothing(())) };
            if !is_still || before.is_over() || before.is_leased(current.now_ms) {
                return Ok(Change::nothing(()));
            }
            let mut execution = before.clone();
            execution.works += 1;
            let work = work_notice(context, &execution)?;
            Ok(self.kept(execution, (), current.now_ms).event(work))
        };
        self.executions.change(context, place, rule).await.map(drop).map_err(|failed: Failed<()>| failed.fault)
    }
}

fn gone() -> Fault {
    Fault::ours(crate::fault::Code::NotFound, "the execution has expired")
}

/// Equal as stored.
fn is_equal(one: &Execution, other: &Execution) -> bool {
    serde_json::to_vec(one).ok() == serde_json::to_vec(other).ok()
}
