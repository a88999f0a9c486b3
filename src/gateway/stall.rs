//! Writes that do not move: a client that stops reading is waited for a while, and then its connection ends.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// The clock of one connection's writes; it runs only while one is held up.
pub(super) struct Stall {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Stall {
        Stall { limit, timer: None }
    }

    /// Writes once the socket takes something; fails with `TimedOut` where it takes nothing for too long.
    pub(super) fn poll_write(
        &mut self,
        socket: &TcpStream,
        context: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Poll::Ready(ready) = socket.poll_write_ready(context) {
                ready?;
            } else {
                self.poll_limit(context)?;
                return Poll::Pending;
            }
            match write(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.timer = None;
                    return Poll::Ready(result);
                }
            }
        }
    }

    fn poll_limit(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(limit)));
        if timer.as_mut().poll(context).is_ready() {
            metrics::counter!(crate::telemetry::CONNECTION_LIMITS, "limit" => "write_stall").increment(1);
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}
