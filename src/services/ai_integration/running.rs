//! Generations that run on this replica, each with its cancel switch; and the way to those of the others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::messages::Cancel;
use crate::fault::Fault;
use crate::worker::{Context, Heard};

/// Generations that one replica keeps a cancel switch for.
const RUNNING_MAX: usize = 4_096;
/// How long the owner of a generation has to say that it stops it.
const ACK_WAIT: Duration = Duration::from_millis(200);
/// Where all replicas hear what is to be cancelled.
const NOTICES: &str = "svc.ai.llm.v1.cancel_notice";
const MESSAGE: &str = "ai_integration.v1.CancelGenerationRequest";

/// The generations of this replica.
#[derive(Default)]
pub(super) struct Running(Mutex<HashMap<String, watch::Sender<bool>>>);

/// One that runs; dropping it takes its switch away.
pub(super) struct Generation<'r> {
    running: &'r Running,
    id: String,
    is_cancelled: watch::Receiver<bool>,
}

impl Running {
    pub(super) fn add(&self, id: &str) -> Generation<'_> {
        let (switch, is_cancelled) = watch::channel(false);
        let mut running = self.lock();
        if running.len() < RUNNING_MAX {
            running.insert(id.to_owned(), switch);
        }
        Generation { running: self, id: id.to_owned(), is_cancelled }
    }

    /// Stops a generation wherever it runs; false where nobody runs it.
    pub(super) async fn cancel(&self, context: &Context, id: &str) -> Result<bool, Fault> {
        if self.stop(id) {
            return Ok(true);
        }
        let notice = Cancel { generation_id: id.to_owned() };
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
        let notice: Cancel = heard.read(MESSAGE)?;
        if self.stop(&notice.generation_id) { heard.answer().await } else { Ok(()) }
    }

    /// True where it runs here and nobody has stopped it yet.
    fn stop(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|switch| !switch.send_replace(true))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<bool>>> {
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
        self.running.lock().remove(&self.id);
    }
}
