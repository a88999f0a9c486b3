//! Logs on JetStream: streams, and their durable consumers as others see them.

use std::str::FromStr as _;

use async_nats::header::{HeaderMap, HeaderName, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{GetStreamByNameErrorKind, GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{
    Config, DeleteMessageErrorKind, DiscardPolicy, LastRawMessageErrorKind, RawMessageError, RetentionPolicy, Stream,
};
use futures_util::TryStreamExt as _;

use super::super::{
    Appended, ConsumerFigures, Discard, Event, LogConfig, LogFigures, Logged, Retention, StoreError, VALUE_BYTES_MAX,
};
use super::consumer::JetStreamConsumer;
use super::watch::{JetStreamReader, kept};
use super::{JetStreamStore, connected, header, patiently, publish, refused, unavailable};

/// The server's settings of a log.
pub(super) fn settings(config: &LogConfig, replicas: usize) -> Config {
    Config {
        name: config.name.to_owned(),
        subjects: config.subjects.iter().map(|subject| (*subject).to_owned()).collect(),
        retention: match config.retention {
            Retention::Limits => RetentionPolicy::Limits,
            Retention::WorkQueue => RetentionPolicy::WorkQueue,
        },
        max_age: config.max_age,
        max_message_size: i32::try_from(config.message_bytes_max).unwrap_or(i32::MAX),
        duplicate_window: config.duplicate_window,
        discard: match config.discard {
            Discard::Old => DiscardPolicy::Old,
            Discard::New => DiscardPolicy::New,
        },
        deny_delete: config.denies_removal,
        deny_purge: config.denies_removal,
        max_consumers: i32::try_from(config.consumers_max).unwrap_or(i32::MAX),
        num_replicas: replicas,
        allow_direct: true,
        ..Config::default()
    }
}

impl JetStreamStore {
    pub(crate) async fn append(&self, event: Event) -> Result<Appended, StoreError> {
        let mut headers = HeaderMap::new();
        for (name, value) in event.headers.iter() {
            headers.append(HeaderName::from_str(name).map_err(unavailable)?, header(value)?);
        }
        headers.insert(NATS_MESSAGE_ID, header(&event.id)?);
        let subject = event.subject.as_str().to_owned();
        let size = event.headers.size() + event.payload.len();
        match publish(&self.context, subject.clone(), headers, event.payload).await {
            Ok(ack) => Ok(Appended { sequence: ack.sequence, is_duplicate: ack.duplicate }),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => Err(self.nobody_took(subject).await),
            Err(error) if is_too_large(&error) => {
                Err(StoreError::TooLarge { size, max: self.largest(&subject).await.unwrap_or(VALUE_BYTES_MAX) })
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// Why nobody took an event: a log without a leader is as silent as one that is not there.
    async fn nobody_took(&self, subject: String) -> StoreError {
        match self.context.stream_by_subject(&subject).await {
            Ok(log) => unavailable(format!("`{log}` has no leader")),
            Err(error) if error.kind() == GetStreamByNameErrorKind::NotFound => StoreError::NoLog(subject),
            Err(error) => unavailable(error),
        }
    }

    /// Bytes of the largest event that the log of a subject takes.
    async fn largest(&self, subject: &str) -> Option<usize> {
        let name = self.context.stream_by_subject(subject).await.ok()?;
        let stream = self.stream(&name).await.ok()?;
        usize::try_from(stream.cached_info().config.max_message_size).ok()
    }

    pub(crate) async fn read_log(&self, name: &str, filter: &str, after: u64) -> Result<JetStreamReader, StoreError> {
        JetStreamReader::open(&self.context, &self.stream(name).await?, filter, after).await
    }

    pub(crate) async fn event(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        let stream = self.named(log).await?;
        found(log, stream.get_raw_message(sequence).await)
    }

    pub(crate) async fn event_after(&self, log: &str, sequence: u64) -> Result<Option<Logged>, StoreError> {
        let stream = self.named(log).await?;
        let request = stream.raw_message_builder().sequence(sequence.saturating_add(1)).next_by_subject(">");
        found(log, request.send().await)
    }

    pub(crate) async fn remove_event(&self, log: &str, sequence: u64) -> Result<bool, StoreError> {
        let stream = self.named(log).await?;
        let error = match stream.delete_message(sequence).await {
            Ok(is_removed) => return Ok(is_removed),
            Err(error) => error,
        };
        let DeleteMessageErrorKind::JetStream(answer) = error.kind() else { return Err(unavailable(error)) };
        match answer.error_code() {
            ErrorCode::STREAM_NOT_FOUND => Err(StoreError::NoLog(log.to_owned())),
            ErrorCode::SEQUENCE_NOT_FOUND => Ok(false),
            _ => Err(StoreError::Refused(answer.to_string())),
        }
    }

    pub(crate) async fn log_figures(&self, log: &str) -> Result<LogFigures, StoreError> {
        let stream = self.stream(log).await?;
        let state = &stream.cached_info().state;
        let mut consumers: Vec<ConsumerFigures> = stream
            .consumers()
            .map_ok(|info| ConsumerFigures {
                name: info.name,
                waiting: info.num_pending,
                unanswered: info.num_ack_pending as u64,
            })
            .try_collect()
            .await
            .map_err(unavailable)?;
        consumers.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(LogFigures {
            events: state.messages,
            bytes: state.bytes,
            first: (state.messages > 0).then_some(state.first_sequence),
            last: state.last_sequence,
            consumers,
        })
    }

    pub(crate) async fn consumer(&self, log: &str, name: &str) -> Result<JetStreamConsumer, StoreError> {
        JetStreamConsumer::open(&self.context, self.stream(log).await?, name).await
    }

    /// The stream of a log, which is there.
    pub(super) async fn stream(&self, log: &str) -> Result<Stream, StoreError> {
        connected(&self.context)?;
        patiently(|| async {
            self.context.get_stream(log).await.map_err(|error| match error.kind() {
                GetStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    StoreError::NoLog(log.to_owned())
                }
                _ => unavailable(error),
            })
        })
        .await
    }

    /// The stream of a log, without asking whether it is there: who may read its events need not see its settings.
    async fn named(&self, log: &str) -> Result<Stream<()>, StoreError> {
        connected(&self.context)?;
        self.context.get_stream_no_info(log).await.map_err(unavailable)
    }
}

fn found(
    log: &str,
    answer: Result<async_nats::jetstream::message::StreamMessage, RawMessageError>,
) -> Result<Option<Logged>, StoreError> {
    let error = match answer {
        Ok(message) => return kept(message).map(Some),
        Err(error) => error,
    };
    match error.kind() {
        LastRawMessageErrorKind::NoMessageFound => Ok(None),
        LastRawMessageErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NOT_FOUND => {
            Err(StoreError::NoLog(log.to_owned()))
        }
        _ => Err(unavailable(error)),
    }
}

fn is_too_large(error: &PublishError) -> bool {
    error.kind() == PublishErrorKind::MaxPayloadExceeded
        || std::error::Error::source(error).is_some_and(|source| source.to_string().contains("message size exceeds"))
}
