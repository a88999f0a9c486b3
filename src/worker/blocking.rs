//! What handlers must not do to their thread: work that computes goes to a pool, and time without a yield is counted.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::Counter;
use tokio::sync::Semaphore;

use super::Context;
use crate::telemetry::STALLS;

/// Longest time without a yield: all that a thread serves waits for it.
const STALL: Duration = Duration::from_millis(5);

impl Context {
    /// Does work that computes for more than some milliseconds on a thread of the pool, which has as many as the machine
    /// has processors; more work waits for its turn. Work that has begun goes on when its caller is gone:
    /// [`Context::cancelled`] tells it so.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let pool: Arc<Semaphore> = self.around().pool.clone();
        // Never closed, so that there is always a permit in the end.
        let permit = pool.acquire_owned().await;
        let running = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        match running.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// What is counted for a method, a consumer or a task of a service.
pub(super) fn stalls(service: &str, name: &str) -> Counter {
    metrics::counter!(STALLS, "service" => service.to_owned(), "method" => name.to_owned())
}

/// Counts where the work keeps its thread for too long.
pub(super) async fn watched<T>(stalls: &Counter, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|waker| {
        let started = Instant::now();
        let polled = work.as_mut().poll(waker);
        if started.elapsed() > STALL {
            stalls.increment(1);
        }
        polled
    })
    .await
}
