//! One HTTP/1 connection's bytes on their way to hyper: requests are followed and their heads checked before hyper
//! reads them; a head that comes too slowly, a silent connection and a write that does not move end it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::ConnectionLimits;
use super::framing::Follower;
use super::socket::{Socket, read_once};
use super::stall::Stall;
use crate::fault::{Code, Fault, Reason};

/// The refusal that the connection ends with, once hyper has let go of it.
#[derive(Clone, Default)]
pub(super) struct Refusal(Arc<Mutex<Pending>>);

#[derive(Default)]
struct Pending {
    fault: Option<Fault>,
    /// The fault is inside a request that hyper has begun to read, and may answer.
    is_inside_request: bool,
    /// Bytes written since that request's head was passed on.
    written: u64,
}

impl Refusal {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The refusal that nobody has answered yet.
    pub(super) fn take(&self) -> Option<Fault> {
        let mut pending = self.lock();
        let is_answered = pending.is_inside_request && pending.written > 0;
        pending.fault.take().filter(|_| !is_answered)
    }
}

/// What the timer of a connection measures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clock {
    /// A body is on its way; its reader has a clock of its own.
    Off,
    /// The next request is awaited.
    Idle,
    /// A head has begun.
    Head,
}

/// A socket that hyper reads and writes.
pub(super) struct Connection {
    socket: Arc<Socket>,
    limits: ConnectionLimits,
    follower: Follower,
    /// The beginning of a head, or bytes behind a whole one that hyper had no room for.
    held: Vec<u8>,
    /// Bytes of `held` that may be passed on.
    released: usize,
    /// Runs while a head or a next request is awaited. It may ring early: setting it costs more than looking again,
    /// so it is only set where it would ring too late.
    timer: Pin<Box<Sleep>>,
    clock: Clock,
    /// When the present clock runs out.
    due: Instant,
    /// The idle limit counts from now on: a request has been read, or something was written.
    is_touched: bool,
    /// Bytes written since the present request's head was passed on.
    written: u64,
    stall: Stall,
    refusal: Refusal,
    is_over: bool,
}

impl Connection {
    /// Wraps a socket whose first byte has come.
    pub(super) fn new(socket: Arc<Socket>, limits: ConnectionLimits, refusal: Refusal) -> Connection {
        let (timer, stall) = (Box::pin(sleep(limits.head)), Stall::new(limits.write_stall));
        let due = timer.deadline();
        Connection {
            socket,
            limits,
            follower: Follower::new(),
            held: Vec::new(),
            released: 0,
            timer,
            clock: Clock::Head,
            due,
            is_touched: false,
            written: 0,
            stall,
            refusal,
            is_over: false,
        }
    }

