//! Which service should handle a request for AI: by what is registered, how loaded it is, and what the caller prefers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::VERSION;
use super::capabilities::{Capability, Requirements, ServiceCapability, registered};
use super::checks::{required, texts};
use super::notices::records;
use super::priorities::weights;
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::Records;
use crate::worker::{Chunks, Context, Service};

/// Age up to which registrations as read last will do.
const FRESH: Duration = Duration::from_millis(500);
/// How often a watch looks.
const LOOK: Duration = Duration::from_secs(1);
/// Tenants whose registrations are remembered.
const TENANTS_MAX: usize = 1_000;
/// Age at which the registry's bucket drops a registration.
const REGISTRATION_TTL: Duration = Duration::from_secs(330);
/// Load from which on an instance gets nothing more.
const LOAD_MAX: f64 = 95.0;
/// Quality of a capability that names none.
const QUALITY: f64 = 0.5;
/// Latencies in milliseconds and what they are worth; slower ones are worth 0.2.
const LATENCIES: [(f64, f64); 4] = [(100.0, 1.0), (200.0, 0.8), (500.0, 0.6), (1_000.0, 0.4)];
/// Kinds of requests, with the service and subject of each where nothing is registered; the first is for all others.
const TABLE: [(&str, &str, &str); 8] = [
    ("inference", "ai-integration", "svc.ai.llm.v1.infer"),
    ("generation", "quest-system", "svc.quest.v1.generate"),
    ("behavior", "npc-behavior", "svc.npc.behavior.v1.plan"),
    ("state", "state-manager", "svc.state.manager.v1.get"),
    ("narrative", "environmental-narrative", "svc.narrative.v1.generate"),
    ("story", "story-teller", "svc.story.v1.generate"),
    ("translation", "language-system", "svc.lang.v1.translate"),
    ("knowledge", "knowledge-base", "svc.kb.v1.query"),
];
/// Preferences that stand for a preset, in the order in which they count.
const PREFERENCES: [(&str, &str); 3] = [("latency", "latency"), ("cost", "cost"), ("quality", "performance")];

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let registrations = BucketConfig { name: "tg_caps", ttl: Some(REGISTRATION_TTL), history: 1 };
    let router = AiRouter {
        registered: Mutex::default(),
        registrations: Records::open(store, records(settings, registrations)).await?,
    };
    Ok(Service::new("ai-router", VERSION)
        .sharing(router)
        .unary("ai_router.v1.AiRouterService/Route", AiRouter::route)
        .unary("ai_router.v1.AiRouterService/HealthCheck", AiRouter::health_check)
        .stream("ai_router.v1.AiRouterService/WatchHealth", AiRouter::watch_health)
        .done())
}

/// Keeps nothing but what the registry said a moment ago, by tenant.
struct AiRouter {
    registered: Mutex<HashMap<String, Registered>>,
    /// The registry's documents, for what its answers leave out.
    registrations: Records<Registration>,
}

#[derive(Serialize, Deserialize)]
struct Registration {
    endpoint: String,
}

/// What the registry said, and when.
type Registered = (Instant, Arc<Vec<ServiceCapability>>);

