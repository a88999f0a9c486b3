//! What the connection's events tell: its status, how often it was lost, and what a full channel dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_nats::Event;
use tokio::sync::watch;

use super::super::Status;

/// The state of one connection, shared by everything on it.
pub(super) struct Link {
    status: watch::Sender<Status>,
    /// Connections lost so far. A number, not the status: a loss that is over before anyone looks still counts.
    losses: watch::Sender<u64>,
    connects: AtomicU64,
    dropped: AtomicU64,
    is_dropping: AtomicBool,
}

impl Link {
    pub(super) fn new() -> Arc<Link> {
        Arc::new(Link {
            status: watch::Sender::new(Status::Connecting),
            losses: watch::Sender::new(0),
            connects: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            is_dropping: AtomicBool::new(false),
        })
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn now(&self) -> Status {
        *self.status.borrow()
    }

    pub(super) fn losses(&self) -> watch::Receiver<u64> {
        self.losses.subscribe()
    }

    pub(super) fn lost(&self) -> u64 {
        *self.losses.borrow()
    }

    pub(super) fn reconnects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed).saturating_sub(1)
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.status.send_replace(Status::Closed);
    }

    /// Sets the status unless we have closed; gives what it was.
    fn set(&self, next: Status) -> Status {
        let mut before = next;
        self.status.send_if_modified(|now| {
            before = *now;
            if *now == Status::Closed || *now == next {
                return false;
            }
            *now = next;
            true
        });
        before
    }

    pub(super) fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connects.fetch_add(1, Ordering::Relaxed);
                self.is_dropping.store(false, Ordering::Relaxed);
                if self.set(Status::Connected) == Status::Connected {
                    // The client sheds events when they come in floods: this loss was never told.
                    self.losses.send_modify(|count| *count += 1);
                }
                tracing::info!("bus connected");
            }
            Event::Disconnected => {
                self.set(Status::Disconnected);
                self.losses.send_modify(|count| *count += 1);
                tracing::warn!("bus disconnected");
            }
            Event::LameDuckMode => {
                self.set(Status::LameDuck);
                tracing::warn!("the bus server is about to stop; this connection moves when it does");
            }
            Event::SlowConsumer(subscription) => {
                self.count_dropped();
                // Told once a connection, counted each time: the flood is worst when the log is needed most.
                if !self.is_dropping.swap(true, Ordering::Relaxed) {
                    tracing::warn!(subscription, "the client's channel of a subscription is full: messages are lost");
                }
            }
            other => tracing::info!(event = %other, "bus"),
        }
    }
}
