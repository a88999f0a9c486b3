//! The clock of a world as it runs: an item at each minute, hour or day, and at once where it was set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::calendar::{DAY_MS, GameTime, HOUR_MS, MINUTE_MS};
use super::{Kept, TimeManager, clock_key, world};
use crate::fault::Fault;
use crate::services::background::Agenda;
use crate::services::checks::unknown_value;
use crate::store::Keys;
use crate::worker::records::{Document, RecordSeen};
use crate::worker::{Chunks, Context};

/// Names of the steps and their lengths in game milliseconds.
const STEPS: [(&str, i64); 3] = [("minute", MINUTE_MS), ("hour", HOUR_MS), ("day", DAY_MS)];

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    world_id: String,
    granularity: String,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    /// Of the clock's last setting.
    revision: u64,
    game_time: Option<GameTime>,
    real_time_ms: i64,
    time_scale: f64,
}

impl TimeManager {
    pub(super) async fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let world_id = world(&request.world_id)?;
        let step_ms = step(&request.granularity)?;
        let Document { value: mut clock, mut revision, .. } = self.clock(&context, world_id).await?;
        let place = clock_key(context.tenant(), world_id);
        let mut watch = self.times.watch(Keys::One(place.clone()), Some(request.after_revision)).await?;
        if watch.is_reset() {
            context.label("reset", "true");
        }
        let index_at = |game_ms: i64| game_ms.div_euclid(step_ms);
        let is_known = request.after_revision >= revision && !watch.is_reset();
        let mut told = is_known.then(|| index_at(clock.game_at(context.now_ms())));
        let mut agenda = Agenda::default();
        loop {
            let now_ms = context.now_ms();
            let game_ms = clock.game_at(now_ms);
            if told != Some(index_at(game_ms)) {
                told = Some(index_at(game_ms));
                let game_time = Some(GameTime::at(game_ms));
                let time_scale = clock.scale_at(now_ms);
                chunks.send(&Item { revision, game_time, real_time_ms: now_ms, time_scale }).await?;
            }
            agenda.set(&place, clock.real_at((index_at(game_ms) + 1) * step_ms));
            tokio::select! {
                seen = watch.next(&context) => if let RecordSeen::Change { document, revision: changed, .. } = seen?
                    && let Some(Document { value: Kept::Clock(set), .. }) = document
                    && changed > revision
                {
                    (clock, revision, told) = (set, changed, None);
                },
                () = agenda.until_next(context.now_ms()) => {}
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }
}

fn step(granularity: &str) -> Result<i64, Fault> {
    let wanted = if granularity.is_empty() { "hour".to_owned() } else { granularity.to_ascii_lowercase() };
    let known = STEPS.iter().find(|(name, _)| *name == wanted).map(|(_, step_ms)| *step_ms);
    known.ok_or_else(|| {
        let text = format!("unknown granularity {granularity}");
        unknown_value("granularity", text, &STEPS.map(|(name, _)| name))
    })
}
