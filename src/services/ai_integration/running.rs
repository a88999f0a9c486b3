//! Generations that run on this replica, each with its cancel switch; and the way to those of the others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::fault::Fault;
use crate::worker::{Context, Heard};

/// Generations that one replica keeps a cancel switch for.
const RUNNING_MAX: usize = 4_096;
/// How long the owner of a generation has to say that it stops it.
const ACK_WAIT: Duration = Duration::from_millis(200);
/// Where all replicas hear what is to be cancelled.
const NOTICES: &str = "svc.ai.llm.v1.cancel_notice";
const MESSAGE: &str = "ai_integration.v1.CancelGenerationRequest";

/// The generations of this replica, by tenant and id: nobody stops those of another tenant.
#[derive(Default)]
pub(super) struct Running(Mutex<Switches>);

type Switches = HashMap<(String, String), watch::Sender<bool>>;

/// One that runs; dropping it takes its switch away.
pub(super) struct Generation<'r> {
    running: &'r Running,
    place: (String, String),
    is_cancelled: watch::Receiver<bool>,
}

/// What the replicas tell each other.
#[derive(Serialize, Deserialize)]
struct Notice {
    meta: Option<Meta>,
    generation_id: String,
}

/// Whose generation it is, of a call's context.
#[derive(Serialize, Deserialize)]
struct Meta {
    tenant_id: String,
}

impl Running {
    pub(super) fn add(&self, tenant: &str, id: &str) -> Generation<'_> {
        let (switch, is_cancelled) = watch::channel(false);
        let place = (tenant.to_owned(), id.to_owned());
        let mut running = self.lock();
        if running.len() < RUNNING_MAX {
            running.insert(place.clone(), switch);
        }
        Generation { running: self, place, is_cancelled }
    }

    /// Stops a generation wherever it runs; false where nobody runs it.
    pub(super) async fn cancel(&self, context: &Context, id: &str) -> Result<bool, Fault> {
        if self.stop(context.tenant(), id) {
            return Ok(true);
        }
        let meta = Some(Meta { tenant_id: context.tenant().to_owned() });
        let notice = Notice { meta, generation_id: id.to_owned() };
        context.ask_any(NOTICES, MESSAGE, &notice, ACK_WAIT).await
    }

    /// Stops what other replicas were told to cancel; ends with the worker.
    pub(super) async fn hear(&self, context: &Context) {
        let mut notices = match context.listen(NOTICES).await {
            Ok(notices) => notices,
            Err(fault) => {
                tracing::error!(%fault, "generations cannot be cancelled from other replicas");
                return;
            }
        };
        loop {
            let heard = tokio::select! {
                _ = context.until_cancelled() => return,
                heard = notices.next() => heard,
            };
            let Some(heard) = heard else { return };
            if let Err(fault) = self.obey(&heard).await {
                tracing::warn!(%fault, "a cancel notice was not answered");
            }
        }
    }

    async fn obey(&self, heard: &Heard) -> Result<(), Fault> {
        let Notice { meta, generation_id } = heard.read(MESSAGE)?;
        let tenant = meta.map_or_else(String::new, |meta| meta.tenant_id);
        if self.stop(&tenant, &generation_id) { heard.answer().await } else { Ok(()) }
    }

    /// True where it runs here and nobody has stopped it yet.
    fn stop(&self, tenant: &str, id: &str) -> bool {
        let place = (tenant.to_owned(), id.to_owned());
        self.lock().get(&place).is_some_and(|switch| !switch.send_replace(true))
    }

    fn lock(&self) -> MutexGuard<'_, Switches> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generation<'_> {
    /// Returns once somebody has cancelled it.
    pub(super) async fn until_cancelled(&mut self) {
        if self.is_cancelled.wait_for(|is_cancelled| *is_cancelled).await.is_err() {
            // It has no switch, because too many run: nobody can cancel it.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        self.running.lock().remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_stops_a_generation_of_another_tenant() {
        let running = Running::default();
        let (mine, theirs) = (running.add("a", "gen_1"), running.add("b", "gen_1"));
        assert!(!running.stop("c", "gen_1"), "nobody's");
        assert!(running.stop("a", "gen_1"));
        assert!(!running.stop("a", "gen_1"), "it has been stopped");
        assert_eq!((*mine.is_cancelled.borrow(), *theirs.is_cancelled.borrow()), (true, false));
    }
}
