//! The logs that keep the services' events.

use std::time::Duration;

use crate::fault::Fault;
use crate::store::{LogConfig, Store};

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

/// Provides the logs, where there are none yet.
pub(super) async fn provide(store: &Store) -> Result<(), Fault> {
    for log in LOGS {
        store.provide_log(log).await?;
    }
    Ok(())
}
