//! What the connection's events tell: its status, how often it was lost, and what a full channel dropped.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Event, ServerError};
use tokio::sync::watch;

use super::super::Status;

/// Most subjects that are remembered as refused.
const REFUSED_MAX: usize = 256;

/// The state of one connection, shared by everything on it.
pub(super) struct Link {
    status: watch::Sender<Status>,
    /// Connections lost so far. A number, not the status: a loss that is over before anyone looks still counts.
    losses: watch::Sender<u64>,
    connects: AtomicU64,
    dropped: AtomicU64,
    is_dropping: AtomicBool,
    /// Where the replies to our requests come in.
    inbox: String,
    /// Subjects that this connection's user may not publish to, as far as it has been told.
    refused: Mutex<HashSet<String>>,
    has_refused: AtomicBool,
    /// New calls wait: the connection moves to another server.
    is_held: watch::Sender<bool>,
}

impl Link {
    pub(super) fn new(user: &str) -> Arc<Link> {
        Arc::new(Link {
            status: watch::Sender::new(Status::Connecting),
            losses: watch::Sender::new(0),
            connects: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            is_dropping: AtomicBool::new(false),
            inbox: format!("_INBOX.{user}."),
            refused: Mutex::default(),
            has_refused: AtomicBool::new(false),
            is_held: watch::Sender::new(false),
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

    pub(super) fn hold(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    /// Returns once calls may begin; false where that takes longer than `limit`.
    pub(super) async fn may_begin(&self, limit: Duration) -> bool {
        if !*self.is_held.borrow() {
            return true;
        }
        let mut is_held = self.is_held.subscribe();
        tokio::time::timeout(limit, is_held.wait_for(|is_held| !is_held)).await.is_ok()
    }

    fn refused(&self) -> MutexGuard<'_, HashSet<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True where the server has said that we may not publish there.
    pub(super) fn is_refused(&self, subject: &str) -> bool {
        self.has_refused.load(Ordering::Relaxed) && self.refused().contains(subject)
    }

    /// What the server refuses, in its words.
    pub(super) fn note_error(&self, text: &str) {
        match MissingRight::of(text) {
            Some(right) => self.note_missing_right(&right),
            None => tracing::error!(error = text, "the bus server refuses"),
        }
    }

    /// What a missing right means: without our inbox nothing can work, without one subject all others can.
    fn note_missing_right(&self, right: &MissingRight<'_>) {
        match right {
            MissingRight::Subscribe(subject) => {
                tracing::error!(subject, "the bus user has no right to subscribe here");
                if subject.starts_with(&self.inbox) {
                    self.set(Status::Forbidden);
                }
            }
            MissingRight::Publish(subject) => {
                let mut refused = self.refused();
                if refused.len() < REFUSED_MAX && refused.insert((*subject).to_owned()) {
                    tracing::error!(subject, "the bus user has no right to publish here");
                }
                self.has_refused.store(true, Ordering::Relaxed);
            }
        }
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

    /// Notes a new connection.
    pub(super) fn opened(&self) {
        self.connects.fetch_add(1, Ordering::Relaxed);
        self.is_dropping.store(false, Ordering::Relaxed);
        self.has_refused.store(false, Ordering::Relaxed);
        self.refused().clear();
        if self.set(Status::Connected) == Status::Connected {
            // The client sheds events when they come in floods: this loss was never told.
            self.losses.send_modify(|count| *count += 1);
        }
    }

    /// Notes the loss of the connection.
    pub(super) fn broke(&self) {
        self.set(Status::Disconnected);
        self.losses.send_modify(|count| *count += 1);
    }

    pub(super) fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.opened();
                tracing::info!("bus connected");
            }
            Event::Disconnected => {
                self.broke();
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
            Event::ServerError(ServerError::AuthorizationViolation) => {
                tracing::error!("the bus server does not know this user: its credentials are wrong or have expired");
            }
            Event::ServerError(ServerError::Other(text)) => self.note_error(text),
            other => tracing::info!(event = %other, "bus"),
        }
    }
}

/// A right that the server says is missing.
#[derive(Debug, PartialEq, Eq)]
enum MissingRight<'t> {
    Publish(&'t str),
    Subscribe(&'t str),
}

impl MissingRight<'_> {
    /// Reads `Permissions Violation for Publish to "SUBJECT"`, as nats-server writes it.
    fn of(text: &str) -> Option<MissingRight<'_>> {
        let mut quoted = text.split('"');
        let (before, subject) = (quoted.next()?.to_ascii_lowercase(), quoted.next()?);
        match before.trim() {
            "permissions violation for publish to" => Some(MissingRight::Publish(subject)),
            "permissions violation for subscription to" => Some(MissingRight::Subscribe(subject)),
            _ => None,
        }
    }
}
