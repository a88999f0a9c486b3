//! Streams, consumers and buckets compared with what the server has. Only the settings of the contract are looked at:
//! what an operator has set besides (sizes, placement, descriptions) stays.

use async_nats::jetstream::consumer::{self as nats_consumer, FromConsumer as _, pull};
use async_nats::jetstream::stream::{Config, ConsumerErrorKind, DiscardPolicy, Stream};
use async_nats::jetstream::{ErrorCode, context::CreateStreamErrorKind};

use super::super::provision::{Difference, Replicas, Resource, Step, length};
use super::super::{BucketConfig, ConsumerConfig, LogConfig, StoreError};
use super::{JetStreamStore, connected, consumer, log, patiently, unavailable};

/// Copies on a cluster, and the fewest servers of one.
const CLUSTER_REPLICAS: usize = 3;

const LOSES_EVENTS: &str = "it would lose events";
const LOSES_REVISIONS: &str = "it would lose revisions";
const FIXED: &str = "the server does not change it on what is there";

impl JetStreamStore {
    pub(crate) fn replicas_default(&self) -> usize {
        let server = self.context.client().server_info();
        let is_cluster = server.cluster.is_some() && server.connect_urls.len() >= CLUSTER_REPLICAS;
        if is_cluster { CLUSTER_REPLICAS } else { 1 }
    }

    pub(crate) async fn compare(&self, resource: &Resource, replicas: Replicas) -> Result<Step, StoreError> {
        connected(&self.context)?;
        Ok(match self.found(resource).await? {
            None => Step::Create,
            Some(found) => step(found.differences(resource, replicas)),
        })
    }

    pub(crate) async fn apply(&self, resource: &Resource, replicas: Replicas) -> Result<Step, StoreError> {
        connected(&self.context)?;
        let Some(found) = self.found(resource).await? else {
            self.create(resource, replicas.wanted(1)).await?;
            return Ok(Step::Create);
        };
        let step = step(found.differences(resource, replicas));
        if step == Step::Keep || step.is_refused() {
            return Ok(step);
        }
        match (found, resource) {
            (Found::Stream(is), Resource::Log(log)) => {
                self.update(&changed_log(&is, log, replicas.wanted(is.num_replicas))).await?;
            }
            (Found::Stream(is), Resource::Bucket(bucket)) => {
                self.update(&changed_bucket(&is, bucket, replicas.wanted(is.num_replicas))).await?;
            }
            (Found::Consumer(stream, is), Resource::Consumer(consumer)) => {
                let config = changed_consumer(*is, consumer)?;
                make_consumer(&stream, config).await?;
            }
            _ => {}
        }
        Ok(step)
    }

    pub(super) async fn create(&self, resource: &Resource, replicas: usize) -> Result<(), StoreError> {
        match resource {
            Resource::Log(config) => self.create_stream(log::settings(config, replicas)).await,
            Resource::Bucket(config) => self.create_stream(bucket_settings(config, replicas)).await,
            Resource::Consumer(config) => {
                make_consumer(&self.stream(config.log).await?, consumer::settings(config)).await
            }
        }
    }

    async fn create_stream(&self, config: Config) -> Result<(), StoreError> {
        patiently(|| async {
            let created = self.context.create_stream(config.clone()).await;
            created.map(drop).map_err(|error| stream_error(&config, &error.kind()))
        })
        .await
    }

    async fn update(&self, config: &Config) -> Result<(), StoreError> {
        patiently(|| async {
            let updated = self.context.update_stream(config).await;
            updated.map(drop).map_err(|error| stream_error(config, &error.kind()))
        })
        .await
    }

