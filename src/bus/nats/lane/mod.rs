//! The request lane: a second connection that carries requests and their replies, and nothing else.
//!
//! On it a request is written once, by the task that makes it, into the bytes that the next write takes, and its reply
//! is found in the bytes that were read: 7 k instructions, where async-nats needs 45 k for its command, its header maps
//! and its channels. All else stays with async-nats, which also takes the requests while the lane is not there: so the
//! lane knows no server but those it was told, and gives up where it would need TLS.

mod frames;
mod hello;
mod outbox;

use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_nats::{ServerAddr, ServerInfo};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::super::{BusError, Figures, Reply, Request, Status};
use super::link::Link;
use super::replies::{Replies, Way};
use super::{NatsOptions, PING, RECONNECT_MAX, jittered};

use frames::Said;
use hello::Refused;
pub(super) use outbox::Outbox;

/// Room to read into, and what is left of it when more is made.
const READ_ROOM: usize = 64 * 1024;
const READ_ROOM_MIN: usize = 4 * 1024;
/// How often we look whether a lane that is left is still needed.
const LOOK: Duration = Duration::from_millis(5);
/// Attempts to connect that fail before somebody is told.
const QUIET_ATTEMPTS: usize = 5;

/// The lane of one bus.
pub(super) struct Lane {
    replies: Arc<Replies>,
    outbox: Arc<Outbox>,
    link: Arc<Link>,
    keeper: AbortHandle,
    requests: AtomicU64,
}

impl Lane {
    /// Starts to connect, beside a bus that is connected.
    pub(super) fn start(options: NatsOptions, servers: Vec<ServerAddr>, user: &str, bus: Arc<Link>) -> Lane {
        let (outbox, link) = (Arc::new(Outbox::default()), Link::new(user));
        let replies = Replies::new(Way::Lane(outbox.clone()), user, link.clone());
        let keeper = Keeper {
            options,
            servers,
            outbox: outbox.clone(),
            link: link.clone(),
            replies: Arc::downgrade(&replies),
            bus,
        };
        let keeper = tokio::spawn(keeper.run()).abort_handle();
        Lane { replies, outbox, link, keeper, requests: AtomicU64::new(0) }
    }

    /// True where a request may go this way now.
    pub(super) fn takes(&self) -> bool {
        self.outbox.takes()
    }

    pub(super) async fn request(&self, request: Request<'_>) -> Result<Reply, BusError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.replies.request(request).await
    }

    pub(super) fn figures(&self) -> Figures {
        let (pending, strays) = (self.replies.pending(), self.replies.strays());
        Figures { pending, strays, on_lane: self.requests.load(Ordering::Relaxed), ..Figures::default() }
    }

