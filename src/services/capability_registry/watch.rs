//! Registrations as they change: what is there, then who comes, goes silent, speaks again, and is removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Registration, Registry};
use crate::fault::Fault;
use crate::services::capabilities::{Capability, ServiceCapability};
use crate::worker::records::{Document, RecordSeen};
use crate::worker::{Context, Moment};

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

/// The registrations that a watch knows of, by key, and whether they were alive when they were last looked at.
struct Known {
    registrations: BTreeMap<String, (Registration, bool)>,
    /// What was there when the watch began has not all been told.
    is_snapshot: bool,
}

impl Registry {
    pub(super) fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        _: bool,
    ) -> Result<impl FnMut(Moment<Registration>) -> Result<Vec<Item>, Fault>, Fault> {
        let mut known = Known { registrations: BTreeMap::new(), is_snapshot: true };
        Ok(move |seen| {
            let (now_ms, grace_ms) = (context.now_ms(), self.grace_ms());
            let is_wanted = |capability: &Capability| {
                request.capability_type.is_empty() || capability.capability_type == request.capability_type
            };
            let news = known.news(seen, |registration| registration.is_online(now_ms, grace_ms)).into_iter();
            let items = news.filter_map(|(revision, registration, change)| {
                let service = Some(registration.shown(now_ms, grace_ms).only(is_wanted)?);
                Some(Item { revision, service, change: change.to_owned() })
            });
            Ok(items.collect())
        })
    }
}

impl Known {
    /// What is to be told: the revision, which the passing of time has not, the registration, and what has happened to it.
    fn news(
        &mut self,
        seen: Moment<Registration>,
        is_online: impl Fn(&Registration) -> bool,
    ) -> Vec<(u64, Registration, &'static str)> {
        match seen {
            Some(RecordSeen::Current) => {
                self.is_snapshot = false;
                Vec::new()
            }
            Some(RecordSeen::Change { key, document, revision, .. }) => {
                let before = self.registrations.remove(&key);
                let Some(Document { value: after, .. }) = document else {
                    return before.into_iter().map(|(before, _)| (revision, before, "removed")).collect();
                };
                let is_online = is_online(&after);
                let change = match &before {
                    _ if self.is_snapshot => Some("snapshot"),
                    Some((before, was_online)) if before.offers() == after.offers() => {
                        (is_online && !was_online).then_some("online")
                    }
                    _ => Some("registered"),
                };
                self.registrations.insert(key, (after.clone(), is_online));
                change.into_iter().map(|change| (revision, after.clone(), change)).collect()
            }
            None => {
                let mut silent = Vec::new();
                for (registration, was_online) in self.registrations.values_mut() {
                    let is_online = is_online(registration);
                    if *was_online && !is_online {
                        silent.push((0, registration.clone(), "offline"));
                    }
                    *was_online = is_online;
                }
                silent
            }
        }
    }
}
