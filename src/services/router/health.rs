//! The health of all services: asked for, watched, gathered over replicas, and probed where nobody calls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::figures::{Figures, Outcome};
use super::{Kept, Router, is_failure};
use crate::fault::Fault;
use crate::services::capabilities::registered;
use crate::services::settings::NAMES;
use crate::store::{Keys, key_token};
use crate::worker::records::{Change, Current, RecordSeen};
use crate::worker::{Chunks, Context, Failed};

/// How often the replicas' figures are put together, and how often watches look besides.
const GATHER: Duration = Duration::from_secs(1);
/// Longest wait for a probe.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// This service itself, which is well where it answers.
pub(super) const ITSELF: &str = "router";

#[derive(Serialize, Deserialize)]
pub(super) struct Health {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ServiceStatus {
    service_name: String,
    is_healthy: bool,
    active_instances: i32,
    avg_latency_ms: f64,
    error_rate_percent: i32,
}

#[derive(Serialize, Deserialize)]
pub(super) struct HealthShown {
    services: Vec<ServiceStatus>,
    overall_healthy: bool,
}

#[derive(Serialize, Deserialize)]
pub(super) struct WatchHealth {
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Item {
    revision: u64,
    services: Vec<ServiceStatus>,
    overall_healthy: bool,
}

/// Where the figures of a service are.
pub(super) fn place(service: &str) -> String {
    format!("_health.{}", key_token(service))
}

impl Router {
    pub(super) async fn health(self: Arc<Self>, context: Context, _: Health) -> Result<HealthShown, Fault> {
        let services = self.statuses(&context).await?;
        let overall_healthy = self.overall(&services);
        Ok(HealthShown { services, overall_healthy })
    }

    /// All services first, then those whose health flips. What was missed since an earlier watch is in the first item.
    pub(super) async fn watch_health(
        self: Arc<Self>,
        context: Context,
        request: WatchHealth,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        if request.after_revision > 0 {
            context.label("reset", "true");
        }
        let mut watch = self.kept.watch(Keys::All, None).await?;
        let (mut told, mut revision): (BTreeMap<String, bool>, u64) = (BTreeMap::new(), 0);
        let (mut looks, mut is_current) = (tokio::time::interval(GATHER), false);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                seen = watch.next(&context) => match seen? {
                    RecordSeen::Current => is_current = true,
                    RecordSeen::Change { revision: seen, .. } => revision = revision.max(seen),
                },
                _ = context.until_cancelled() => return Ok(()),
            }
            if !is_current {
                continue;
            }
            let all = self.statuses(&context).await?;
            let overall_healthy = self.overall(&all);
            let flipped = |status: &ServiceStatus| told.get(&status.service_name) != Some(&status.is_healthy);
            let services: Vec<ServiceStatus> = all.into_iter().filter(flipped).collect();
            if !services.is_empty() {
                told.extend(services.iter().map(|status| (status.service_name.clone(), status.is_healthy)));
                chunks.send(&Item { revision, services, overall_healthy }).await?;
            }
        }
    }

    /// All services in the table's order.
    async fn statuses(&self, context: &Context) -> Result<Vec<ServiceStatus>, Fault> {
        // Instances register in the default tenant; without a registry nobody is known to be there.
        let mut instances: BTreeMap<String, i32> = BTreeMap::new();
        match registered(&context.for_tenant("")).await {
            Ok(found) => {
                for service in found.iter().filter(|service| service.is_online) {
                    *instances.entry(service.service().to_owned()).or_default() += 1;
                }
            }
            Err(fault) => tracing::debug!(%fault, "the registry does not answer"),
        }
        let mut statuses = Vec::with_capacity(NAMES.len());
        for service in NAMES {
            let figures = self.figures(context, service).await?;
            let active_instances = instances.get(service).copied().unwrap_or(0);
            let is_known = figures.is_seen() || active_instances > 0 || service == ITSELF;
            statuses.push(ServiceStatus {
                service_name: service.to_owned(),
                is_healthy: is_known && figures.is_healthy(),
                active_instances,
                avg_latency_ms: figures.avg_latency_ms(),
                error_rate_percent: figures.error_rate_percent(),
            });
        }
        Ok(statuses)
    }

