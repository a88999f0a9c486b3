//! Entities of a world: what a message says of one, what the store holds, and how one follows another.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::fault::Fault;
use crate::services::checks::{id, invalid, unknown_value};
use crate::worker::records::base64_text;

/// What an entity may be.
pub(super) const TYPES: [&str; 4] = ["npc", "player", "object", "location"];
/// Most entries of a map, and longest key and value in bytes.
const MAP_MAX: usize = 64;
const MAP_KEY_MAX: usize = 64;
const MAP_VALUE_MAX: usize = 4 * 1024;
/// Most elements of a list.
const LIST_MAX: usize = 1_000;

/// `world_state.v1.Entity`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Entity {
    pub(super) entity_id: String,
    pub(super) entity_type: String,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) tags: Vec<String>,
    pub(super) last_updated_ms: i64,
    pub(super) state_data: Bytes,
}

/// An entity as the store holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) entity_id: String,
    pub(super) entity_type: String,
    pub(super) properties: BTreeMap<String, String>,
    pub(super) tags: Vec<String>,
    pub(super) last_updated_ms: i64,
    #[serde(with = "base64_text")]
    pub(super) state_data: Vec<u8>,
}

impl From<&Stored> for Entity {
    fn from(stored: &Stored) -> Entity {
        let Stored { entity_id, entity_type, properties, tags, last_updated_ms, state_data } = stored.clone();
        Entity { entity_id, entity_type, properties, tags, last_updated_ms, state_data: state_data.into() }
    }
}

impl Entity {
    /// The entity that follows from a merge into what is there.
    pub(super) fn merged(&self, before: Option<&Stored>, now_ms: i64) -> Stored {
        let mut after = before.cloned().unwrap_or_else(|| Stored {
            entity_id: self.entity_id.clone(),
            entity_type: String::new(),
            properties: BTreeMap::new(),
            tags: Vec::new(),
            last_updated_ms: 0,
            state_data: Vec::new(),
        });
        after.properties.extend(self.properties.clone());
        if !self.tags.is_empty() {
            after.tags.clone_from(&self.tags);
        }
        if !self.entity_type.is_empty() {
            after.entity_type = self.entity_type.to_ascii_lowercase();
        }
        if !self.state_data.is_empty() {
            after.state_data = self.state_data.to_vec();
        }
        after.last_updated_ms = now_ms;
        after
    }

    /// The entity as it stands, whatever was there before.
    pub(super) fn alone(&self, now_ms: i64) -> Stored {
        self.merged(None, now_ms)
    }

    fn check(&self, field: &str) -> Result<(), Fault> {
        id(&format!("{field}.entity_id"), &self.entity_id)?;
        entity_type(&format!("{field}.entity_type"), &self.entity_type)?;
        map(&format!("{field}.properties"), &self.properties)?;
        list(&format!("{field}.tags"), self.tags.len())
    }
}

impl Stored {
    /// The same but for when it was written.
    pub(super) fn says_the_same(&self, other: &Stored) -> bool {
        let mut other = other.clone();
        other.last_updated_ms = self.last_updated_ms;
        *self == other
    }

    /// As much of it as fits: all, or less by its state, its properties and its tags, in this order; and whether
    /// something is left out.
    pub(super) fn as_fits(&self, fits: impl Fn(&Entity) -> bool) -> (Entity, bool) {
        let mut shown = Entity::from(self);
        if fits(&shown) {
            return (shown, false);
        }
        shown.state_data = Bytes::new();
        if !fits(&shown) {
            shown.properties.clear();
        }
        if !fits(&shown) {
            shown.tags.clear();
        }
        (shown, true)
    }

    pub(super) fn has_tags(&self, tags: &[String]) -> bool {
        tags.iter().all(|tag| self.tags.contains(tag))
    }
}

/// Entities of a request: all good, and no id twice.
pub(super) fn check_entities(field: &str, entities: &[Entity]) -> Result<(), Fault> {
    list(field, entities.len())?;
    let mut seen = std::collections::BTreeSet::new();
    for (index, entity) in entities.iter().enumerate() {
        let field = format!("{field}[{index}]");
        entity.check(&field)?;
        if !seen.insert(entity.entity_id.as_str()) {
            let text = format!("entity {} is there twice", entity.entity_id);
            return Err(invalid(&format!("{field}.entity_id"), "duplicate", text));
        }
    }
    Ok(())
}

/// Empty, or one of the four.
pub(super) fn entity_type(field: &str, value: &str) -> Result<(), Fault> {
    if value.is_empty() || TYPES.iter().any(|known| known.eq_ignore_ascii_case(value)) {
        return Ok(());
    }
    Err(unknown_value(field, format!("unknown entity type {value}"), &TYPES))
}

pub(super) fn map(field: &str, map: &BTreeMap<String, String>) -> Result<(), Fault> {
    if map.len() > MAP_MAX {
        return Err(invalid(field, "too_many", format!("{field} has more than {MAP_MAX} entries")));
    }
    let is_long = |(key, value): (&String, &String)| key.len() > MAP_KEY_MAX || value.len() > MAP_VALUE_MAX;
    if map.iter().any(is_long) {
        let text = format!("{field} has a key over {MAP_KEY_MAX} bytes or a value over {MAP_VALUE_MAX} bytes");
        return Err(invalid(field, "too_long", text));
    }
    Ok(())
}

pub(super) fn list(field: &str, count: usize) -> Result<(), Fault> {
    if count > LIST_MAX {
        return Err(invalid(field, "too_many", format!("{field} has more than {LIST_MAX} elements")));
    }
    Ok(())
}
