//! Push subscriptions: each change of a matching entity goes to the callback, from the replica that holds the event.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Worlds;
use super::entities::{Entity, entity_type, list};
use crate::fault::Fault;
use crate::services::checks::{callback, id, out_of_range};
use crate::services::notices::{GameEvent, push};
use crate::services::seed::{Part, seed, tenant_part};
use crate::store::{Keys, Logged, key};
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed, Setback};

/// Life of a subscription in seconds, where the request does not say, and its bounds.
const TTL_DEFAULT_S: i32 = 3_600;
const TTL_MIN_S: i32 = 60;
const TTL_MAX_S: i32 = 86_400;

/// A subscription as the store holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Subscription {
    subscription_id: String,
    /// Sorted; empty is any.
    entity_types: Vec<String>,
    /// Sorted; all have to be there.
    tags: Vec<String>,
    callback_subject: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Subscribe {
    world_id: String,
    entity_types: Vec<String>,
    tags: Vec<String>,
    callback_subject: String,
    ttl_seconds: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Subscribed {
    subscription_id: String,
    matched_entities: i32,
    expires_at_ms: i64,
}

/// True where an entity of that type with those tags is wanted.
pub(super) fn is_wanted(types: &[String], tags: &[String], of_type: &str, has_tags: &[String]) -> bool {
    (types.is_empty() || types.iter().any(|wanted| wanted == of_type)) && tags.iter().all(|tag| has_tags.contains(tag))
}

/// Types and tags of a request, checked, in lower case and in order.
pub(super) fn filter(types: &[String], tags: &[String]) -> Result<(Vec<String>, Vec<String>), Fault> {
    list("entity_types", types.len())?;
    for (index, of_type) in types.iter().enumerate() {
        entity_type(&format!("entity_types[{index}]"), of_type)?;
    }
    list("tags", tags.len())?;
    let mut types: Vec<String> = types.iter().map(|of_type| of_type.to_ascii_lowercase()).collect();
    let mut tags = tags.to_vec();
    types.sort();
    tags.sort();
    Ok((types, tags))
}

impl Worlds {
    pub(super) async fn subscribe(
        self: Arc<Self>,
        context: Context,
        request: Subscribe,
    ) -> Result<Subscribed, Failed<Subscribed>> {
        id("world_id", &request.world_id)?;
        let (entity_types, tags) = filter(&request.entity_types, &request.tags)?;
        callback("callback_subject", &request.callback_subject, &self.settings.now().common.callbacks)?;
        let ttl_s = match request.ttl_seconds {
            0 => TTL_DEFAULT_S,
            seconds @ TTL_MIN_S..=TTL_MAX_S => seconds,
            _ => return Err(out_of_range("ttl_seconds", TTL_MIN_S, TTL_MAX_S).into()),
        };
        let (all_types, all_tags) = (entity_types.join(","), tags.join(","));
        let parts = [
            Part::Text("world.sub.v1"),
            tenant_part(context.tenant()),
            Part::Text(&request.world_id),
            Part::Text(&all_types),
            Part::Text(&all_tags),
            Part::Text(&request.callback_subject),
        ];
        let subscription_id = format!("wsub_{:016x}", seed(&parts));
        let entities = self.current(&context, &request.world_id).await?.unwrap_or_default().entities;
        let matched =
            entities.values().filter(|entity| is_wanted(&entity_types, &tags, &entity.entity_type, &entity.tags));
        let matched_entities = i32::try_from(matched.count()).unwrap_or(i32::MAX);
        let callback_subject = request.callback_subject.clone();
        let subscription =
            Subscription { subscription_id: subscription_id.clone(), entity_types, tags, callback_subject };
        let rule = |current: &Current<Subscription>| {
            let expires_at_ms = current.now_ms + i64::from(ttl_s) * 1_000;
            let reply = Subscribed { subscription_id: subscription_id.clone(), matched_entities, expires_at_ms };
            Ok(Change::put(subscription.clone(), reply).expires_at_ms(expires_at_ms))
        };
        let at = key(&[context.tenant(), &request.world_id, &subscription_id]);
        let write = async { Ok(self.subscriptions.change(&context, &at, rule).await?.reply) };
        self.repeats.once(&context, write).await
    }

    /// An entity has changed: pushes it to everybody who wants it as it is, or wanted it as it was.
    pub(super) async fn push_changes(self: Arc<Self>, context: Context, event: Logged) -> Result<(), Setback> {
        let event: GameEvent = context.decode("event_bus.v1.GameEvent", &event.payload)?;
        if event.event_type != "world.entity.updated" {
            return Ok(());
        }
        let entity: Entity = context.decode("world_state.v1.Entity", &event.payload)?;
        let of = |name: &str| event.metadata.get(name).map_or("", String::as_str);
        let own = context.for_tenant(of("tenant_id"));
        let previous_type = event.metadata.get("previous_type").unwrap_or(&entity.entity_type);
        let previous_tags = event.metadata.get("previous_tags").and_then(|tags| serde_json::from_str(tags).ok());
        let previous_tags: Vec<String> = previous_tags.unwrap_or_else(|| entity.tags.clone());
        let keys = Keys::Under(key(&[own.tenant(), of("world_id")]));
        for (_, document) in self.subscriptions.list(&own, &keys).await? {
            let Subscription { entity_types, tags, callback_subject, .. } = &document.value;
            if is_wanted(entity_types, tags, &entity.entity_type, &entity.tags)
                || is_wanted(entity_types, tags, previous_type, &previous_tags)
            {
                push(&own, callback_subject, &event).await?;
            }
        }
        Ok(())
    }
}