    /// What is there of a resource.
    async fn found(&self, resource: &Resource) -> Result<Option<Found>, StoreError> {
        let name = match resource {
            Resource::Log(log) => log.name.to_owned(),
            Resource::Bucket(bucket) => format!("KV_{}", bucket.name),
            Resource::Consumer(consumer) => consumer.log.to_owned(),
        };
        let stream = match self.stream(&name).await {
            Ok(stream) => stream,
            Err(StoreError::NoLog(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Resource::Consumer(consumer) = resource else {
            return Ok(Some(Found::Stream(Box::new(stream.cached_info().config.clone()))));
        };
        let look = || async {
            match stream.consumer_info(consumer.name).await {
                Ok(info) => Ok(Some(info)),
                Err(error) if consumer::is_missing(&error) => Ok(None),
                Err(error) => Err(unavailable(error)),
            }
        };
        let info = patiently(look).await?;
        Ok(info.map(|info| Found::Consumer(Box::new(stream), Box::new(info.config))))
    }
}

async fn make_consumer(stream: &Stream, config: pull::Config) -> Result<(), StoreError> {
    let make = || async {
        stream.create_consumer(config.clone()).await.map(drop).map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(answer) => StoreError::Refused(answer.to_string()),
            _ => unavailable(error),
        })
    };
    patiently(make).await
}

fn stream_error(config: &Config, kind: &CreateStreamErrorKind) -> StoreError {
    let name = &config.name;
    match kind {
        CreateStreamErrorKind::JetStream(answer) if answer.error_code() == ErrorCode::STREAM_NAME_EXIST => {
            StoreError::Conflict
        }
        CreateStreamErrorKind::JetStream(answer) if config.num_replicas > 1 => {
            StoreError::Refused(format!("`{name}` with {} replicas: {answer}", config.num_replicas))
        }
        CreateStreamErrorKind::JetStream(answer) => StoreError::Refused(format!("`{name}`: {answer}")),
        other => unavailable(format!("`{name}`: {other}")),
    }
}

enum Found {
    Stream(Box<Config>),
    Consumer(Box<Stream>, Box<nats_consumer::Config>),
}

impl Found {
    fn differences(&self, resource: &Resource, replicas: Replicas) -> Vec<Difference> {
        match (self, resource) {
            (Found::Stream(is), Resource::Log(config)) => {
                log_differences(is, &log::settings(config, replicas.wanted(is.num_replicas)))
            }
            (Found::Stream(is), Resource::Bucket(bucket)) => {
                bucket_differences(is, &bucket_settings(bucket, replicas.wanted(is.num_replicas)))
            }
            (Found::Consumer(_, is), Resource::Consumer(config)) => consumer_differences(is, config),
            _ => Vec::new(),
        }
    }
}

fn step(differences: Vec<Difference>) -> Step {
    if differences.is_empty() { Step::Keep } else { Step::Change(differences) }
}

/// Settings that differ, in the order in which they are shown.
#[derive(Default)]
struct Rows(Vec<Difference>);

impl Rows {
    /// Notes a setting where it differs; `refusal` says why a change of it is refused, where it is.
    fn row<T: PartialEq>(
        &mut self,
        setting: &'static str,
        is: &T,
        wanted: &T,
        print: impl Fn(&T) -> String,
        refusal: Option<&'static str>,
    ) {
        if is != wanted {
            self.0.push(Difference { setting, is: print(is), wanted: print(wanted), refusal });
        }
    }

