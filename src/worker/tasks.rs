//! Work of a service that runs beside its methods: started with the worker, told when it drains, started anew after a
//! panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::Service;
use super::blocking::{stalls, watched};
use super::context::{Context, Surroundings};
use super::declared::Content;
use super::dispatch::panicked;
use super::records::Records;
use super::service::Running;
use super::until_true;

/// Pause before a task that panicked is started anew.
const RESTART: Duration = Duration::from_secs(1);

/// A task without its type.
pub(super) struct Task {
    pub(super) name: &'static str,
    pub(super) start: Arc<dyn Fn(Context) -> Running<()> + Send + Sync>,
}

/// Runs a task until it ends; once the worker drains, its context is cancelled.
pub(super) async fn run(around: Arc<Surroundings>, task: Task) {
    let mut draining = around.draining.clone();
    let stalls = stalls(&around.service, task.name);
    loop {
        let context = Context::own(&around, "");
        let work = AssertUnwindSafe(watched(&stalls, (task.start)(context.clone()))).catch_unwind();
        tokio::pin!(work);
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = until_true(&mut draining) => {
                context.cancel("draining");
                work.await
            }
        };
        let Err(panic) = ended else { return };
        tracing::error!(task = task.name, "a task panicked and is started anew");
        panicked(&context, &*panic);
        if *draining.borrow() {
            return;
        }
        tokio::time::sleep(RESTART).await;
    }
}

impl Service {
    /// Adds the task that sends what a crash has left unsent of these documents, and removes what has expired.
    #[must_use]
    pub fn sweeping<T: Content>(self, name: &'static str, records: &Records<T>) -> Service {
        let records = records.clone();
        self.task(name, move |context| {
            let records = records.clone();
            async move { records.sweeper(&context).await }
        })
    }
}
