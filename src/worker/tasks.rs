//! Work of a service that runs beside its methods: started with the worker, told when it drains, started anew after a
//! panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::blocking::{stalls, watched};
use super::context::{Context, Surroundings};
use super::dispatch::panicked;
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
