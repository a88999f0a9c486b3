//! NATS: one connection, with reply handling and subscriptions of our own over async-nats.

mod address;
mod headers;
mod identity;
mod lane;
mod link;
mod moving;
mod replies;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, ServerAddr};
use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};

use super::queue::{Engaged, Limits, Queue, StreamError, Subscription};
use super::{BusError, Delivery, Figures, Message, Pattern, Reply, Request, Status, Subject};

use lane::Lane;
use link::Link;
use replies::Replies;

/// Longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(4);
/// Longest wait for a connected server to take what was sent before.
const FLUSH_MAX: Duration = Duration::from_secs(10);
/// Longest wait for what is buffered when closing.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// A server that answers no two of these in a row is lost.
const PING: Duration = Duration::from_secs(20);
/// Messages that one subscription's channel holds inside the client; our queues behind it are smaller.
const CHANNEL_MESSAGES: usize = 64 * 1024;

/// How to reach a NATS server, and as whom.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// Servers, joined by commas: `nats://127.0.0.1:4222`.
    pub url: String,
    /// Name of this connection in the server's monitoring.
    pub name: String,
    /// Second token of its inboxes, `_INBOX.{user}`; one word.
    pub user: String,
    /// A `.creds` file; read again at each connect.
    pub credentials: Option<PathBuf>,
    /// A token.
    pub token: Option<String>,
    /// User name and password.
    pub password: Option<(String, String)>,
    /// PEM file of further trusted roots; TLS is then required.
    pub tls_ca: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// Requests go over a second connection that is made for them, at a sixth of the instructions. They then keep no order
    /// with what this bus publishes and subscribes, so it is for those who only ask: gateways. Without it, while that
    /// connection is down, and over TLS, they share the first one.
    pub request_lane: bool,
}

/// The engine.
pub(crate) struct NatsBus {
    client: Client,
    user: String,
    link: Arc<Link>,
    replies: Arc<Replies>,
    /// Servers that we were told of at the start.
    servers: usize,
    lane: Option<Lane>,
}

impl NatsBus {
    pub(super) async fn connect(options: NatsOptions) -> Result<Arc<NatsBus>, BusError> {
        let user = if options.user.is_empty() { "tidegate".to_owned() } else { options.user.clone() };
        let link = Link::new(&user);
        let told = link.clone();
        let connecting = identity::of(&options)?
            .name(&options.name)
            .custom_inbox_prefix(format!("_INBOX.{user}"))
            .subscription_capacity(CHANNEL_MESSAGES)
            .client_capacity(CHANNEL_MESSAGES)
            .request_timeout(None)
            .ping_interval(PING)
            .retry_on_initial_connect()
            .reconnect_delay_callback(jittered)
            .event_callback(move |event| {
                told.note(&event);
                std::future::ready(())
            });
        let servers: Vec<String> = options.url.split(',').map(|url| url.trim().to_owned()).collect();
        let count = servers.len();
        let addresses: Result<Vec<ServerAddr>, _> = servers.iter().map(|server| server.parse()).collect();
        let client = connecting.connect(servers).await.map_err(|error| BusError::Other(error.to_string()))?;
        let replies = Replies::on_client(client.clone(), &user, link.clone()).await?;
        let lane = addresses.ok().filter(|_| options.request_lane);
        let lane = lane.map(|addresses| Lane::start(options, addresses, &user, link.clone()));
        let bus = Arc::new(NatsBus { client, user, link, replies, servers: count, lane });
        tokio::spawn(moving::leave_lame_ducks(Arc::downgrade(&bus)));
        Ok(bus)
    }

    /// True where there is somewhere else to go.
    fn knows_other_servers(&self) -> bool {
        self.servers > 1 || self.client.server_info().connect_urls.len() > 1
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The connection, for the store on it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.link.status()
    }

    fn check(&self, subject: &Subject, size: usize) -> Result<(), BusError> {
        match self.link.now() {
            Status::Connected | Status::LameDuck if !self.link.is_refused(subject.as_str()) => {}
            Status::Connected | Status::LameDuck => {
                return Err(BusError::Other(format!("the bus user has no right to publish to `{subject}`")));
            }
            Status::Forbidden => return Err(BusError::Other("the bus user has no right to its inbox".to_owned())),
            Status::Closed => return Err(BusError::Closed),
            Status::Connecting | Status::Disconnected => return Err(BusError::Disconnected),
        }
        let max = self.client.max_payload();
        if size > max { Err(BusError::TooLarge { size, max }) } else { Ok(()) }
    }

    pub(super) async fn request(&self, request: Request<'_>) -> Result<Reply, BusError> {
        if !self.link.may_begin(request.timeout).await {
            return Err(BusError::Timeout);
        }
        self.check(&request.subject, request.payload.len() + request.headers.size())?;
        match self.lane.as_ref().filter(|lane| lane.takes()) {
            Some(lane) => lane.request(request).await,
            None => self.replies.request(request).await,
        }
    }

