//! The weather of a zone as it changes: the current condition first, then every change, however fast they came.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::zone::{MINUTE_MS, Zone};
use super::{Kept, Weather, WeatherCondition, place, zone_key};
use crate::fault::Fault;
use crate::store::Keys;
use crate::worker::records::{Document, RecordSeen};
use crate::worker::{Chunks, Context};

/// How often a watch says that it still reads its zone.
const READS: Duration = Duration::from_secs(1_800);

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    world_id: String,
    zone_id: String,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    revision: u64,
    weather: Option<WeatherCondition>,
    zone_id: String,
    change: String,
}

impl Weather {
    pub(super) async fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let place = place(&context, &request.world_id, &request.zone_id)?;
        self.zone(&context, &place).await?;
        let mut watch = self.kept.watch(Keys::One(zone_key(&place)), Some(request.after_revision)).await?;
        let mut told = request.after_revision;
        if watch.is_reset() {
            context.label("reset", "true");
            told = 0;
        }
        let mut reads = tokio::time::interval(READS);
        loop {
            tokio::select! {
                seen = watch.next(&context) => if let RecordSeen::Change { document, revision, .. } = seen?
                    && let Some(Document { value: Kept::Zone(zone), .. }) = document
                {
                    let items = match told {
                        0 => vec![Item::new(&zone, revision, WeatherCondition::now(&zone, context.now_ms()), "snapshot")],
                        told => behind(&zone, told, revision, context.now_ms()),
                    };
                    for item in items {
                        chunks.send(&item).await?;
                    }
                    told = revision;
                },
                _ = reads.tick() => drop(self.zone(&context, &place).await?),
                _ = context.until_cancelled() => return Ok(()),
            }
        }
    }
}

impl Item {
    fn new(zone: &Zone, revision: u64, weather: WeatherCondition, change: &str) -> Item {
        Item { revision, weather: Some(weather), zone_id: zone.zone_id.clone(), change: change.to_owned() }
    }
}

/// The changes that were written behind a revision, as far as they are kept; of a zone that began behind it, what is now.
fn behind(zone: &Zone, told: u64, revision: u64, now_ms: i64) -> Vec<Item> {
    if told < zone.began(revision) {
        return vec![Item::new(zone, revision, WeatherCondition::now(zone, now_ms), "snapshot")];
    }
    let first = zone.changes.iter().position(|past| past.after >= told).unwrap_or(zone.changes.len());
    let fresh: Vec<_> = zone.changes.iter().skip(first).collect();
    let items = fresh.iter().enumerate().map(|(index, past)| match fresh.get(index + 1) {
        // Who goes on behind it gets what was written together with it or later.
        Some(next) => {
            let weather = WeatherCondition::of(zone, past, next.minute - past.minute);
            Item::new(zone, next.after, weather, past.cause.name())
        }
        None => {
            let shown = zone.shown(now_ms);
            let weather = WeatherCondition::of(zone, past, shown.next_minute - now_ms.div_euclid(MINUTE_MS));
            Item::new(zone, revision, weather, past.cause.name())
        }
    });
    items.collect()
}
