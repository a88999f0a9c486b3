//! The services' events: a domain message in a `event_bus.v1.GameEvent`, with who made it and for whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::BucketConfig;
use crate::transcode::to_wire;
use crate::worker::Context;
use crate::worker::records::{EventId, Notice, RecordsConfig, Sealed};

/// Full name of the envelope.
const ENVELOPE: &str = "event_bus.v1.GameEvent";

/// `event_bus.v1.GameEvent`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct GameEvent {
    pub(super) event_id: String,
    pub(super) event_type: String,
    pub(super) timestamp_ms: i64,
    pub(super) payload: Bytes,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) priority: i32,
}

/// Documents of a service whose events are game events, swept as often as the settings say.
pub(super) fn records(settings: &LiveSettings, bucket: BucketConfig) -> RecordsConfig {
    let settings = settings.clone();
    RecordsConfig { seal, sweep: Arc::new(move || settings.now().common.sweep), ..RecordsConfig::new(bucket) }
}

/// An event of the contract's table. `id` is the table's, without the tenant; `message` the full name of the payload's
/// type. The table's metadata is added by [`Notice::with`].
pub(super) fn notice<T: Serialize>(
    context: &Context,
    subject: &str,
    id: EventId,
    message: &str,
    payload: &T,
) -> Result<Notice, Fault> {
    let id = match id {
        EventId::Text(text) => EventId::Text(context.of_tenant(&text)),
        EventId::AtRevision(text) => EventId::AtRevision(context.of_tenant(&text)),
    };
    Ok(Notice::new(context, subject, id, message, payload)?
        .with("payload_type", message)
        .with("producer", context.service())
        .with("tenant_id", context.tenant())
        .with("request_id", context.request_id())
        .with("trace_id", context.caller().text("trace_id")))
}

/// A notice in its envelope.
fn seal(context: &Context, notice: &Notice, id: &str) -> Result<Sealed, Fault> {
    let event_type = notice.subject.trim_start_matches("evt.").trim_end_matches(".v1").to_owned();
    let headers = vec![("Event-Type", event_type.clone()), ("Event-Priority", notice.priority.to_string())];
    let event = GameEvent {
        event_id: id.to_owned(),
        event_type,
        timestamp_ms: notice.at_ms,
        payload: notice.payload.clone().into(),
        metadata: notice.metadata.clone(),
        priority: notice.priority,
    };
    let broken = |text: String| Fault::ours(Code::Internal, "an event does not encode").internal(text);
    let tables = context.tables();
    let envelope =
        tables.message_id(ENVELOPE).ok_or_else(|| broken(format!("no message `{ENVELOPE}` in the descriptors")))?;
    let mut payload = Vec::with_capacity(notice.payload.len() + 256);
    to_wire(tables, envelope, &event, &mut payload).map_err(|error| broken(error.to_string()))?;
    Ok(Sealed { message: ENVELOPE.to_owned(), payload, headers })
}

/// Publishes the event of an operation that writes no record: tried a few times behind the reply, which waits a moment
/// for it. What is dropped in the end is counted and logged.
pub(super) async fn publish(context: &Context, notice: Notice) {
    context.publish_later(notice, seal).await;
}

/// Pushes an event to a subject that a caller has named. Whoever listens gets it; nothing keeps it.
pub(super) async fn push(context: &Context, subject: &str, event: &GameEvent) -> Result<(), Fault> {
    context.publish(subject, ENVELOPE, event).await
}
