//! Registrations as they change: what is there, then who comes, goes silent, speaks again, and is removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Registration, Registry};
use crate::fault::Fault;
use crate::services::capabilities::{Capability, ServiceCapability};
use crate::store::{Keys, key};
use crate::worker::records::{Document, RecordSeen};
use crate::worker::{Chunks, Context};

/// How often a watch looks for instances that have gone silent.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Serialize, Deserialize)]
pub(super) struct Watch {
    capability_type: String,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    revision: u64,
    service: Option<ServiceCapability>,
    change: String,
}

impl Registry {
    pub(super) async fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let tenant = key(&[context.tenant()]);
        let mut watch = self.registrations.watch(Keys::Under(tenant), Some(request.after_revision)).await?;
        if watch.is_reset() {
            context.label("reset", "true");
        }
        let is_wanted = |capability: &Capability| {
            request.capability_type.is_empty() || capability.capability_type == request.capability_type
        };
        let mut known: BTreeMap<String, (Registration, bool)> = BTreeMap::new();
        let mut is_snapshot = true;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let mut changes: Vec<(u64, ServiceCapability, &str)> = Vec::new();
            let grace_ms = self.grace_ms();
            tokio::select! {
                seen = watch.next(&context) => match seen? {
                    RecordSeen::Current => is_snapshot = false,
                    RecordSeen::Change { key, document, revision, .. } => {
                        let now_ms = context.now_ms();
                        let before = known.remove(&key);
                        let Some(Document { value: after, .. }) = document else {
                            let gone = before.map(|(before, _)| before.shown(now_ms, grace_ms));
                            changes.extend(gone.map(|shown| (revision, shown, "removed")));
                            self.send(&mut chunks, changes, is_wanted).await?;
                            continue;
                        };
                        let is_online = after.is_online(now_ms, grace_ms);
                        let change = match &before {
                            _ if is_snapshot => Some("snapshot"),
                            Some((before, was_online)) if before.offers() == after.offers() => {
                                (is_online && !was_online).then_some("online")
                            }
                            _ => Some("registered"),
                        };
                        changes.extend(change.map(|change| (revision, after.shown(now_ms, grace_ms), change)));
                        known.insert(key, (after, is_online));
                    }
                },
                _ = looks.tick() => {
                    let now_ms = context.now_ms();
                    for (registration, was_online) in known.values_mut() {
                        let is_online = registration.is_online(now_ms, grace_ms);
                        if *was_online && !is_online {
                            changes.push((0, registration.shown(now_ms, grace_ms), "offline"));
                        }
                        *was_online = is_online;
                    }
                }
                _ = context.until_cancelled() => return Ok(()),
            }
            self.send(&mut chunks, changes, is_wanted).await?;
        }
    }

    async fn send(
        &self,
        chunks: &mut Chunks<Item>,
        changes: Vec<(u64, ServiceCapability, &str)>,
        is_wanted: impl Fn(&Capability) -> bool,
    ) -> Result<(), Fault> {
        for (revision, shown, change) in changes {
            if let Some(shown) = shown.only(&is_wanted) {
                chunks.send(&Item { revision, service: Some(shown), change: change.to_owned() }).await?;
            }
        }
        Ok(())
    }
}