#[derive(Serialize, Deserialize)]
struct Route {
    request_type: String,
    payload: Bytes,
    requirements: BTreeMap<String, String>,
    preferences: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Routed {
    target_service: String,
    target_subject: String,
    metadata: BTreeMap<String, String>,
    alternatives: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct HealthCheck {
    service_ids: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct HealthChecked {
    services: Vec<ServiceHealth>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct ServiceHealth {
    service_id: String,
    is_healthy: bool,
    current_load: i32,
    avg_latency_ms: f64,
    timestamp_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct WatchHealth {
    service_ids: Vec<String>,
    after_revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Item {
    revision: u64,
    service: Option<ServiceHealth>,
}

/// An instance that can take a request, and how well.
struct Candidate<'r> {
    service: &'r ServiceCapability,
    subject: String,
    score: f64,
}

impl AiRouter {
    async fn route(self: Arc<Self>, context: Context, request: Route) -> Result<Routed, Fault> {
        if request.request_type.is_empty() {
            return Err(required("request_type"));
        }
        texts("requirements", &request.requirements)?;
        let requirements = Requirements::read(&request.requirements)?;
        texts("preferences", &request.preferences)?;
        let weights = preferred(&request.preferences)?;
        let registered = self.registered(&context).await;
        let wanted = request.request_type.as_str();
        let offers: Vec<(&ServiceCapability, &Capability)> = registered
            .iter()
            .flat_map(|service| service.capabilities.iter().map(move |capability| (service, capability)))
            .filter(|(_, capability)| capability.capability_type == wanted)
            .collect();
        let mut metadata = BTreeMap::from([("tier".to_owned(), tier(&request.requirements).to_owned())]);
        if offers.is_empty() {
            let row = TABLE.iter().find(|row| row.0 == wanted);
            let matched = if row.is_some() { "table" } else { "default" };
            metadata.insert("matched".to_owned(), matched.to_owned());
            let (_, service, subject) = row.unwrap_or(&TABLE[0]);
            let (target_service, target_subject) = ((*service).to_owned(), (*subject).to_owned());
            return Ok(Routed { target_service, target_subject, metadata, alternatives: Vec::new() });
        }
        let endpoints = self.endpoints(&context, &offers).await?;
        let candidates = candidates(&offers, &requirements, weights, &endpoints)?;
        let Some(best) = candidates.first() else {
            return Err(Fault::upstream(Code::Unavailable, format!("no instance for {wanted} names its subject")));
        };
        metadata.insert("matched".to_owned(), "registry".to_owned());
        metadata.insert("score".to_owned(), format!("{:.4}", best.score));
        metadata.insert("instance".to_owned(), best.service.service_id.clone());
        metadata.insert("candidates".to_owned(), candidates.len().to_string());
        Ok(Routed {
            target_service: service_of(&best.service.service_id).to_owned(),
            target_subject: best.subject.clone(),
            metadata,
            alternatives: candidates[1..].iter().map(|candidate| candidate.subject.clone()).collect(),
        })
    }

    async fn health_check(self: Arc<Self>, context: Context, request: HealthCheck) -> Result<HealthChecked, Fault> {
        Ok(HealthChecked { services: health(&self.registered(&context).await, &request.service_ids) })
    }

    async fn watch_health(
        self: Arc<Self>,
        context: Context,
        request: WatchHealth,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let mut told: BTreeMap<String, ServiceHealth> = BTreeMap::new();
        if request.after_revision > 0 {
            // Health has no revisions to go on behind.
            context.label("reset", "true");
        }
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                _ = context.until_cancelled() => return Ok(()),
            }
            let mut now = health(&self.registered(&context).await, &request.service_ids);
            let is_gone = |id: &&String| now.iter().all(|service| service.service_id != **id);
            let gone: Vec<String> = told.keys().filter(is_gone).cloned().collect();
            now.extend(gone.iter().map(|id| ServiceHealth { service_id: id.clone(), ..ServiceHealth::default() }));
            for service in now {
                let before = told.insert(service.service_id.clone(), service.clone());
                let figures = |health: &ServiceHealth| (health.is_healthy, health.current_load);
                if before.as_ref().map(figures) != Some(figures(&service)) {
                    chunks.send(&Item { revision: 0, service: Some(service) }).await?;
                }
            }
            told.retain(|id, _| !gone.contains(id));
            context.begin_stream();
        }
    }

    /// The literal subjects, by registration, that are the endpoints of those instances which name no other.
    async fn endpoints(
        &self,
        context: &Context,
        offers: &[(&ServiceCapability, &Capability)],
    ) -> Result<BTreeMap<String, String>, Fault> {
        let mut endpoints = BTreeMap::new();
        for (service, _) in offers.iter().filter(|(service, capability)| subject_of(service, capability).is_none()) {
            let place = key(&[context.tenant(), &service.registration_id]);
            let Some(found) = self.registrations.get_cached(context, &place).await? else { continue };
            let endpoint = found.value.endpoint;
            if !endpoint.is_empty() && !endpoint.contains("://") && !endpoint.ends_with('>') {
                endpoints.insert(service.registration_id.clone(), endpoint);
            }
        }
        Ok(endpoints)
    }

    /// What the registry knows, at most a moment old; what it said last where it does not answer.
    async fn registered(&self, context: &Context) -> Arc<Vec<ServiceCapability>> {
        let all = || self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = context.tenant();
        let known = all().get(tenant).cloned();
        if let Some((at, services)) = &known
            && at.elapsed() < FRESH
        {
            return services.clone();
        }
        match registered(context).await {
            Ok(services) => {
                let services = Arc::new(services);
                let mut all = all();
                if all.len() >= TENANTS_MAX {
                    all.clear();
                }
                all.insert(tenant.to_owned(), (Instant::now(), services.clone()));
                services
            }
            Err(fault) => {
                tracing::debug!(%fault, "the registry does not answer");
                known.map(|(_, services)| services).unwrap_or_default()
            }
        }
    }
}

/// The instances that can take a request, best first.
fn candidates<'r>(
    offers: &[(&'r ServiceCapability, &'r Capability)],
    requirements: &Requirements,
    weights: [f64; 4],
    endpoints: &BTreeMap<String, String>,
) -> Result<Vec<Candidate<'r>>, Fault> {
    let online: Vec<_> = offers.iter().filter(|(service, _)| service.is_online).collect();
    if online.is_empty() {
        return Err(Fault::upstream(Code::Unavailable, "no registered instance is online").detail("reason", "offline"));
    }
    let fitting: Vec<_> =
        online.iter().filter(|(service, capability)| requirements.hold(service, capability)).collect();
    if fitting.is_empty() {
        let closest = online
            .iter()
            .min_by_key(|(service, capability)| (requirements.missed(service, capability), &service.service_id));
        let closest = closest.map(|(service, _)| service.service_id.clone()).unwrap_or_default();
        return Err(Fault::client(Code::FailedPrecondition, "no instance meets all requirements")
            .detail("reason", "requirements")
            .detail("closest", closest));
    }
    let free: Vec<_> = fitting.iter().filter(|(service, _)| load(service) < LOAD_MAX).collect();
    if free.is_empty() {
        return Err(Fault::upstream(Code::ResourceExhausted, "all candidates are at their limit")
            .detail("reason", "load")
            .detail("retry_after_ms", "1000"));
    }
    let mut candidates: Vec<Candidate<'r>> = free
        .iter()
        .filter_map(|(service, capability)| {
            let subject = subject_of(service, capability);
            let subject = subject.or_else(|| endpoints.get(&service.registration_id).cloned())?;
            Some(Candidate { service, subject, score: score(service, capability, weights) })
        })
        .collect();
    candidates.sort_by(|a, b| {
        let by_id = || a.service.service_id.cmp(&b.service.service_id);
        b.score.total_cmp(&a.score).then_with(by_id)
    });
    Ok(candidates)
}

fn score(service: &ServiceCapability, capability: &Capability, weights: [f64; 4]) -> f64 {
    let quality = capability.parameters.get("quality").and_then(|text| text.parse().ok()).unwrap_or(QUALITY);
    let latency_ms = latency_ms(service, capability);
    let latency = LATENCIES.iter().find(|row| latency_ms < row.0).map_or(0.2, |row| row.1);
    let parts = [quality, 1.0 / (1.0 + capability.cost_multiplier), latency, 1.0 - load(service) / 100.0];
    let sum: f64 = weights.iter().zip(parts).map(|(weight, part)| weight * part).sum();
    (sum * 1e6).round() / 1e6
}

fn latency_ms(service: &ServiceCapability, capability: &Capability) -> f64 {
    service.metric("latency_ms").unwrap_or(capability.avg_latency_ms)
}

fn load(service: &ServiceCapability) -> f64 {
    service.metric("load").unwrap_or(0.0)
}

/// The name of an instance's service.
fn service_of(service_id: &str) -> &str {
    service_id.split('@').next().unwrap_or_default()
}

/// Where a capability takes requests, as it says itself or as is known of its service.
fn subject_of(service: &ServiceCapability, capability: &Capability) -> Option<String> {
    let name = service_of(&service.service_id);
    let in_table = || TABLE.iter().find(|row| row.1 == name).map(|row| row.2.to_owned());
    capability.parameters.get("subject").cloned().or_else(in_table)
}

/// The weights that a request's preferences stand for.
fn preferred(preferences: &BTreeMap<String, String>) -> Result<[f64; 4], Fault> {
    if let Some(priority) = preferences.get("priority") {
        return weights("preferences.priority", priority);
    }
    let named = PREFERENCES.iter().find(|(name, _)| preferences.contains_key(*name));
    weights("preferences", named.map_or("", |(_, preset)| preset))
}

/// The class of model that a latency asks for.
fn tier(requirements: &BTreeMap<String, String>) -> &'static str {
    match requirements.get("max_latency_ms").and_then(|text| text.trim().parse::<f64>().ok()) {
        Some(max) if max < 100.0 => "gold",
        Some(max) if max >= 1_000.0 => "bronze",
        _ => "silver",
    }
}