    /// Hands out what is released.
    fn pass_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let len = self.released.min(buffer.remaining());
        buffer.put_slice(&self.held[..len]);
        self.held.drain(..len);
        self.released -= len;
        if self.held.is_empty() {
            self.held = Vec::new();
        }
    }

    /// Ends the connection with an answer of ours.
    fn refuse(&mut self, fault: Fault, is_inside_request: bool) {
        self.is_over = true;
        let mut pending = self.refusal.lock();
        if pending.fault.is_none() {
            *pending = Pending { fault: Some(fault), is_inside_request, written: self.written };
        }
    }

    /// A new request begins with nothing written.
    fn note_heads(&mut self, before: u64) {
        if self.follower.heads != before {
            self.written = 0;
        }
    }

    /// Notes what hyper writes; a refusal inside a request asks for it.
    fn note_written(&mut self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = result {
            self.is_touched = true;
            self.written += *written as u64;
            if self.is_over {
                self.refusal.lock().written = self.written;
            }
        }
    }

    /// Follows what is held; true where something may be passed on.
    fn follow(&mut self) -> bool {
        let heads = self.follower.heads;
        match self.follower.advance(&self.held[self.released..], &self.limits) {
            Ok(len) => {
                self.released += len;
                self.note_heads(heads);
                self.watch_the_clock(len);
            }
            Err(violation) => self.refuse(violation.fault, violation.is_inside_request),
        }
        self.released > 0
    }

    /// The clock runs while a head is awaited: the idle limit before its first byte, the head limit from there. The
    /// pieces of one head share one limit; `released` bytes before it mean that it is a new one.
    fn watch_the_clock(&mut self, released: usize) {
        let clock = match (self.follower.is_at_head(), self.held.len() == self.released) {
            (false, _) => Clock::Off,
            (true, true) => Clock::Idle,
            (true, false) => Clock::Head,
        };
        if clock == Clock::Head && (self.clock != Clock::Head || released > 0) {
            self.count_from_now(self.limits.head);
        }
        self.clock = clock;
        self.is_touched = clock == Clock::Idle;
    }

    fn count_from_now(&mut self, limit: Duration) {
        self.due = Instant::now() + limit;
        if self.timer.deadline() > self.due || self.timer.is_elapsed() {
            self.timer.as_mut().reset(self.due);
        }
    }

    /// The clock's word: an idle connection is closed, a slow head is told so.
    fn check_the_clock(&mut self, context: &mut Context<'_>) -> bool {
        if self.clock == Clock::Idle && std::mem::take(&mut self.is_touched) {
            // A connection is idle from the end of its last answer, not from the beginning of the request.
            self.count_from_now(self.limits.idle);
        }
        if self.clock == Clock::Off {
            return false;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if self.timer.deadline() >= self.due {
                return self.run_out();
            }
            self.timer.as_mut().reset(self.due);
        }
        false
    }

    fn run_out(&mut self) -> bool {
        if self.clock == Clock::Head {
            metrics::counter!(crate::telemetry::CONNECTION_LIMITS, "limit" => "head").increment(1);
            self.refuse(
                Fault::client(Code::DeadlineExceeded, "the request head came too slowly")
                    .reason(Reason::RequestTimeout),
                false,
            );
        }
        self.is_over = true;
        true
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        loop {
            if me.released > 0 {
                me.pass_on(buffer);
                return Poll::Ready(Ok(()));
            }
            let is_last = me.socket.is_last.load(Ordering::Relaxed);
            if me.is_over || is_last || me.check_the_clock(context) {
                return Poll::Ready(Ok(()));
            }
            match me.socket.tcp.poll_read_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Poll::Pending,
            }
            // With nothing held the bytes go straight into hyper's buffer, and are checked there.
            let result = if me.held.is_empty() { me.read_through(buffer) } else { me.read_held() };
            match result {
                Ok(Some(0)) => me.is_over = true,
                Ok(Some(_)) if buffer.filled().is_empty() => {
                    me.follow();
                }
                Ok(Some(_)) => return Poll::Ready(Ok(())),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Connection {
    /// Reads into hyper's buffer; what is not whole yet is taken back and held.
    fn read_through(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<Option<usize>> {
        let start = buffer.filled().len();
        let read = read_once(&self.socket.tcp, buffer)?;
        let bytes = &buffer.filled()[start..];
        let heads = self.follower.heads;
        let released = match self.follower.advance(bytes, &self.limits) {
            Ok(len) => {
                self.note_heads(heads);
                len
            }
            Err(violation) => {
                self.refuse(violation.fault, violation.is_inside_request);
                0
            }
        };
        if released < read && !self.is_over {
            self.held = bytes[released..].to_vec();
        }
        if read > 0 {
            self.watch_the_clock(released);
        }
        buffer.set_filled(start + released);
        if read > 0 && released == 0 {
            // A beginning of a head, or a refusal: the loop goes on without `follow`, which has nothing new to see.
            return Ok(None);
        }
        Ok(Some(read))
    }

    fn read_held(&mut self) -> io::Result<Option<usize>> {
        let mut block = [0; 4096];
        let read = self.socket.tcp.try_read(&mut block)?;
        self.held.extend_from_slice(&block[..read]);
        Ok(Some(read))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let result = me.stall.poll_write(&me.socket.tcp, context, |socket| socket.try_write(bytes));
        me.note_written(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let result = me.stall.poll_write(&me.socket.tcp, context, |socket| socket.try_write_vectored(slices));
        me.note_written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The listener closes the socket, behind a refusal where there is one.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
