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

impl Watch {
    fn wants(&self, capability: &Capability) -> bool {
        self.capability_type.is_empty() || capability.capability_type == self.capability_type
    }

    fn wants_some(&self, registration: &Registration) -> bool {
        registration.capabilities.iter().any(|capability| self.wants(capability))
    }
}

impl Registry {
    pub(super) fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        before: Option<Vec<(String, Document<Registration>)>>,
    ) -> Result<impl FnMut(Moment<Registration>) -> Result<Vec<Item>, Fault>, Fault> {
        // What the watcher knows, but for who has gone silent since: that is told at the first look.
        let told = before.into_iter().flatten().filter(|(_, document)| document.revision <= request.after_revision);
        let told = told.filter(|(_, document)| request.wants_some(&document.value));
        let registrations = told.map(|(key, document)| (key, (document.value, true))).collect();
        let mut known = Known { registrations, is_snapshot: true };
        Ok(move |mut seen: Moment<Registration>| {
            let (now_ms, grace_ms) = (context.now_ms(), self.grace_ms());
            // What offers nothing of the wanted type any more has gone for who watches it.
            if let Some(RecordSeen::Change { document, .. }) = &mut seen {
                document.take_if(|document| !request.wants_some(&document.value));
            }
            let news = known.news(seen, |registration| registration.is_online(now_ms, grace_ms)).into_iter();
            let items = news.map(|(revision, registration, change)| {
                let service = registration.shown(now_ms, grace_ms).only(|capability| request.wants(capability));
                Item { revision, service, change: change.to_owned() }
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
                let is_alive = is_online(&after);
                let change = match &before {
                    Some((before, was_online)) if before.offers() == after.offers() => {
                        let was_alive = *was_online && is_online(before);
                        (is_alive && !was_alive).then_some("online")
                    }
                    _ if self.is_snapshot => Some("snapshot"),
                    _ => Some("registered"),
                };
                self.registrations.insert(key, (after.clone(), is_alive));
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