    /// Ends it; who waits is told.
    pub(super) fn close(&self) {
        self.outbox.close();
        self.link.close();
        self.keeper.abort();
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Connects, and connects again.
struct Keeper {
    options: NatsOptions,
    servers: Vec<ServerAddr>,
    outbox: Arc<Outbox>,
    link: Arc<Link>,
    replies: Weak<Replies>,
    bus: Arc<Link>,
}

impl Keeper {
    async fn run(self) {
        let Some(pattern) = self.replies.upgrade().map(|replies| replies.pattern()) else { return };
        let mut attempts = 0;
        loop {
            // Without its bus the lane is of no use, and its server is down most likely.
            let mut bus = self.bus.status();
            let _ = bus.wait_for(|now| matches!(now, Status::Connected | Status::LameDuck | Status::Closed)).await;
            if self.bus.now() == Status::Closed {
                return;
            }
            let server = &self.servers[fastrand::usize(..self.servers.len())];
            match hello::connect(&self.options, server, &pattern).await {
                Ok((stream, input)) => {
                    let since = Instant::now();
                    let Some(replies) = self.replies.upgrade() else { return };
                    self.link.opened();
                    self.outbox.open();
                    tracing::info!("request lane connected");
                    let error = Line::new(stream, input, &replies, &self.outbox, &self.bus).run().await;
                    self.outbox.close();
                    self.link.broke();
                    tracing::info!(%error, "request lane lost");
                    // A server that takes every connection and drops it at once is no reason to hurry.
                    if since.elapsed() > RECONNECT_MAX {
                        attempts = 0;
                    }
                }
                Err(Refused::Unfit(why)) => return tracing::info!(why, "requests share the bus' connection"),
                Err(Refused::Failed(error)) if attempts == QUIET_ATTEMPTS => {
                    tracing::warn!(error, "the request lane does not connect; requests share the bus' connection");
                }
                Err(Refused::Failed(_)) => {}
            }
            attempts += 1;
            tokio::time::sleep(jittered(attempts)).await;
        }
    }
}

/// One connection, while it lasts.
struct Line<'l> {
    stream: TcpStream,
    input: BytesMut,
    output: Vec<u8>,
    /// Bytes of `output` that are gone.
    sent: usize,
    replies: &'l Replies,
    outbox: &'l Outbox,
    /// The bus' first connection, whose user is ours: what that one may not do, it hears from us too.
    bus: &'l Link,
    ticks: Interval,
    /// The server is about to stop: requests go another way, and the lane ends once no reply is awaited.
    is_leaving: bool,
    /// The server has said something since the last tick.
    is_heard: bool,
    /// Pings since it did.
    pings: u32,
}

impl<'l> Line<'l> {
    fn new(stream: TcpStream, input: BytesMut, replies: &'l Replies, outbox: &'l Outbox, bus: &'l Link) -> Line<'l> {
        let mut ticks = interval_at(Instant::now() + PING, PING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Line {
            stream,
            input,
            output: Vec::new(),
            sent: 0,
            replies,
            outbox,
            bus,
            ticks,
            is_leaving: false,
            is_heard: false,
            pings: 0,
        }
    }

    /// Reads and writes until the connection is lost.
    async fn run(mut self) -> io::Error {
        std::future::poll_fn(|context| {
            // What was read may set the clock, and both may have something to say.
            if let Poll::Ready(error) = self.poll_read(context) {
                return Poll::Ready(error);
            }
            if let Poll::Ready(error) = self.poll_clock(context) {
                return Poll::Ready(error);
            }
            self.poll_write(context)
        })
        .await
    }

    /// A server that is silent is asked; one that stays silent is lost.
    fn poll_clock(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            ready!(self.ticks.poll_tick(context));
            if self.is_leaving {
                if self.replies.pending() == 0 {
                    return Poll::Ready(io::Error::other("the server is about to stop"));
                }
            } else if std::mem::take(&mut self.is_heard) {
                self.pings = 0;
            } else if self.pings < 2 {
                self.pings += 1;
                self.say(b"PING\r\n");
            } else {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the server is silent"));
            }
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if self.input.capacity() - self.input.len() < READ_ROOM_MIN {
                self.input.reserve(READ_ROOM);
            }
            let read = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(context));
            match read {
                Ok(0) => return Poll::Ready(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.is_heard = true,
                Err(error) => return Poll::Ready(error),
            }
            if let Err(malformed) = self.hear() {
                return Poll::Ready(io::Error::new(io::ErrorKind::InvalidData, malformed.0));
            }
        }
    }

    /// Takes every whole operation that has come.
    fn hear(&mut self) -> Result<(), frames::Malformed> {
        let replies = self.replies;
        while let Some(said) = frames::take(&mut self.input, |subject| replies.address(subject))? {
            match said {
                Said::Message { address, status: Some(503), payload, .. } if payload.is_empty() => {
                    replies.deliver(address, Err(BusError::NoResponders));
                }
                Said::Message { address, headers, payload, .. } => replies.deliver(address, Ok((headers, payload))),
                Said::Ping => self.say(b"PONG\r\n"),
                Said::Error(error) => self.bus.note_error(&error),
                Said::Info(info) if is_lame_duck(&info) => {
                    self.is_leaving = true;
                    self.outbox.leave();
                    self.ticks = interval_at(Instant::now(), LOOK);
                }
                Said::Pong | Said::Info(_) => {}
            }
        }
        Ok(())
    }

    fn say(&mut self, words: &[u8]) {
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        self.output.extend_from_slice(words);
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            if self.sent == self.output.len() {
                self.sent = 0;
                self.outbox.swap(&mut self.output, context);
                if self.output.is_empty() {
                    return Poll::Pending;
                }
            }
            match ready!(Pin::new(&mut self.stream).poll_write(context, &self.output[self.sent..])) {
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.sent += written,
                Err(error) => return Poll::Ready(error),
            }
        }
    }
}

fn is_lame_duck(info: &[u8]) -> bool {
    serde_json::from_slice::<ServerInfo>(info).is_ok_and(|info| info.lame_duck_mode)
}
