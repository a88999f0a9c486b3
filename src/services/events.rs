//! The logs of the game's events and the durable consumers that read them, as data: provisioning, checks and services
//! read the same rows.

use std::time::Duration;

use crate::fault::{Code, Fault};
use crate::store::{ConsumerConfig, Discard, LogConfig, Retention, Store};
use crate::worker::{Consume, Service, WorkQueues, dead_letters};

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

/// Subjects of the events that the services publish.
pub const EVENTS: &[&str] = &[
    "evt.ai.llm.generated.v1",
    "evt.ai.model.selected.v1",
    "evt.state.player.updated.v1",
    "evt.state.entity.updated.v1",
    "evt.quest.generated.v1",
    "evt.npc.behavior.planned.v1",
    "evt.world.state.changed.v1",
    "evt.world.entity.updated.v1",
    "evt.orchestration.workflow.started.v1",
    "evt.orchestration.workflow.completed.v1",
    "evt.router.route.completed.v1",
    "evt.time.hour.changed.v1",
    "evt.time.day.changed.v1",
    "evt.weather.changed.v1",
    "evt.settings.changed.v1",
    "evt.payment.completed.v1",
    "evt.perf.mode.changed.v1",
    "evt.capability.registered.v1",
    "evt.capability.removed.v1",
    "evt.kb.document.ingested.v1",
    "evt.lang.translation.completed.v1",
    "evt.narrative.generated.v1",
    "evt.story.generated.v1",
    "evt.broker.harvest.completed.v1",
    "evt.broker.deal.completed.v1",
];

/// Provides logs and consumers, where they are not there yet; refuses tables with a gap first.
pub(super) async fn provide(store: &Store) -> Result<(), Fault> {
    let problems = gaps(LOGS, EVENTS);
    if !problems.is_empty() {
        return Err(Fault::ours(Code::Internal, "the tables of events do not fit").internal(problems.join("\n")));
    }
    for log in LOGS {
        store.provide_log(log.clone()).await?;
    }
    for consumer in consumers() {
        store.provide_consumer(consumer).await?;
    }
    Ok(())
}

/// Adds the reader of advisories to the one service that may read every log: what killed its handlers becomes a dead
/// letter, work that was given up or that nobody has done leaves its queue, and dead letters are counted.
pub fn keeping_dead_letters(service: Service) -> Service {
    let service = service.task("dead-letters", dead_letters::count);
    let advisories = Consume::new(DLQ_ADVISORIES).parallel(4);
    dead_letters::reading_advisories(service, advisories, WorkQueues::new(LOGS, consumers()))
}

/// Events that no log takes or that several take, and logs that take the same subjects.
fn gaps(logs: &[LogConfig], events: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for event in events {
        let takers: Vec<&str> = logs.iter().filter(|log| takes(log, event)).map(|log| log.name).collect();
        match takers[..] {
            [_] => {}
            [] => problems.push(format!("no log takes `{event}`: add its prefix to one")),
            _ => problems.push(format!("`{event}` is taken by {}: leave it to one of them", takers.join(" and "))),
        }
    }
    for (index, log) in logs.iter().enumerate() {
        for other in &logs[..index] {
            let shared =
                log.subjects.iter().find(|subject| other.subjects.iter().any(|theirs| overlap(subject, theirs)));
            if let Some(subject) = shared {
                problems.push(format!("`{}` and `{}` both take `{subject}`", other.name, log.name));
            }
        }
    }
    problems
}

fn takes(log: &LogConfig, subject: &str) -> bool {
    log.subjects.iter().any(|pattern| overlap(pattern, subject))
}

/// True where both patterns take a subject; here every one is literal but for a `>` at its end.
fn overlap(one: &str, other: &str) -> bool {
    let under = |pattern: &str, subject: &str| match pattern.strip_suffix('>') {
        Some(start) => subject.starts_with(start),
        None => subject == pattern,
    };
    under(one, other) || under(other, one)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_exactly_one_log() {
        assert_eq!(gaps(LOGS, EVENTS), [""; 0]);
    }

    #[test]
    fn gaps_and_overlaps_are_named() {
        let log = |name, subjects| LogConfig { name, subjects, ..LogConfig::DEFAULT };
        let logs = [log("A", &["evt.a.>", "evt.b.>"]), log("B", &["evt.b.c.>", "evt.d"])];
        assert_eq!(
            gaps(&logs, &["evt.a.x", "evt.b.c.d", "evt.d", "evt.z"]),
            [
                "`evt.b.c.d` is taken by A and B: leave it to one of them",
                "no log takes `evt.z`: add its prefix to one",
                "`A` and `B` both take `evt.b.c.>`",
            ]
        );
    }

    #[test]
    fn every_consumer_reads_a_log_of_the_table() {
        for consumer in consumers() {
            let log = LOGS.iter().find(|log| log.name == consumer.log);
            let log = log.unwrap_or_else(|| panic!("{}", consumer.name));
            let reads = log.subjects.iter().any(|subject| overlap(subject, consumer.filter));
            assert!(reads, "{} reads nothing of {}", consumer.name, log.name);
        }
    }
}
