//! The bus as floors above see it: request, open a stream, publish, subscribe. Two engines behind one seam: NATS, and
//! an embedded one for a single process. Knows nothing of protobuf, HTTP or the game.

pub mod discovery;
mod embedded;
mod headers;
mod nats;
mod queue;
mod subject;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::fault::{Code, Fault, Reason, Source};
use crate::telemetry::BusOutcome;

pub use headers::{HEADERS_MAX, Headers};
pub use nats::NatsOptions;
pub use queue::{Limits, StreamError, Subscription};
pub use subject::{Pattern, SUBJECT_MAX, Subject, SubjectError};

/// Most requests in flight on one connection; the reply subscription's channel holds twice as many.
pub const IN_FLIGHT_MAX: usize = 32 * 1024;
/// Largest message of the embedded bus, as a NATS server's default.
pub const EMBEDDED_PAYLOAD_MAX: usize = 1024 * 1024;

/// A message as it arrives.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where it was sent.
    pub subject: Subject,
    /// Where an answer goes.
    pub reply: Option<Subject>,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// The bus itself says that nobody listens to what was published with this subject as its reply.
    pub is_no_responders: bool,
}

/// A message to send.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where to.
    pub subject: Subject,
    /// Where an answer goes.
    pub reply: Option<Subject>,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
}

/// A request whose single reply is waited for.
pub struct Request<'a> {
    /// Where to.
    pub subject: Subject,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// How long to wait.
    pub timeout: Duration,
    /// Without it the reply subject is used once. With it the subject may be one that was used before, because the
    /// caller can tell whether a reply answers this request; a reply that fails the proof is dropped and counted. It
    /// runs under the table's lock: compare, and no more.
    pub proof: Option<&'a (dyn Fn(&Reply) -> bool + Sync)>,
}

/// The answer to a request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub payload: Bytes,
    /// Replies to the same subject that failed the proof before this one came.
    pub mismatches: u32,
}

/// Why the bus could not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BusError {
    /// Nobody subscribes to the subject.
    NoResponders,
    /// No reply in time.
    Timeout,
    /// No reply in time that passed its proof, but that many that failed it.
    Unproven(u32),
    /// Not connected.
    Disconnected,
    /// Larger than the server takes.
    TooLarge {
        /// Bytes of the message.
        size: usize,
        /// Bytes that the server takes.
        max: usize,
    },
    /// [`IN_FLIGHT_MAX`] requests wait already.
    Busy,
    /// The connection has been closed by us.
    Closed,
    /// The engine's own words.
    Other(String),
}

impl std::fmt::Display for BusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BusError::NoResponders => f.write_str("nobody answers on this subject"),
            BusError::Timeout => f.write_str("no answer in time"),
            BusError::Unproven(count) => write!(f, "{count} answers in time, none of them to this request"),
            BusError::Disconnected => f.write_str("the bus is not connected"),
            BusError::TooLarge { size, max } => write!(f, "the message has {size} bytes, the bus takes {max}"),
            BusError::Busy => write!(f, "more than {IN_FLIGHT_MAX} requests wait for an answer"),
            BusError::Closed => f.write_str("the bus has been closed"),
            BusError::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for BusError {}

impl BusError {
    /// How a request ended, for the metrics of its subject.
    pub fn outcome<T>(result: &Result<T, BusError>) -> BusOutcome {
        match result {
            Ok(_) => BusOutcome::Ok,
            Err(BusError::NoResponders) => BusOutcome::NoResponders,
            Err(BusError::Timeout | BusError::Unproven(_)) => BusOutcome::Timeout,
            Err(_) => BusOutcome::Failed,
        }
    }
}

impl From<BusError> for Fault {
    fn from(error: BusError) -> Fault {
        let text = error.to_string();
        match error {
            BusError::NoResponders => {
                Fault::upstream(Code::Unavailable, "no worker answers for this method").reason(Reason::NoResponders)
            }
            BusError::Timeout | BusError::Unproven(_) => {
                Fault::upstream(Code::DeadlineExceeded, "the worker did not answer in time")
                    .reason(Reason::UpstreamTimeout)
            }
            BusError::Disconnected | BusError::Closed => {
                Fault::new(Code::Unavailable, Source::Upstream, "the message bus is not connected")
                    .reason(Reason::BusDown)
            }
            BusError::TooLarge { max, .. } => Fault::client(
                Code::InvalidArgument,
                format!("the request is larger than one bus message of {max} bytes"),
            )
            .reason(Reason::BodyTooLarge),
            BusError::Busy => Fault::ours(Code::Unavailable, "too many requests wait for an answer"),
            // Its form, or what our user may do: nobody got it.
            BusError::Other(_) => Fault::ours(Code::Unavailable, "the message bus refused the message"),
        }
        .internal(text)
    }
}

/// Whether the bus can be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not connected yet.
    Connecting,
    /// Ready.
    Connected,
    /// Ready, but the server has said that it is about to stop.
    LameDuck,
    /// Lost; connecting again.
    Disconnected,
    /// Connected as a user without the right to receive replies: nothing can be asked.
    Forbidden,
    /// Closed by us.
    Closed,
}

