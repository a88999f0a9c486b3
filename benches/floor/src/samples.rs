//! The measured messages: deterministic, and of the sizes that the bench names.

use std::collections::BTreeMap;

use crate::bench::{Item, Large, Nested, Position, Small, nested};

/// About 150 bytes of JSON.
pub fn small(number: u64) -> Small {
    Small {
        player_id: format!("player-{number:06}"),
        seed: 42_000_000_000 + number,
        difficulty: "NORMAL".to_owned(),
        is_active: true,
        score: 1234.5625 + number as f64 / 3.0,
        level: 17 + number as i32 % 50,
        at: Some(pbjson_types::Timestamp { seconds: 1_760_000_000 + number as i64, nanos: 125_000_000 }),
    }
}

fn item(number: u64) -> Item {
    Item {
        item_id: format!("item_{number:04}"),
        name: "Lantern of \"the\" Drowned – grün".to_owned(),
        count: number as u32 % 7 + 1,
        rarity: (number % 3) as i32,
        weight: 0.1 + number as f64 * 1.7,
        attributes: BTreeMap::from([
            ("smell".to_owned(), "wet iron".to_owned()),
            ("sound".to_owned(), "a distant saw".to_owned()),
        ]),
        sockets: vec![1, -2, 300, number as i32],
    }
}

/// About 2 KB of JSON.
pub fn nested(number: u64) -> Nested {
    Nested {
        player_id: format!("player-{number:06}"),
        position: Some(Position { x: 12.5, y: -3.25 - number as f64, z: 1e-3 }),
        items: (0..7).map(|index| item(number + index)).collect(),
        counters: [("kills", 12i64), ("deaths", 3), ("gold", 9_007_199_254_740_993)]
            .map(|(name, count)| (name.to_owned(), count + number as i64))
            .into(),
        place: Some(if number.is_multiple_of(2) {
            nested::Place::Zone("the fish market".to_owned())
        } else {
            nested::Place::Coordinates(Position { x: 0.5, y: 0.25, z: -8.0 })
        }),
        summary: Some(small(number)),
        samples: (0..12).map(|index| f64::from(index) * 0.73 - 2.0).collect(),
        updated_at: Some(pbjson_types::Timestamp { seconds: 1_760_000_000, nanos: 0 }),
    }
}

/// About 100 KB of JSON.
pub fn large() -> Large {
    Large { world_id: "night-city".to_owned(), players: (0..50).map(nested).collect() }
}
