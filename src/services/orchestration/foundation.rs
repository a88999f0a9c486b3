//! The ground that generated layers stand on: monsters and a place, drawn by seed.

use serde_json::{Value, json};

use crate::services::seed::{Draws, Part, seed, tenant_part};

const TYPES: [&str; 5] = ["ghoul", "golem", "shade", "hound", "swarm"];
const BIOMES: [&str; 5] = ["forest", "desert", "tundra", "swamp", "mountain"];
const ROOMS: [&str; 4] = ["cellar", "ward", "nave", "vault"];

/// The foundation of a seed, the parameter of that name or else the execution's id.
pub(super) fn generate(tenant: &str, source: &str) -> Value {
    let parts = [Part::Text("orchestration.foundation.v1"), tenant_part(tenant), Part::Text(source)];
    let mut draws = Draws::new(seed(&parts));
    let kind = draws.pick(&TYPES);
    let mut between = |from, to| draws.between(from, to);
    let (hp, attack, defence, speed) = (between(50, 200), between(10, 50), between(5, 30), between(20, 80));
    let monster = json!({ "type": kind, "hp": hp, "attack": attack, "defence": defence, "speed": speed });
    let (biome, room) = (draws.pick(&BIOMES), draws.pick(&ROOMS));
    json!({ "monsters": [monster], "biome": biome, "room": room })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_ground_within_its_bounds() {
        assert_eq!(generate("", "42"), generate("", "42"));
        assert_ne!(generate("", "42"), generate("t", "42"));
        for source in 0..200 {
            let ground = generate("", &source.to_string());
            let monster = &ground["monsters"][0];
            for (name, from, to) in [("hp", 50, 200), ("attack", 10, 50), ("defence", 5, 30), ("speed", 20, 80)] {
                assert!((from..=to).contains(&monster[name].as_u64().unwrap()), "{name} of {ground}");
            }
            assert!(TYPES.contains(&monster["type"].as_str().unwrap()));
        }
    }
}
