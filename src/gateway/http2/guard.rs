//! One HTTP/2 connection's bytes on their way to hyper and back: frames are counted as they pass, a flood of them or a
//! write that does not move ends the connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::super::ConnectionLimits;
use super::super::stall::Stall;
use super::meter::{Allowance, Frames};

/// Bytes before a client's first frame.
const PREFACE: usize = 24;
/// RFC 9113 §7.
const ENHANCE_YOUR_CALM: u32 = 11;

/// What the connection ends with, once hyper has let go of it.
#[derive(Clone, Default)]
pub(super) struct Farewell(Arc<Mutex<Option<Vec<u8>>>>);

impl Farewell {
    fn set(&self, bytes: Vec<u8>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
    }

    pub(super) fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A socket that hyper reads and writes.
pub(super) struct Guard {
    socket: Arc<TcpStream>,
    stall: Stall,
    received: Frames,
    sent: Frames,
    allowance: Allowance,
    /// The highest stream that the client has opened.
    last_stream: u32,
    is_flooded: bool,
    farewell: Farewell,
}

impl Guard {
    /// Wraps a socket from whose beginning nothing has been read.
    pub(super) fn new(socket: Arc<TcpStream>, limits: &ConnectionLimits, farewell: Farewell) -> Guard {
        Guard {
            socket,
            stall: Stall::new(limits.write_stall),
            received: Frames::behind(PREFACE),
            sent: Frames::default(),
            allowance: Allowance::new(Instant::now()),
            last_stream: 0,
            is_flooded: false,
            farewell,
        }
    }

    fn note_received(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Guard { received, allowance, last_stream, is_flooded, .. } = self;
        received.advance(bytes, |frame| {
            *last_stream = frame.stream.max(*last_stream);
            *is_flooded |= !allowance.spend(frame, Instant::now);
        });
        if self.is_flooded {
            metrics::counter!(crate::telemetry::CONNECTION_LIMITS, "limit" => "http2_frames").increment(1);
            return Err(io::Error::other("too many HTTP/2 frames without a request or a body"));
        }
        Ok(())
    }

    fn note_sent(&mut self, bytes: &[u8]) {
        let Guard { sent, allowance, .. } = self;
        sent.advance(bytes, |frame| allowance.note_sent(frame));
    }
}

impl Drop for Guard {
    /// hyper does not know why the bytes ended, so that the last word to a flood is ours, where no frame is cut by it.
    fn drop(&mut self) {
        if self.is_flooded && self.sent.is_between() {
            let (last, reason) = (self.last_stream.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes());
            const DEBUG: &[u8] = b"too_many_frames";
            let head = [0, 0, 8 + DEBUG.len() as u8, 7, 0, 0, 0, 0, 0];
            self.farewell.set([&head, last.as_slice(), &reason, DEBUG].concat());
        }
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.socket.poll_read_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Poll::Pending,
            }
            match self.socket.try_read(buffer.initialize_unfilled()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(read) => {
                    let before = buffer.filled().len();
                    buffer.advance(read);
                    return Poll::Ready(self.note_received(&buffer.filled()[before..]));
                }
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let result = me.stall.poll_write(&me.socket, context, |socket| socket.try_write(bytes));
        if let Poll::Ready(Ok(written)) = result {
            me.note_sent(&bytes[..written]);
        }
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let me = &mut *self;
        let result = me.stall.poll_write(&me.socket, context, |socket| socket.try_write_vectored(slices));
        if let Poll::Ready(Ok(mut written)) = result {
            for slice in slices {
                let len = written.min(slice.len());
                me.note_sent(&slice[..len]);
                written -= len;
            }
        }
        result
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The caller closes the socket, behind a farewell where there is one.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
