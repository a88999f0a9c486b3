//! How far a worker may send ahead on a stream: counted in totals since its start, so that loss and repeats of what says
//! so are harmless.

use bytes::Bytes;

use crate::bus::{Delivery, Headers, Message, Subject};

/// Chunks and bytes that a worker may send before it hears from us.
const WINDOW_CHUNKS: u64 = 64;
const WINDOW_BYTES: u64 = 1024 * 1024;
/// The same as the header says it.
pub(super) const WINDOW: &str = "64 1048576";
/// Chunks between two grants of credit.
const CREDIT_EVERY: u64 = 16;

/// The credit of one stream.
#[derive(Default)]
pub(super) struct Credit {
    /// Where the worker hears us, once it has said so.
    control: Option<Subject>,
    chunks: u64,
    bytes: u64,
    granted: u64,
}

impl Credit {
    /// Notes where the worker hears us.
    pub(super) fn note_control(&mut self, delivery: &Delivery) {
        if delivery.reply.is_some() {
            self.control.clone_from(&delivery.reply);
        }
    }

    /// Notes a chunk of so many bytes that has left our hands.
    pub(super) fn note_taken(&mut self, bytes: u64) {
        self.chunks += 1;
        self.bytes += bytes;
    }

    /// Chunks that have left our hands.
    pub(super) fn chunks(&self) -> u64 {
        self.chunks
    }

    /// More credit, every few chunks, where the worker takes any.
    pub(super) fn due(&mut self) -> Option<Message> {
        if self.chunks - self.granted < CREDIT_EVERY {
            return None;
        }
        self.granted = self.chunks;
        let total = format!("{} {}", self.chunks + WINDOW_CHUNKS, self.bytes + WINDOW_BYTES);
        self.control("Tidegate-Credit", &total)
    }

    /// A control message to the worker, where it has said where to.
    pub(super) fn control(&self, name: &'static str, value: &str) -> Option<Message> {
        let subject = self.control.clone()?;
        let mut headers = Headers::with_capacity(1);
        headers.push(name, value);
        Some(Message { subject, reply: None, headers, payload: Bytes::new() })
    }
}
