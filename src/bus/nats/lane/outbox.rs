//! What the lane has to send: requests are written here as they go on the wire, by the tasks that make them; the lane's
//! task takes all of it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use super::super::super::headers::{CLOSING, OPENING};
use super::super::super::{BusError, Headers};

/// Bytes that wait for the socket before requests go another way.
const WAITING_MAX: usize = 8 * 1024 * 1024;
/// Memory that a buffer keeps while it is empty.
const KEPT_MAX: usize = 256 * 1024;

/// Bytes on their way out.
#[derive(Default)]
pub(in crate::bus::nats) struct Outbox {
    /// Connected, and not too far behind. A hint for those who come: what counts is under the lock.
    takes: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    is_open: bool,
    is_leaving: bool,
    /// The lane's task, where it sleeps.
    task: Option<Waker>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True where a request may go this way now.
    pub(super) fn takes(&self) -> bool {
        self.takes.load(Ordering::Acquire)
    }

    pub(super) fn open(&self) {
        self.lock().is_open = true;
        self.takes.store(true, Ordering::Release);
    }

    /// Requests go another way from now on; those that have come already are sent.
    pub(super) fn leave(&self) {
        self.lock().is_leaving = true;
        self.takes.store(false, Ordering::Release);
    }

    /// From here on nothing is taken, and what waits is gone: whoever waits for its answer is told.
    pub(super) fn close(&self) {
        self.takes.store(false, Ordering::Release);
        *self.lock() = Waiting::default();
    }

    /// Writes a request.
    pub(in crate::bus::nats) fn publish(
        &self,
        subject: &str,
        reply: &str,
        headers: &Headers,
        payload: &[u8],
    ) -> Result<(), BusError> {
        let mut waiting = self.lock();
        if !waiting.is_open {
            return Err(BusError::Disconnected);
        }
        let out = &mut waiting.bytes;
        let (head, total) = (headers.size(), headers.size() + payload.len());
        out.reserve(subject.len() + reply.len() + total + 32);
        let mut digits = itoa::Buffer::new();
        let verb: &[u8] = if head > 0 { b"HPUB " } else { b"PUB " };
        for part in [verb, subject.as_bytes(), b" ", reply.as_bytes(), b" "] {
            out.extend_from_slice(part);
        }
        if head > 0 {
            out.extend_from_slice(digits.format(head).as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(digits.format(total).as_bytes());
        out.extend_from_slice(b"\r\n");
        if head > 0 {
            for part in [OPENING, headers.lines(), CLOSING] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
        if out.len() > WAITING_MAX {
            self.takes.store(false, Ordering::Release);
        }
        let task = waiting.task.take();
        drop(waiting);
        if let Some(task) = task {
            task.wake();
        }
        Ok(())
    }

    /// Gives what waits in place of `empty`; where nothing does, the task is woken when something comes.
    pub(super) fn swap(&self, empty: &mut Vec<u8>, context: &Context<'_>) {
        empty.clear();
        empty.shrink_to(KEPT_MAX);
        let mut waiting = self.lock();
        if waiting.bytes.is_empty() {
            match &mut waiting.task {
                Some(known) if known.will_wake(context.waker()) => {}
                task => *task = Some(context.waker().clone()),
            }
            return;
        }
        std::mem::swap(&mut waiting.bytes, empty);
        if waiting.is_open && !waiting.is_leaving {
            self.takes.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(outbox: &Outbox) -> String {
        let mut bytes = Vec::new();
        outbox.swap(&mut bytes, &Context::from_waker(Waker::noop()));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn requests_are_written_as_the_protocol_says() {
        let outbox = Outbox::default();
        assert_eq!(outbox.publish("a", "r", &Headers::new(), b""), Err(BusError::Disconnected));
        assert_eq!((outbox.takes(), taken(&outbox).as_str()), (false, ""));
        outbox.open();
        assert!(outbox.takes());
        let mut headers = Headers::new();
        headers.push("A", "1");
        outbox.publish("svc.a", "r.1", &Headers::new(), b"hi").unwrap();
        outbox.publish("svc.b", "r.2", &headers, b"hello").unwrap();
        assert_eq!(
            taken(&outbox),
            "PUB svc.a r.1 2\r\nhi\r\nHPUB svc.b r.2 18 23\r\nNATS/1.0\r\nA: 1\r\n\r\nhello\r\n"
        );
        outbox.leave();
        outbox.publish("svc.c", "r.3", &Headers::new(), b"").unwrap();
        assert_eq!((taken(&outbox).as_str(), outbox.takes()), ("PUB svc.c r.3 0\r\n\r\n", false));
        outbox.publish("svc.d", "r.4", &Headers::new(), b"").unwrap();
        outbox.close();
        assert_eq!((outbox.takes(), taken(&outbox).as_str()), (false, ""));
    }

    #[test]
    fn a_lane_that_lags_sends_requests_another_way_until_it_has_caught_up() {
        let outbox = Outbox::default();
        outbox.open();
        let payload = vec![0; 1024 * 1024];
        let mut taken_before_full = 0;
        while outbox.takes() {
            outbox.publish("a", "r", &Headers::new(), &payload).unwrap();
            taken_before_full += 1;
        }
        assert_eq!(taken_before_full, WAITING_MAX / payload.len());
        assert!(taken(&outbox).len() > WAITING_MAX);
        assert!(outbox.takes());
    }
}
