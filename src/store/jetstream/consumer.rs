//! A reader of a durable pull consumer (NATS ADR-37). One pull request at a time, for as many events as the caller can
//! begin with: the client's own puller keeps some in store, where their time to answer runs out.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind, Context};
use async_nats::jetstream::message::Message as LogMessage;
use async_nats::jetstream::stream::Stream;
use async_nats::{Client, Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::super::{ConsumerConfig, Logged, StoreError, UNANSWERED_MAX};
use super::watch::logged;
use super::{ANSWER_MAX, connected, patiently, unavailable};

/// How long a pull request waits at the server for events.
const PULL: Duration = Duration::from_secs(30);
/// The server says that often that a pull request is still known.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Silence after which a pull request is taken for lost.
const SILENCE_MAX: Duration = Duration::from_secs(11);
/// How often a reader that waits looks whether the connection is still the one that it asked on.
const LOOK: Duration = Duration::from_millis(500);
/// Pause before asking again where the server could not take the request.
const RETRY: Duration = Duration::from_millis(250);

/// The server's settings of a consumer.
pub(super) fn settings(config: &ConsumerConfig) -> pull::Config {
    pull::Config {
        durable_name: Some(config.name.to_owned()),
        filter_subject: config.filter.to_owned(),
        deliver_policy: DeliverPolicy::All,
        replay_policy: ReplayPolicy::Instant,
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.ack_wait,
        max_deliver: config.deliveries_max.map_or(-1, i64::from),
        max_ack_pending: UNANSWERED_MAX as i64,
        ..pull::Config::default()
    }
}

/// A reader.
pub(in crate::store) struct JetStreamConsumer {
    context: Context,
    client: Client,
    stream: Stream,
    log: String,
    name: String,
    /// Where pull requests go, and where events and the server's words about them come.
    pull: String,
    inbox: String,
    messages: Subscriber,
    /// Events of the pull request that have not come yet.
    asked: usize,
    /// Number of the connection that it was sent on.
    connection: u64,
    silent_at: Instant,
}

/// An event, how often it has been given out, and the way back.
pub(in crate::store) type Given = (Logged, u32, JetStreamTicket);

/// What a message on the inbox is.
enum Arrival {
    Job(Box<Given>),
    StillKnown,
    /// The pull request is over; ask again after a pause, where there is one.
    Over(Duration),
    Gone,
}

impl JetStreamConsumer {
    pub(super) async fn open(context: &Context, stream: Stream, name: &str) -> Result<JetStreamConsumer, StoreError> {
        let log = stream.cached_info().config.name.clone();
        let client = context.client();
        let inbox = client.new_inbox();
        let consumer = JetStreamConsumer {
            messages: client.subscribe(inbox.clone()).await.map_err(unavailable)?,
            pull: format!("$JS.API.CONSUMER.MSG.NEXT.{log}.{name}"),
            context: context.clone(),
            client,
            stream,
            log,
            name: name.to_owned(),
            inbox,
            asked: 0,
            connection: 0,
            silent_at: Instant::now(),
        };
        consumer.check().await?;
        Ok(consumer)
    }

    pub(crate) async fn next(&mut self, room: usize) -> Result<Given, StoreError> {
        loop {
            if self.asked == 0 {
                self.ask(room.min(UNANSWERED_MAX)).await?;
            }
            let message = match tokio::time::timeout(LOOK, self.messages.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(unavailable("the connection has been closed")),
                Err(_) => {
                    if self.silent_at <= Instant::now() || self.connection != self.connections() {
                        self.asked = 0;
                    }
                    continue;
                }
            };
            self.silent_at = Instant::now() + SILENCE_MAX;
            match self.read(message) {
                Arrival::Job(given) => {
                    self.asked = self.asked.saturating_sub(1);
                    return Ok(*given);
                }
                Arrival::StillKnown => {}
                Arrival::Over(pause) => {
                    self.asked = 0;
                    tokio::time::sleep(pause).await;
                }
                Arrival::Gone => {
                    self.asked = 0;
                    self.check().await?;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Sends a pull request, once there is a connection.
    async fn ask(&mut self, room: usize) -> Result<(), StoreError> {
        while connected(&self.context).is_err() {
            tokio::time::sleep(RETRY).await;
        }
        self.connection = self.connections();
        let request =
            format!(r#"{{"batch":{room},"expires":{},"idle_heartbeat":{}}}"#, PULL.as_nanos(), HEARTBEAT.as_nanos());
        let sent = self.client.publish_with_reply(self.pull.clone(), self.inbox.clone(), request.into()).await;
        sent.map_err(unavailable)?;
        self.asked = room;
        self.silent_at = Instant::now() + SILENCE_MAX;
        Ok(())
    }

    fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    /// Fails where the consumer is not there.
    async fn check(&self) -> Result<(), StoreError> {
        patiently(|| async {
            match self.stream.consumer_info(&self.name).await {
                Ok(_) => Ok(()),
                Err(error) if is_missing(&error) => {
                    Err(StoreError::NoConsumer { log: self.log.clone(), name: self.name.clone() })
                }
                Err(error) => Err(unavailable(error)),
            }
        })
        .await
    }

    fn read(&self, message: Message) -> Arrival {
        let text = message.description.as_deref().unwrap_or_default();
        match message.status.map(|status| status.as_u16()) {
            None => self.job(message),
            Some(100) => Arrival::StillKnown,
            Some(408) => Arrival::Over(Duration::ZERO),
            // The consumer is gone, or has no leader just now.
            Some(503) => Arrival::Gone,
            Some(409) if text.eq_ignore_ascii_case("Consumer Deleted") => Arrival::Gone,
            Some(_) => Arrival::Over(RETRY),
        }
    }

    fn job(&self, message: Message) -> Arrival {
        let message = LogMessage { message, context: self.context.clone() };
        let (Ok(info), Some(reply)) = (message.info(), message.reply.clone()) else {
            return Arrival::StillKnown;
        };
        let deliveries = u32::try_from(info.delivered).unwrap_or(u32::MAX);
        match logged(&message) {
            Ok(event) => {
                Arrival::Job(Box::new((event, deliveries, JetStreamTicket { client: self.client.clone(), reply })))
            }
            Err(error) => {
                tracing::warn!(log = self.log, consumer = self.name, %error, "an event cannot be read");
                Arrival::StillKnown
            }
        }
    }

    /// Ends the subscription; what has come meanwhile goes back.
    pub(crate) async fn leave(mut self) {
        if self.messages.unsubscribe().await.is_err() {
            return;
        }
        while let Some(message) = self.messages.next().await {
            if let Arrival::Job(given) = self.read(message) {
                // One that cannot be given back comes again after its time to answer.
                let _ = given.2.send(format_nak(Duration::ZERO)).await;
            }
        }
    }
}

/// The way back for one job.
pub(in crate::store) struct JetStreamTicket {
    client: Client,
    reply: Subject,
}

impl JetStreamTicket {
    pub(crate) async fn ack(&self) -> Result<(), StoreError> {
        self.answer("+ACK".into()).await
    }

    pub(crate) async fn retry(&self, after: Duration) -> Result<(), StoreError> {
        self.answer(format_nak(after)).await
    }

    pub(crate) async fn in_progress(&self) -> Result<(), StoreError> {
        self.send("+WPI".into()).await
    }

    pub(crate) async fn end(&self, reason: &str) -> Result<(), StoreError> {
        self.answer(format!("+TERM {reason}").into()).await
    }

    /// Sends an answer and waits until the server has it.
    async fn answer(&self, answer: Bytes) -> Result<(), StoreError> {
        match tokio::time::timeout(ANSWER_MAX, self.client.request(self.reply.clone(), answer)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unavailable(error)),
            Err(_) => Err(unavailable("no word that the answer has come")),
        }
    }

    async fn send(&self, answer: Bytes) -> Result<(), StoreError> {
        self.client.publish(self.reply.clone(), answer).await.map_err(unavailable)
    }
}

fn format_nak(after: Duration) -> Bytes {
    format!(r#"-NAK {{"delay":{}}}"#, after.as_nanos()).into()
}

pub(super) fn is_missing(error: &ConsumerInfoError) -> bool {
    error.kind() == ConsumerInfoErrorKind::NotFound
}