    fn overall(&self, statuses: &[ServiceStatus]) -> bool {
        let is_healthy = |name: &String| statuses.iter().any(|one| one.service_name == *name && one.is_healthy);
        self.settings.now().router.critical.iter().all(is_healthy)
    }

    /// The figures of a service as all replicas know them, and what this one has gathered since.
    pub(super) async fn figures(&self, context: &Context, service: &str) -> Result<Figures, Fault> {
        let found = self.kept.get_cached(context, &place(service)).await?;
        let figures = match found.map(|document| document.value) {
            Some(Kept::Figures(figures)) => figures,
            _ => Figures::default(),
        };
        Ok(self.gathered.over(service, figures))
    }

    /// Puts this replica's calls into the shared figures, and probes who is idle, once a second.
    pub(super) async fn gather(self: Arc<Self>, context: Context) {
        let mut ticks = tokio::time::interval(GATHER);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = context.until_cancelled() => return,
            }
            let gathered = async {
                for (service, outcomes) in self.gathered.all() {
                    self.shared(&context, &service, |figures, _| outcomes.iter().for_each(|one| figures.add(one)))
                        .await?;
                    self.gathered.forget(&service, outcomes.len());
                }
                self.probe_idle(&context).await
            };
            if let Err(fault) = gathered.await {
                tracing::warn!(%fault, "figures are put together a second later");
            }
        }
    }

    async fn probe_idle(self: &Arc<Self>, context: &Context) -> Result<(), Fault> {
        let settings = self.settings.now();
        let (idle_ms, retry_ms) = (millis(settings.router.probe_idle), millis(settings.router.retry_unhealthy));
        for service in NAMES.into_iter().filter(|name| *name != ITSELF) {
            let figures = self.figures(context, service).await?;
            let now_ms = context.now_ms();
            let is_left_alone = figures.wait_ms(now_ms, retry_ms).is_some();
            if is_left_alone || !figures.clone().probe(now_ms, idle_ms) {
                continue;
            }
            // Of two replicas that see it idle one probes it.
            if self.shared(context, service, |figures, now_ms| figures.probe(now_ms, idle_ms)).await? {
                tokio::spawn(self.clone().probe(context.clone(), service));
            }
        }
        Ok(())
    }

    async fn probe(self: Arc<Self>, context: Context, service: &'static str) {
        let Some(call) = context.first_read(service) else { return };
        let sent = tokio::time::Instant::now();
        let request = call.refused_request();
        let answer = call.timeout(PROBE_MAX).forward(&request).await;
        // Any reply says that it is there, an error of its own as well.
        let fault = answer.as_ref().err();
        let was_seen = self.figures(&context, service).await.is_ok_and(|figures| figures.is_seen());
        // A service that nobody has seen yet does not run here; it is not ill.
        if fault.is_none() || was_seen {
            let latency_ms = sent.elapsed().as_secs_f64() * 1_000.0;
            let is_failure = fault.is_some_and(|fault| is_failure(fault.code()));
            let outcome = Outcome { at_ms: context.now_ms(), latency_ms, is_failure, is_gold: false };
            self.gathered.add(service, outcome);
        }
    }

    /// Changes the shared figures of a service.
    pub(super) async fn shared<A>(
        &self,
        context: &Context,
        service: &str,
        change: impl Fn(&mut Figures, i64) -> A,
    ) -> Result<A, Fault>
    where
        A: Serialize + serde::de::DeserializeOwned,
    {
        let rule = |current: &Current<Kept>| {
            let mut figures = match &current.value {
                Some(Kept::Figures(figures)) => figures.clone(),
                _ => Figures::default(),
            };
            let reply = change(&mut figures, current.now_ms);
            Ok(Change::put(Kept::Figures(figures), reply))
        };
        let changed = self.kept.change(context, &place(service), rule).await;
        changed.map(|done| done.reply).map_err(|failed: Failed<A>| failed.fault)
    }
}

pub(super) fn millis(length: Duration) -> i64 {
    length.as_millis() as i64
}