    fn storage(&mut self, is: &Config, wanted: &Config) {
        self.row("storage", &is.storage, &wanted.storage, |storage| format!("{storage:?}").to_lowercase(), Some(FIXED));
        self.row("replicas", &is.num_replicas, &wanted.num_replicas, ToString::to_string, None);
        let refusal = is_shorter(wanted.max_age, is.max_age).then_some(LOSES_EVENTS);
        self.row("max age", &is.max_age, &wanted.max_age, |age| length(*age), refusal);
        self.row("max message size", &is.max_message_size, &wanted.max_message_size, ToString::to_string, None);
    }
}

/// Zero is for ever.
fn is_shorter(one: std::time::Duration, other: std::time::Duration) -> bool {
    !one.is_zero() && (other.is_zero() || one < other)
}

fn log_differences(is: &Config, wanted: &Config) -> Vec<Difference> {
    let mut rows = Rows::default();
    let (mut subjects, mut wanted_subjects) = (is.subjects.clone(), wanted.subjects.clone());
    subjects.sort_unstable();
    wanted_subjects.sort_unstable();
    let is_cut = subjects.iter().any(|subject| !wanted_subjects.contains(subject));
    rows.row("subjects", &subjects, &wanted_subjects, |all| all.join(" "), is_cut.then_some(LOSES_EVENTS));
    let lower = |text: String| text.to_lowercase();
    rows.row("retention", &is.retention, &wanted.retention, |kind| lower(format!("{kind:?}")), Some(LOSES_EVENTS));
    rows.storage(is, wanted);
    rows.row("duplicate window", &is.duplicate_window, &wanted.duplicate_window, |window| length(*window), None);
    let refusal = (wanted.discard == DiscardPolicy::Old).then_some(LOSES_EVENTS);
    rows.row("discard", &is.discard, &wanted.discard, |discard| lower(format!("{discard:?}")), refusal);
    let denied = |is_denied: &bool| if *is_denied { "denied" } else { "allowed" }.to_owned();
    rows.row("delete", &is.deny_delete, &wanted.deny_delete, denied, is.deny_delete.then_some(FIXED));
    rows.row("purge", &is.deny_purge, &wanted.deny_purge, denied, is.deny_purge.then_some(FIXED));
    rows.row("max consumers", &is.max_consumers, &wanted.max_consumers, ToString::to_string, Some(FIXED));
    let allowed = |is_allowed: &bool| denied(&!is_allowed);
    rows.row("direct reads", &is.allow_direct, &wanted.allow_direct, allowed, None);
    rows.0
}

fn bucket_differences(is: &Config, wanted: &Config) -> Vec<Difference> {
    let mut rows = Rows::default();
    let (history, wanted_history) = (is.max_messages_per_subject, wanted.max_messages_per_subject);
    let refusal = (wanted_history < history || history < 1).then_some(LOSES_REVISIONS);
    rows.row("history", &history, &wanted_history, ToString::to_string, refusal);
    rows.storage(is, wanted);
    rows.0
}

fn consumer_differences(is: &nats_consumer::Config, config: &ConsumerConfig) -> Vec<Difference> {
    let wanted = consumer::settings(config);
    let mut rows = Rows::default();
    let kind = |is_pull: &bool| if *is_pull { "pull" } else { "push" }.to_owned();
    rows.row("kind", &is.deliver_subject.is_none(), &true, kind, Some(FIXED));
    rows.row("filter", &is.filter_subject, &wanted.filter_subject, Clone::clone, None);
    rows.row("ack", &is.ack_policy, &wanted.ack_policy, |policy| format!("{policy:?}").to_lowercase(), Some(FIXED));
    rows.row("ack wait", &is.ack_wait, &wanted.ack_wait, |wait| length(*wait), None);
    rows.row("max deliveries", &is.max_deliver, &wanted.max_deliver, ToString::to_string, None);
    rows.row("max unanswered", &is.max_ack_pending, &wanted.max_ack_pending, ToString::to_string, None);
    let pauses = |pauses: &Vec<std::time::Duration>| match pauses.is_empty() {
        true => "none".to_owned(),
        false => pauses.iter().map(|pause| length(*pause)).collect::<Vec<_>>().join(" "),
    };
    rows.row("backoff", &is.backoff, &wanted.backoff, pauses, None);
    rows.0
}

fn changed_log(is: &Config, config: &LogConfig, replicas: usize) -> Config {
    let wanted = log::settings(config, replicas);
    Config {
        subjects: wanted.subjects,
        max_age: wanted.max_age,
        max_message_size: wanted.max_message_size,
        duplicate_window: wanted.duplicate_window,
        discard: wanted.discard,
        deny_delete: wanted.deny_delete,
        deny_purge: wanted.deny_purge,
        num_replicas: replicas,
        allow_direct: true,
        ..is.clone()
    }
}

/// The server's settings of a bucket (NATS ADR-8).
fn bucket_settings(bucket: &BucketConfig, replicas: usize) -> Config {
    Config {
        name: format!("KV_{}", bucket.name),
        subjects: vec![format!("$KV.{}.>", bucket.name)],
        max_messages_per_subject: i64::from(bucket.history.max(1)),
        max_age: bucket.ttl.unwrap_or_default(),
        max_message_size: super::BUCKET_MESSAGE_MAX,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        num_replicas: replicas,
        ..Config::default()
    }
}

fn changed_bucket(is: &Config, bucket: &BucketConfig, replicas: usize) -> Config {
    let wanted = bucket_settings(bucket, replicas);
    let max_age = wanted.max_age;
    // The server wants a window that is not above the age.
    let window = if max_age.is_zero() { is.duplicate_window } else { is.duplicate_window.min(max_age) };
    Config {
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_age,
        duplicate_window: window,
        max_message_size: wanted.max_message_size,
        allow_direct: true,
        num_replicas: replicas,
        ..is.clone()
    }
}

fn changed_consumer(is: nats_consumer::Config, config: &ConsumerConfig) -> Result<pull::Config, StoreError> {
    let wanted = consumer::settings(config);
    let is = pull::Config::try_from_consumer_config(is).map_err(|error| StoreError::Refused(error.to_string()))?;
    Ok(pull::Config {
        filter_subject: wanted.filter_subject,
        ack_wait: wanted.ack_wait,
        max_deliver: wanted.max_deliver,
        max_ack_pending: wanted.max_ack_pending,
        backoff: wanted.backoff,
        ..is
    })
}
