//! Events: the domain message in its envelope, kept by the log that takes its subject.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fault::{Code, Fault};
use crate::store::{LogConfig, Store, key_token};
use crate::transcode::to_wire;
use crate::worker::Context;

/// Tries to append an event, and the first pause between two, which doubles.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);
/// Longest wait of a reply for its event.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Priority of what services publish.
const PRIORITY: i32 = 5;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// The logs of the services in the roster.
const LOGS: [LogConfig; 2] = [
    LogConfig {
        name: "GAME_EVENTS",
        subjects: &[
            "evt.quest.>",
            "evt.npc.>",
            "evt.world.>",
            "evt.broker.>",
            "evt.payment.>",
            "evt.state.>",
            "evt.time.>",
            "evt.weather.>",
            "evt.player.>",
            "evt.item.>",
            "evt.combat.>",
            "evt.custom.>",
        ],
        max_age: HOUR,
        duplicate_window: Duration::from_secs(2 * 60),
    },
    LogConfig { name: "AI_EVENTS", subjects: &["evt.ai.>"], max_age: HOUR, duplicate_window: MINUTE.saturating_mul(2) },
];

/// `event_bus.v1.GameEvent`.
#[derive(Debug, Serialize, Deserialize)]
struct GameEvent {
    event_id: String,
    event_type: String,
    timestamp_ms: i64,
    payload: Bytes,
    metadata: BTreeMap<String, String>,
    priority: i32,
}

/// An event to publish.
pub(super) struct Event<'a, T> {
    /// `evt.quest.generated.v1`.
    pub subject: &'a str,
    /// Its id without the tenant: the same change has the same id, however often it is published.
    pub id: String,
    /// When the change was committed.
    pub at_ms: i64,
    /// Full name of the payload's message.
    pub message: &'a str,
    /// The payload.
    pub payload: &'a T,
    /// What the subject's row of the contract names.
    pub metadata: Vec<(&'static str, String)>,
}

/// Provides the logs, where there are none yet.
pub(super) async fn provide(store: &Store) -> Result<(), Fault> {
    for log in LOGS {
        store.provide_log(log).await?;
    }
    Ok(())
}

/// Publishes an event after its change was committed, and waits a moment for the log. Where the log does not answer,
/// the attempt goes on behind the reply, and the process's log says so if it fails.
pub(super) async fn publish<T: Serialize>(context: &Context, event: Event<'_, T>) -> Result<(), Fault> {
    let (subject, envelope) = (event.subject.to_owned(), seal(context, event)?);
    let context = context.clone();
    let appending = tokio::spawn(async move {
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            match context.append(&subject, "event_bus.v1.GameEvent", &envelope, &envelope.event_id).await {
                Ok(_) => return,
                Err(fault) if fault.code() == Code::Unavailable && attempt < TRIES => tokio::time::sleep(pause).await,
                Err(fault) => {
                    tracing::warn!(subject, id = envelope.event_id, %fault, "an event is dropped");
                    return;
                }
            }
            pause *= 2;
        }
    });
    // Past the wait the task goes on by itself.
    let _ = tokio::time::timeout(WAIT_MAX, appending).await;
    Ok(())
}

fn seal<T: Serialize>(context: &Context, event: Event<'_, T>) -> Result<GameEvent, Fault> {
    let tenant = context.tenant();
    let event_id = match tenant {
        "" => event.id,
        tenant => format!("{}:{}", key_token(tenant), event.id),
    };
    let event_type = event.subject.trim_start_matches("evt.").trim_end_matches(".v1").to_owned();
    let mut metadata: BTreeMap<String, String> =
        event.metadata.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for (name, value) in [
        ("payload_type", event.message),
        ("producer", context.instance().split('@').next().unwrap_or_default()),
        ("tenant_id", tenant),
        ("request_id", context.request_id()),
        ("trace_id", context.caller().text("trace_id")),
    ] {
        metadata.insert(name.to_owned(), value.to_owned());
    }
    let payload = encoded(context, event.message, event.payload)?.into();
    Ok(GameEvent { event_id, event_type, timestamp_ms: event.at_ms, payload, metadata, priority: PRIORITY })
}

fn encoded<T: Serialize>(context: &Context, message: &str, value: &T) -> Result<Vec<u8>, Fault> {
    let broken = |text: String| Fault::ours(Code::Internal, "an event does not encode").internal(text);
    let tables = &context.method().tables;
    let id = tables.message_id(message).ok_or_else(|| broken(format!("no message `{message}` in the descriptors")))?;
    let mut out = Vec::with_capacity(256);
    to_wire(tables, id, value, &mut out).map_err(|error| broken(error.to_string()))?;
    Ok(out)
}
