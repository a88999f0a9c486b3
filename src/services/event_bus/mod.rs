//! Events of any covered type: published once, pushed to subscriptions with patterns and filters, followed as a stream.
//! One replica dispatches each log; it is also the service that keeps dead letters of what killed its handlers.

mod dispatch;
mod patterns;
mod streams;
mod subscriptions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::VERSION;
use super::checks::{callback, id, invalid, is_service, out_of_range, required};
use super::events::{EVENT_DISPATCH, EVENTS, keeping_dead_letters};
use super::notices::{GameEvent, records};
use super::seed::{Part, canonical_json, seed, tenant_part};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{Appended, BucketConfig, Store, key};
use crate::worker::records::{Change, Changed, Current, Records, RecordsConfig};
use crate::worker::types::{Struct, Value};
use crate::worker::{Confirm, Context, Failed, Repeats, Service};
use patterns::{active, check_pattern, check_type, takes};
use streams::Hub;
use subscriptions::{Filter, Index, Kept, Subscription};

/// Full name of the envelope.
const ENVELOPE: &str = "event_bus.v1.GameEvent";
/// Bytes of an event, its metadata included.
const EVENT_BYTES_MAX: usize = 960 * 1024;
/// Patterns of one subscription.
const PATTERNS_MAX: usize = 32;
/// Life of a subscription in seconds where the request does not say, and its bounds.
const TTL_DEFAULT_S: i32 = 86_400;
const TTL_MIN_S: i32 = 60;
const TTL_MAX_S: i32 = 604_800;
/// Beginnings of the types that services publish themselves, each with its service.
const OWNERS: [(&str, &str); 19] = [
    ("ai.llm.", "ai-integration"),
    ("ai.model.", "model-management"),
    ("state.", "state-manager"),
    ("quest.", "quest-system"),
    ("npc.", "npc-behavior"),
    ("world.", "world-state"),
    ("orchestration.", "orchestration"),
    ("router.", "router"),
    ("time.", "time-manager"),
    ("weather.", "weather-manager"),
    ("settings.", "settings"),
    ("payment.", "payment"),
    ("perf.", "performance-mode"),
    ("capability.", "capability-registry"),
    ("kb.", "knowledge-base"),
    ("lang.", "language-system"),
    ("narrative.", "environmental-narrative"),
    ("story.", "story-teller"),
    ("broker.", "body-broker-integration"),
];

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_event_subs", ttl: Some(Duration::from_secs(7 * 24 * 3_600)), history: 1 };
    let index = Arc::new(Index::new());
    let changed: Changed = {
        let index = index.clone();
        Arc::new(move |key, kept| index.note(key, kept))
    };
    let config = RecordsConfig { keeps_tombstones: false, changed: Some(changed), ..records(settings, bucket) };
    let bus = EventBus {
        kept: Records::open(store, config).await?,
        repeats: Repeats::open(store).await?,
        index,
        hub: Hub::default(),
        settings: settings.clone(),
        lease: settings.now().event_bus.lease,
    };
    let mut sharing = Service::new("event-bus", VERSION)
        .keeping(&bus.kept)
        .sharing(bus)
        .hook_publish("event_bus.v1.EventBusService/Publish", EventBus::publish)
        .unary("event_bus.v1.EventBusService/Subscribe", EventBus::subscribe)
        .declared("event_bus.v1.EventBusService/Unsubscribe")
        .unary("event_bus.v1.EventBusService/GetEventStats", EventBus::stats)
        .stream("event_bus.v1.EventBusService/StreamEvents", EventBus::stream)
        .task("subscriptions", EventBus::follow_subscriptions)
        .task("sweeper", EventBus::sweep);
    for consumer in EVENT_DISPATCH {
        let name = consumer.name;
        let dispatch = move |bus: Arc<EventBus>, context| bus.dispatch(context, consumer.clone());
        sharing = sharing.task(name, dispatch);
    }
    Ok(keeping_dead_letters(sharing.done()))
}

struct EventBus {
    kept: Records<Kept>,
    repeats: Repeats,
    index: Arc<Index>,
    hub: Hub,
    settings: LiveSettings,
    lease: Duration,
}

#[derive(Serialize, Deserialize)]
struct Publish {
    event_type: String,
    event_id: String,
    payload: Bytes,
    metadata: BTreeMap<String, String>,
    priority: i32,
}

#[derive(Serialize, Deserialize)]
struct Published {
    success: bool,
    event_id: String,
    subscriber_count: i32,
}

#[derive(Serialize, Deserialize)]
struct Subscribe {
    subscriber_id: String,
    event_patterns: Vec<String>,
    callback_subject: String,
    filters: BTreeMap<String, String>,
    ttl_seconds: i32,
}

#[derive(Serialize, Deserialize)]
struct Subscribed {
    subscription_id: String,
    active_patterns: Vec<String>,
    expires_at_ms: i64,
}

impl EventBus {
    /// The hook of the declared publish: the event with who made it, and once the log has it, how many it goes to.
    fn publish(
        self: Arc<Self>,
        context: Context,
        request: Publish,
    ) -> Result<(String, GameEvent, impl Confirm<GameEvent, Published>), Fault> {
        self.check_event(&context, &request)?;
        let Publish { event_type, mut event_id, payload, mut metadata, priority } = request;
        if event_id.is_empty() {
            let parts = [Part::Text("event.v1"), tenant_part(context.tenant()), Part::Text(context.request_id())];
            event_id = format!("evt_{:016x}", seed(&parts));
        }
        for (name, value) in [
            ("producer", context.caller().text("client_id")),
            ("tenant_id", context.tenant()),
            ("request_id", context.request_id()),
            ("trace_id", context.caller().text("trace_id")),
        ] {
            metadata.insert(name.to_owned(), value.to_owned());
        }
        let (own_id, timestamp_ms) = (context.of_tenant(&event_id), context.now_ms());
        let event = GameEvent { event_id: own_id, event_type, timestamp_ms, payload, metadata, priority };
        let id = event_id.clone();
        let told = move |event: &GameEvent, kept: &Appended| {
            let takers = if kept.is_duplicate { 0 } else { self.index.takers(event, context.now_ms()).len() };
            Published { success: true, event_id, subscriber_count: takers as i32 }
        };
        Ok((id, event, told))
    }