/// What a bus has done, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Requests that wait for an answer.
    pub pending: u64,
    /// Replies that nobody waited for, or that failed their proof.
    pub strays: u64,
    /// Messages that a full subscription could not take.
    pub dropped: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Requests that went over the request lane.
    pub on_lane: u64,
}

/// A connection to a bus. Cloning shares it.
#[derive(Clone)]
pub struct Bus(Engine);

#[derive(Clone)]
enum Engine {
    Nats(Arc<nats::NatsBus>),
    Embedded(Arc<embedded::EmbeddedBus>),
}

/// What a fresh inbox is for (the two branches have permissions of their own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// Replies and chunks: `_INBOX.{user}.r.{token}`.
    Reply,
    /// Credit and cancel of a stream: `_INBOX.{user}.c.{token}`.
    Control,
}

impl Branch {
    fn token(self) -> char {
        match self {
            Branch::Reply => 'r',
            Branch::Control => 'c',
        }
    }
}

impl Bus {
    /// A bus inside this process.
    pub fn embedded() -> Bus {
        Bus(Engine::Embedded(embedded::EmbeddedBus::shared()))
    }

    /// A connection to NATS. Returns at once also where no server answers yet: `status` then says `Connecting`.
    pub async fn nats(options: NatsOptions) -> Result<Bus, BusError> {
        Ok(Bus(Engine::Nats(nats::NatsBus::connect(options).await?)))
    }

    /// Sends a request and waits for its reply. Dropping the future gives everything back.
    pub async fn request(&self, request: Request<'_>) -> Result<Reply, BusError> {
        match &self.0 {
            Engine::Nats(bus) => bus.request(request).await,
            Engine::Embedded(bus) => bus.request(request).await,
        }
    }

    /// Subscribes to a fresh inbox and publishes with it as the reply subject, in this order. Dropping the
    /// subscription ends it.
    pub async fn open_stream(
        &self,
        subject: Subject,
        headers: Headers,
        payload: Bytes,
        limits: Limits,
    ) -> Result<Subscription, BusError> {
        let inbox = self.new_inbox(Branch::Reply);
        let subscription = self.subscribe(&inbox.clone().into(), None, limits).await?;
        self.publish(Message { subject, reply: Some(inbox), headers, payload }).await?;
        Ok(subscription)
    }

    /// Sends a message.
    pub async fn publish(&self, message: Message) -> Result<(), BusError> {
        match &self.0 {
            Engine::Nats(bus) => bus.publish(message).await,
            Engine::Embedded(bus) => bus.publish(message),
        }
    }

    /// Subscribes. Of the members of one queue group one gets each message. Dropping the subscription ends it.
    pub async fn subscribe(
        &self,
        pattern: &Pattern,
        queue_group: Option<&str>,
        limits: Limits,
    ) -> Result<Subscription, BusError> {
        match &self.0 {
            Engine::Nats(bus) => bus.subscribe(pattern, queue_group, limits).await,
            Engine::Embedded(bus) => bus.subscribe(pattern, queue_group, limits),
        }
    }

    /// A subject that nobody can guess.
    pub fn new_inbox(&self, branch: Branch) -> Subject {
        let token = uuid::Uuid::new_v4().simple();
        let user = match &self.0 {
            Engine::Nats(bus) => bus.user(),
            Engine::Embedded(_) => "embedded",
        };
        Subject::trusted(format!("_INBOX.{user}.{}.{token}", branch.token()))
    }

    /// Waits until the bus has taken everything sent before; before the first connection as long as that takes.
    pub async fn flush(&self) -> Result<(), BusError> {
        match &self.0 {
            Engine::Nats(bus) => bus.flush().await,
            Engine::Embedded(bus) => bus.flush(),
        }
    }

    /// Whether the bus can be used, now and later.
    pub fn status(&self) -> watch::Receiver<Status> {
        match &self.0 {
            Engine::Nats(bus) => bus.status(),
            Engine::Embedded(bus) => bus.status(),
        }
    }

    /// Bytes of the largest message.
    pub fn max_payload(&self) -> usize {
        match &self.0 {
            Engine::Nats(bus) => bus.max_payload(),
            Engine::Embedded(_) => EMBEDDED_PAYLOAD_MAX,
        }
    }

    /// What it has done so far.
    pub fn figures(&self) -> Figures {
        match &self.0 {
            Engine::Nats(bus) => bus.figures(),
            Engine::Embedded(bus) => bus.figures(),
        }
    }

    /// The NATS client, for the store that lives on the same connection.
    pub(crate) fn nats_client(&self) -> Option<&Arc<nats::NatsBus>> {
        match &self.0 {
            Engine::Nats(bus) => Some(bus),
            Engine::Embedded(_) => None,
        }
    }

    /// Sends what is buffered and closes.
    pub async fn close(&self) {
        match &self.0 {
            Engine::Nats(bus) => bus.close().await,
            Engine::Embedded(bus) => bus.close(),
        }
    }
}