    pub(super) async fn publish(&self, message: Message) -> Result<(), BusError> {
        self.check(&message.subject, message.payload.len() + message.headers.size())?;
        let subject = to_nats(&message.subject)?;
        let sent = match (message.reply, message.headers.is_empty()) {
            (None, true) => self.client.publish(subject, message.payload).await,
            (None, false) => {
                let headers = headers::to_nats(&message.headers)?;
                self.client.publish_with_headers(subject, headers, message.payload).await
            }
            (Some(reply), true) => self.client.publish_with_reply(subject, to_nats(&reply)?, message.payload).await,
            (Some(reply), false) => {
                let headers = headers::to_nats(&message.headers)?;
                let reply = to_nats(&reply)?;
                self.client.publish_with_reply_and_headers(subject, reply, headers, message.payload).await
            }
        };
        sent.map_err(|error| publish_error(&error))
    }

    pub(super) async fn subscribe(
        &self,
        pattern: &Pattern,
        queue_group: Option<&str>,
        limits: Limits,
    ) -> Result<Subscription, BusError> {
        if self.link.now() == Status::Closed {
            return Err(BusError::Closed);
        }
        let pattern = pattern.as_str().to_owned();
        let subscribed = match queue_group {
            Some(group) => self.client.queue_subscribe(pattern, group.to_owned()).await,
            None => self.client.subscribe(pattern).await,
        };
        let subscriber = subscribed.map_err(|error| BusError::Other(error.to_string()))?;
        let queue = Queue::new(limits);
        let draining = Arc::new(Notify::new());
        let pump = Pump { queue: queue.clone(), link: self.link.clone(), draining: draining.clone(), limits };
        let pump = tokio::spawn(pump.run(subscriber));
        Ok(Subscription::new(queue, Stop { pump, draining }))
    }

    pub(super) async fn flush(&self) -> Result<(), BusError> {
        let mut status = self.link.status();
        let _ = status.wait_for(|status| *status != Status::Connecting).await;
        if self.link.now() == Status::Closed {
            return Err(BusError::Closed);
        }
        match tokio::time::timeout(FLUSH_MAX, self.client.flush()).await {
            Ok(flushed) => flushed.map_err(|error| BusError::Other(error.to_string())),
            Err(_) => Err(BusError::Timeout),
        }
    }

    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    pub(super) fn figures(&self) -> Figures {
        let lane = self.lane.as_ref().map(Lane::figures).unwrap_or_default();
        Figures {
            pending: self.replies.pending() + lane.pending,
            strays: self.replies.strays() + lane.strays,
            dropped: self.link.dropped(),
            reconnects: self.link.reconnects(),
            on_lane: lane.on_lane,
        }
    }

    pub(super) async fn close(&self) {
        if matches!(self.link.now(), Status::Connected | Status::LameDuck) {
            let _ = tokio::time::timeout(CLOSE_MAX, self.client.flush()).await;
        }
        self.link.close();
        if let Some(lane) = &self.lane {
            lane.close();
        }
        let _ = tokio::time::timeout(CLOSE_MAX, self.client.drain()).await;
    }
}

/// Carries messages from the client's subscription into our own bounded queue.
struct Pump {
    queue: Arc<Queue>,
    link: Arc<Link>,
    draining: Arc<Notify>,
    limits: Limits,
}

impl Pump {
    async fn run(self, mut subscriber: async_nats::Subscriber) {
        // A stream whose connection was lost has a hole; a worker's subscription is made again by the client.
        let ends_on_trouble = self.limits.ends_on_overflow;
        let mut losses = self.link.losses();
        loop {
            tokio::select! {
                message = subscriber.next() => {
                    let Some(message) = message else { break };
                    if !self.queue.push(delivery(message)) {
                        self.link.count_dropped();
                        if ends_on_trouble {
                            break;
                        }
                    }
                }
                () = self.draining.notified() => {
                    let _ = subscriber.drain().await;
                }
                _ = losses.changed(), if ends_on_trouble => {
                    self.queue.end(Some(StreamError::Disconnected));
                    break;
                }
            }
        }
        self.queue.end(None);
    }
}

/// Ends the pump, and with it the client's subscription.
struct Stop {
    pump: tokio::task::JoinHandle<()>,
    draining: Arc<Notify>,
}

impl Engaged for Stop {
    fn drain(&mut self) {
        self.draining.notify_one();
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.pump.abort();
    }
}

/// 2^n milliseconds up to the maximum, half of it by chance, so that a fleet does not come back in step.
fn jittered(attempts: usize) -> Duration {
    let full = Duration::from_millis(1 << attempts.min(12)).min(RECONNECT_MAX);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn publish_error(error: &async_nats::PublishError) -> BusError {
    match error.kind() {
        PublishErrorKind::Send => BusError::Closed,
        _ => BusError::Other(error.to_string()),
    }
}

/// Our subject as async-nats has it: shared bytes, no copy.
fn to_nats(subject: &Subject) -> Result<async_nats::Subject, BusError> {
    async_nats::Subject::from_utf8(subject.bytes().clone()).map_err(|error| BusError::Other(error.to_string()))
}

fn delivery(message: async_nats::Message) -> Delivery {
    Delivery {
        is_no_responders: is_no_responders(&message),
        subject: Subject::trusted(message.subject.into_string()),
        reply: message.reply.map(|reply| Subject::trusted(reply.into_string())),
        headers: message.headers.as_ref().map(headers::from_nats).unwrap_or_default(),
        payload: message.payload,
    }
}

fn is_no_responders(message: &async_nats::Message) -> bool {
    message.status == Some(async_nats::StatusCode::NO_RESPONDERS) && message.payload.is_empty()
}
