//! NATS: one connection, with reply handling and subscriptions of our own over async-nats.

mod headers;
mod replies;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt as _;
use tokio::sync::{Notify, watch};

use super::queue::{Engaged, Limits, Queue, StreamError, Subscription};
use super::{BusError, Delivery, Figures, Message, Pattern, Reply, Request, Status, Subject};

use replies::Replies;

/// Longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(4);
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
}

/// The engine.
pub(crate) struct NatsBus {
    client: Client,
    user: String,
    status: watch::Sender<Status>,
    replies: Arc<Replies>,
    dropped: Arc<AtomicU64>,
    connects: Arc<AtomicU64>,
}

impl NatsBus {
    pub(super) async fn connect(options: NatsOptions) -> Result<Arc<NatsBus>, BusError> {
        let status = watch::Sender::new(Status::Connecting);
        let (connects, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let user = if options.user.is_empty() { "tidegate".to_owned() } else { options.user.clone() };
        let (seen, count, lost) = (status.clone(), connects.clone(), dropped.clone());
        let connecting = with_identity(&options)
            .await?
            .name(&options.name)
            .custom_inbox_prefix(format!("_INBOX.{user}"))
            .subscription_capacity(CHANNEL_MESSAGES)
            .client_capacity(CHANNEL_MESSAGES)
            .request_timeout(None)
            .retry_on_initial_connect()
            .reconnect_delay_callback(jittered)
            .event_callback(move |event| {
                note_event(&event, &seen, &count, &lost);
                std::future::ready(())
            });
        let servers: Vec<String> = options.url.split(',').map(|url| url.trim().to_owned()).collect();
        let client = connecting.connect(servers).await.map_err(|error| BusError::Other(error.to_string()))?;
        let replies = Replies::start(client.clone(), &user, status.subscribe()).await?;
        Ok(Arc::new(NatsBus { client, user, status, replies, dropped, connects }))
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// The connection, for the store on it.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn check(&self, size: usize) -> Result<(), BusError> {
        match *self.status.borrow() {
            Status::Connected => {}
            Status::Closed => return Err(BusError::Closed),
            Status::Connecting | Status::Disconnected => return Err(BusError::Disconnected),
        }
        let max = self.client.max_payload();
        if size > max { Err(BusError::TooLarge { size, max }) } else { Ok(()) }
    }

    pub(super) async fn request(&self, request: Request<'_>) -> Result<Reply, BusError> {
        self.check(request.payload.len() + request.headers.size())?;
        self.replies.request(request).await
    }

    pub(super) async fn publish(&self, message: Message) -> Result<(), BusError> {
        self.check(message.payload.len() + message.headers.size())?;
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
        sent.map_err(|error| BusError::Other(error.to_string()))
    }

    pub(super) async fn subscribe(
        &self,
        pattern: &Pattern,
        queue_group: Option<&str>,
        limits: Limits,
    ) -> Result<Subscription, BusError> {
        let pattern = pattern.as_str().to_owned();
        let subscribed = match queue_group {
            Some(group) => self.client.queue_subscribe(pattern, group.to_owned()).await,
            None => self.client.subscribe(pattern).await,
        };
        let mut subscriber = subscribed.map_err(|error| BusError::Other(error.to_string()))?;
        let queue = Queue::new(limits);
        let (into, dropped, mut status) = (queue.clone(), self.dropped.clone(), self.status.subscribe());
        let draining = Arc::new(Notify::new());
        let drained = draining.clone();
        let pump = tokio::spawn(async move {
            let ends_on_loss = limits.ends_on_overflow;
            loop {
                tokio::select! {
                    message = subscriber.next() => {
                        let Some(message) = message else { break };
                        if !into.push(delivery(message)) {
                            dropped.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    () = drained.notified() => {
                        let _ = subscriber.drain().await;
                    }
                    // A stream whose connection was lost has a hole; a worker's subscription is made again.
                    is_lost = async { status.wait_for(|status| *status == Status::Disconnected).await.is_ok() },
                        if ends_on_loss =>
                    {
                        if is_lost {
                            into.end(Some(StreamError::Disconnected));
                        }
                        break;
                    }
                }
            }
            into.end(None);
        });
        Ok(Subscription::new(queue, Stop { pump, draining }))
    }

    pub(super) async fn flush(&self) -> Result<(), BusError> {
        self.client.flush().await.map_err(|error| BusError::Other(error.to_string()))
    }

    pub(super) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            pending: self.replies.pending(),
            strays: self.replies.strays(),
            dropped: self.dropped.load(Ordering::Relaxed),
            reconnects: self.connects.load(Ordering::Relaxed).saturating_sub(1),
        }
    }

    pub(super) async fn close(&self) {
        let _ = self.client.flush().await;
        self.status.send_replace(Status::Closed);
        let _ = self.client.drain().await;
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

async fn with_identity(options: &NatsOptions) -> Result<ConnectOptions, BusError> {
    let mut connect = ConnectOptions::new();
    if let Some(path) = &options.credentials {
        let read = connect.credentials_file(path).await;
        connect = read.map_err(|error| BusError::Other(format!("credentials `{}`: {error}", path.display())))?;
    }
    if let Some(token) = &options.token {
        connect = connect.token(token.clone());
    }
    if let Some((user, password)) = &options.password {
        connect = connect.user_and_password(user.clone(), password.clone());
    }
    if let Some(path) = &options.tls_ca {
        connect = connect.add_root_certificates(path.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &options.tls_identity {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(connect)
}

/// 2^n milliseconds up to the maximum, half of it by chance, so that a fleet does not come back in step.
fn jittered(attempts: usize) -> Duration {
    let full = Duration::from_millis(1 << attempts.min(12)).min(RECONNECT_MAX);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn note_event(event: &Event, status: &watch::Sender<Status>, connects: &AtomicU64, dropped: &AtomicU64) {
    match event {
        Event::Connected => {
            connects.fetch_add(1, Ordering::Relaxed);
            status.send_if_modified(|now| {
                *now != Status::Closed && std::mem::replace(now, Status::Connected) != Status::Connected
            });
            tracing::info!("bus connected");
        }
        Event::Disconnected => {
            status.send_if_modified(|now| {
                *now != Status::Closed && std::mem::replace(now, Status::Disconnected) != Status::Disconnected
            });
            tracing::warn!("bus disconnected");
        }
        Event::SlowConsumer(subscription) => {
            dropped.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(subscription, "the client's channel of a subscription is full: messages are dropped");
        }
        other => tracing::info!(event = %other, "bus"),
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