    fn check_event(&self, context: &Context, request: &Publish) -> Result<(), Fault> {
        let event_type = request.event_type.as_str();
        if event_type.is_empty() {
            return Err(required("event_type"));
        }
        let is_of_a_service = EVENTS.contains(&format!("evt.{event_type}.v1").as_str());
        let owner = OWNERS.iter().find(|(beginning, _)| event_type.starts_with(beginning)).map(|(_, owner)| *owner);
        let is_owner = is_service(context) && Some(context.caller().text("client_id")) == owner;
        if self.settings.now().auth.enforce && is_of_a_service && !is_owner {
            return Err(Fault::client(Code::PermissionDenied, "only its service publishes this type")
                .detail("field", "event_type")
                .detail("reason", "not_owner"));
        }
        check_type("event_type", event_type)?;
        if !request.event_id.is_empty() {
            id("event_id", &request.event_id)?;
        }
        let metadata: usize = request.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if request.payload.len() + metadata > EVENT_BYTES_MAX {
            let text = format!("payload and metadata have more than {EVENT_BYTES_MAX} bytes");
            return Err(invalid("payload", "too_long", text));
        }
        if !(0..=10).contains(&request.priority) {
            return Err(out_of_range("priority", 0, 10));
        }
        Ok(())
    }

    async fn subscribe(
        self: Arc<Self>,
        context: Context,
        request: Subscribe,
    ) -> Result<Subscribed, Failed<Subscribed>> {
        id("subscriber_id", &request.subscriber_id)?;
        let patterns = check_patterns(&request.event_patterns)?;
        let settings = self.settings.now();
        callback("callback_subject", &request.callback_subject, &settings.common.callbacks)?;
        let filter = Filter::read(&request.filters)?;
        let ttl_s = match request.ttl_seconds {
            0 => TTL_DEFAULT_S,
            seconds @ TTL_MIN_S..=TTL_MAX_S => seconds,
            _ => return Err(out_of_range("ttl_seconds", TTL_MIN_S, TTL_MAX_S).into()),
        };
        let subscription_id = subscription_id(&context, &request);
        let place = key(&[context.tenant(), &subscription_id]);
        let from_last = filter.is_from_last;
        let rule = |current: &Current<Kept>| {
            let expires_at_ms = current.now_ms + i64::from(ttl_s) * 1_000;
            let subscription = Subscription {
                tenant: context.tenant().to_owned(),
                subscription_id: subscription_id.clone(),
                patterns: patterns.clone(),
                callback_subject: request.callback_subject.clone(),
                filter: filter.clone(),
                expires_at_ms,
            };
            let active_patterns = patterns.clone();
            let reply = Subscribed { subscription_id: subscription_id.clone(), active_patterns, expires_at_ms };
            Ok(Change::put(Kept::Subscription(subscription), reply).expires_at_ms(expires_at_ms))
        };
        let write = async {
            let is_new = self.kept.get(&context, &place).await?.is_none();
            let reply = self.kept.change(&context, &place, rule).await?.reply;
            if is_new
                && from_last
                && let Some(stored) = self.kept.get(&context, &place).await?
                && let Kept::Subscription(subscription) = stored.value
            {
                self.bring_last(&context, &subscription).await?;
            }
            Ok(reply)
        };
        self.repeats.once(&context, write).await
    }

    async fn follow_subscriptions(self: Arc<Self>, context: Context) {
        self.index.follow(&self.kept, &context).await;
    }

    async fn sweep(self: Arc<Self>, context: Context) {
        self.kept.sweeper(&context).await;
    }
}

/// The patterns without those that another one covers.
fn check_patterns(patterns: &[String]) -> Result<Vec<String>, Fault> {
    if patterns.is_empty() {
        return Err(required("event_patterns"));
    }
    if patterns.len() > PATTERNS_MAX {
        return Err(invalid("event_patterns", "too_many", format!("at most {PATTERNS_MAX} patterns")));
    }
    for (index, pattern) in patterns.iter().enumerate() {
        check_pattern(&format!("event_patterns[{index}]"), pattern)?;
    }
    Ok(active(patterns))
}

/// The same for the same subscriber, patterns, callback and filters, so that a repeat renews.
fn subscription_id(context: &Context, request: &Subscribe) -> String {
    let mut patterns = request.event_patterns.clone();
    patterns.sort_unstable();
    let filters = request.filters.iter().map(|(name, value)| (name.clone(), Value::from(value.clone())));
    let parts = [
        Part::Text("event.sub.v1"),
        tenant_part(context.tenant()),
        Part::Text(&request.subscriber_id),
        Part::Text(&patterns.join(",")),
        Part::Text(&request.callback_subject),
        Part::Text(&canonical_json(&Struct(filters.collect()))),
    ];
    format!("sub_{:016x}", seed(&parts))
}

/// True where one of the patterns takes the event, and it is one of the tenant's.
fn is_wanted(patterns: &[String], filter: &Filter, tenant: &str, event: &GameEvent) -> bool {
    subscriptions::tenant_of(event) == tenant
        && patterns.iter().any(|pattern| takes(pattern, &event.event_type))
        && filter.takes(event)
}
