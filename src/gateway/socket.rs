//! A connection's socket: reading it without a wasted call, closing it so that the last answer arrives, and which
//! protocol its first bytes speak.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection's socket, for those who answer on it for long.
pub(super) struct Socket {
    pub(super) tcp: TcpStream,
    /// The answer that is on its way is the connection's last.
    pub(super) is_last: AtomicBool,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream) -> Arc<Socket> {
        Arc::new(Socket { tcp, is_last: AtomicBool::new(false) })
    }

    /// No further request is read behind the present answer.
    pub(super) fn end_behind_this_answer(&self) {
        self.is_last.store(true, Ordering::Relaxed);
    }

    /// True once the client has closed its side; the task is woken when it does.
    pub(super) fn is_gone(&self, context: &mut Context<'_>) -> bool {
        let mut byte = [0];
        match self.tcp.poll_peek(context, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(read)) => read == 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        }
    }
}

/// Reads once, into memory that nobody has to clear first. A read that leaves room has emptied the socket; the runtime
/// is told so, which saves the read that would only say "not now".
pub(super) fn read_once(socket: &TcpStream, buffer: &mut ReadBuf<'_>) -> io::Result<usize> {
    let mut done = None;
    let tried = socket.try_io(Interest::READABLE, || {
        let read = socket.try_read_buf(buffer)?;
        done = Some(read);
        if read > 0 && buffer.remaining() > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match done {
        Some(read) => Ok(read),
        None => tried.map(|()| 0),
    }
}

/// Writes the refusal as the connection's last answer, and reads what the client still sends for a moment, so that
/// the kernel does not throw the answer away with a reset.
pub(super) async fn close(socket: &TcpStream, last: Option<Vec<u8>>) {
    const LINGER: Duration = Duration::from_millis(500);
    if let Some(bytes) = last {
        let write = async {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() && socket.writable().await.is_ok() {
                match socket.try_write(rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        if tokio::time::timeout(LINGER, write).await.is_err() {
            return;
        }
        let _ = socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write);
        let drain = async {
            let mut block = [0; 4096];
            while socket.readable().await.is_ok() {
                match socket.try_read(&mut block) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}

/// The first bytes say which protocol it is.
pub(super) async fn is_http2(socket: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut block = [0; 24];
    let mut pause = Duration::from_millis(1);
    loop {
        let read = socket.peek(&mut block).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if block[..read] != PREFACE[..read.min(PREFACE.len())] {
            return Ok(false);
        }
        if read >= PREFACE.len() {
            return Ok(true);
        }
        // A part of the preface: the rest is not long in coming, or the time-out ends the wait. The pause doubles,
        // so that many such clients cost next to nothing.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(128));
    }
}