/// The health of instances and services, by id; of all instances without any.
fn health(registered: &[ServiceCapability], ids: &[String]) -> Vec<ServiceHealth> {
    let ids: BTreeSet<&str> = match ids {
        [] => registered.iter().map(|service| service.service_id.as_str()).collect(),
        ids => ids.iter().map(String::as_str).collect(),
    };
    let of = |id: &str| {
        let instances =
            registered.iter().filter(|service| service.service_id == id || service_of(&service.service_id) == id);
        let healths: Vec<ServiceHealth> = instances.map(|service| of_instance(id, service)).collect();
        // Of a service, the healthy instance with the lowest load speaks.
        let best = healths.into_iter().min_by_key(|health| (!health.is_healthy, health.current_load));
        best.unwrap_or_else(|| ServiceHealth { service_id: id.to_owned(), ..ServiceHealth::default() })
    };
    ids.into_iter().map(of).collect()
}

fn of_instance(id: &str, service: &ServiceCapability) -> ServiceHealth {
    let latencies: Vec<f64> = service.capabilities.iter().map(|capability| latency_ms(service, capability)).collect();
    let mean = latencies.iter().sum::<f64>() / latencies.len().max(1) as f64;
    ServiceHealth {
        service_id: id.to_owned(),
        is_healthy: service.is_online && load(service) < LOAD_MAX,
        current_load: load(service).round() as i32,
        avg_latency_ms: mean,
        timestamp_ms: service.last_heartbeat_ms,
    }
}
