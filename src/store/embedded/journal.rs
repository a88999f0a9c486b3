//! What keeps a bucket or log beyond this process: a disk, or nothing. Memory is written first and tells its changes;
//! whoever acknowledges or shows one waits until the disk has it.

use std::sync::Arc;

use super::super::StoreError;
use super::disk::{Disk, Row, Ticket};

/// The disk behind a bucket or log, where there is one.
#[derive(Clone, Default)]
pub(super) struct Backing(pub(super) Option<Arc<Disk>>);

/// Changes of one state, in order; it lives under the same lock.
pub(super) struct Journal {
    backing: Backing,
    rows: Vec<Row>,
    /// Of the newest change.
    newest: Ticket,
}

impl Backing {
    /// Waits until a change may be made.
    pub(super) async fn room(&self) -> Result<(), StoreError> {
        match &self.0 {
            Some(disk) => disk.room().await,
            None => Ok(()),
        }
    }

    /// Waits until a change is on disk.
    pub(super) async fn until(&self, ticket: Ticket) -> Result<(), StoreError> {
        match &self.0 {
            Some(disk) => disk.until(ticket).await,
            None => Ok(()),
        }
    }
}

impl Journal {
    pub(super) fn new(backing: &Backing) -> Journal {
        Journal { backing: backing.clone(), rows: Vec::new(), newest: Ticket::default() }
    }

    /// Notes a change; nothing is made of it where there is no disk.
    pub(super) fn note(&mut self, row: impl FnOnce() -> Row) {
        if self.backing.0.is_some() {
            self.rows.push(row());
        }
    }

    /// Hands over what has been noted; returns the ticket of the newest change.
    pub(super) fn hand_over(&mut self) -> Ticket {
        if let Some(disk) = self.backing.0.as_ref().filter(|_| !self.rows.is_empty()) {
            self.newest = disk.send(std::mem::take(&mut self.rows));
        }
        self.newest
    }
}
