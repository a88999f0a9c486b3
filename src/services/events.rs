//! The logs of the game's events and the durable consumers that read them, as data: provisioning, checks and services
//! read the same rows.

use std::time::Duration;

use crate::fault::Fault;
use crate::store::{ConsumerConfig, Discard, LogConfig, Retention, Store};

const KIB: usize = 1_024;

/// Every log. `TELEMETRY` is reserved: its subjects belong to packages without a service, and it is made by hand where
/// they are used.
pub const LOGS: &[LogConfig] = &[
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
        max_age: hours(1),
        duplicate_window: minutes(2),
        consumers_max: 100,
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "SYSTEM_EVENTS",
        subjects: &["evt.capability.>", "evt.settings.>", "evt.auth.>", "evt.perf.>", "evt.router.>"],
        max_age: minutes(5),
        message_bytes_max: 512 * KIB,
        duplicate_window: minutes(1),
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "AI_EVENTS",
        subjects: &["evt.ai.>"],
        max_age: hours(1),
        message_bytes_max: 512 * KIB,
        duplicate_window: minutes(2),
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "NARRATIVE_EVENTS",
        subjects: &["evt.story.>", "evt.narrative.>", "evt.lang.>", "evt.kb.>"],
        max_age: hours(2),
        duplicate_window: minutes(5),
        consumers_max: 20,
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "ORCHESTRATION_EVENTS",
        subjects: &["evt.orchestration.>"],
        max_age: hours(24),
        duplicate_window: minutes(10),
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "ORCHESTRATION_WORK",
        subjects: &["work.orchestration.>"],
        retention: Retention::WorkQueue,
        max_age: hours(24),
        duplicate_window: minutes(10),
        discard: Discard::New,
        consumers_max: 10,
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "DLQ",
        subjects: &["dlq.>"],
        max_age: hours(7 * 24),
        message_bytes_max: 1_024 * KIB,
        duplicate_window: minutes(2),
        consumers_max: 5,
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "DLQ_ADVISORIES",
        subjects: &["$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>", "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>"],
        max_age: hours(7 * 24),
        message_bytes_max: 64 * KIB,
        duplicate_window: minutes(2),
        consumers_max: 5,
        ..LogConfig::DEFAULT
    },
    LogConfig {
        name: "AUDIT",
        subjects: &["audit.>"],
        max_age: hours(90 * 24),
        message_bytes_max: 256 * KIB,
        duplicate_window: minutes(2),
        denies_removal: true,
        consumers_max: 5,
        ..LogConfig::DEFAULT
    },
];

/// Game-side quest handling, by programs of the game.
pub const QUEST_PROCESSOR: ConsumerConfig = game("quest_processor", "evt.quest.>", 30, 3);
/// Push subscriptions of world-state.
pub const WORLD_STATE_SYNC: ConsumerConfig = game("world_state_sync", "evt.world.>", 10, 5);
/// Dawn, dusk and seasons of weather-manager.
pub const WEATHER_TIME_SYNC: ConsumerConfig = game("weather_time_sync", "evt.time.>", 10, 5);
/// Subscriptions of event-bus, pulled by the replica that holds the log's lease.
pub const EVENT_DISPATCH: [ConsumerConfig; 5] = [
    dispatch("GAME_EVENTS", "event_dispatch_game"),
    dispatch("SYSTEM_EVENTS", "event_dispatch_system"),
    dispatch("NARRATIVE_EVENTS", "event_dispatch_narrative"),
    dispatch("AI_EVENTS", "event_dispatch_ai"),
    dispatch("ORCHESTRATION_EVENTS", "event_dispatch_orchestration"),
];
/// One step of a workflow per event, by orchestration.
pub const ORCHESTRATION_STEP: ConsumerConfig = ConsumerConfig {
    log: "ORCHESTRATION_WORK",
    name: "orchestration_step",
    filter: "work.orchestration.>",
    ack_wait: Duration::from_secs(30),
    deliveries_max: Some(5),
};
/// Dead letters of consumers that crashed, by event-bus.
pub const DLQ_ADVISORIES: ConsumerConfig = ConsumerConfig {
    log: "DLQ_ADVISORIES",
    name: "dlq_advisories",
    filter: "$JS.EVENT.ADVISORY.CONSUMER.>",
    ack_wait: Duration::from_secs(30),
    deliveries_max: None,
};

/// Every durable consumer.
pub fn consumers() -> impl Iterator<Item = ConsumerConfig> {
    [QUEST_PROCESSOR, WORLD_STATE_SYNC, WEATHER_TIME_SYNC, ORCHESTRATION_STEP, DLQ_ADVISORIES]
        .into_iter()
        .chain(EVENT_DISPATCH)
}

/// Provides logs and consumers, where they are not there yet.
pub(super) async fn provide(store: &Store) -> Result<(), Fault> {
    for log in LOGS {
        store.provide_log(log.clone()).await?;
    }
    for consumer in consumers() {
        store.provide_consumer(consumer).await?;
    }
    Ok(())
}

const fn game(name: &'static str, filter: &'static str, ack_wait_s: u64, deliveries_max: u32) -> ConsumerConfig {
    ConsumerConfig {
        log: "GAME_EVENTS",
        name,
        filter,
        ack_wait: Duration::from_secs(ack_wait_s),
        deliveries_max: Some(deliveries_max),
    }
}

const fn dispatch(log: &'static str, name: &'static str) -> ConsumerConfig {
    ConsumerConfig { log, name, filter: "evt.>", ack_wait: Duration::from_secs(30), deliveries_max: Some(5) }
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const fn hours(count: u64) -> Duration {
    minutes(count * 60)
}
