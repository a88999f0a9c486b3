//! Which instances of services offer what, and which of them are alive: registrations that lapse without a heartbeat.

mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::capabilities::{Capability, Requirements, ServiceCapability};
use super::checks::{id, invalid, out_of_range, required, texts};
use super::notices::{notice, records};
use super::paging::{Page, Pagination};
use super::seed::{Part, seed, tenant_part};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Keys, Store, key, key_token};
use crate::worker::records::{Change, Current, Document, EventId, Notice, Records, RecordsConfig};
use crate::worker::{Context, Parting, Rule, Service};

/// How long a registration lasts, in seconds; where the request does not say, and within which bounds.
const TTL_DEFAULT_S: i32 = 300;
const TTL_MIN_S: i32 = 30;
/// Capabilities of one registration.
const CAPABILITIES_MAX: usize = 64;
/// A heartbeat is due five times a registration's life.
const BEATS: i64 = 5;
/// The interval of heartbeats that "alive" is measured by.
const BEAT_MS: i64 = 60_000;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_caps", ttl: Some(Duration::from_secs(330)), history: 1 };
    let live = settings.clone();
    let config = RecordsConfig {
        keeps_tombstones: false,
        expired: Some(Arc::new(move |context, _, value| {
            let registration: Registration = serde_json::from_value(value.clone()).map_err(|error| {
                Fault::ours(Code::Internal, "a stored record cannot be read").internal(error.to_string())
            })?;
            let context = context.for_tenant(&registration.tenant);
            let shown = registration.shown(context.now_ms(), grace_ms(&live));
            Ok(vec![removed(&context, &shown, "expired")?])
        })),
        ..records(settings, bucket)
    };
    let registry = Registry { registrations: Records::open(store, config).await?, settings: settings.clone() };
    Ok(Service::new("capability-registry", VERSION)
        .keeping(&registry.registrations)
        .sweeping("sweeper", &registry.registrations)
        .sharing(registry)
        .hook_put_at("capability_registry.v1.CapabilityRegistryService/Register", Registry::register)
        .unary("capability_registry.v1.CapabilityRegistryService/Query", Registry::query)
        .declared("capability_registry.v1.CapabilityRegistryService/Heartbeat")
        .hook_delete("capability_registry.v1.CapabilityRegistryService/Deregister", Registry::deregister)
        .hook_watch_every("capability_registry.v1.CapabilityRegistryService/WatchCapabilities", Registry::watch)
        .done())
}

struct Registry {
    registrations: Records<Registration>,
    settings: LiveSettings,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Registration {
    tenant: String,
    service_id: String,
    registration_id: String,
    capabilities: Vec<Capability>,
    endpoint: String,
    metadata: BTreeMap<String, String>,
    /// How long it lasts, and when a heartbeat is due: `Heartbeat` is declared and goes by them.
    ttl_ms: i64,
    beat_ms: i64,
    last_heartbeat_ms: i64,
    /// Left out by a heartbeat that has none.
    #[serde(default)]
    metrics: BTreeMap<String, f64>,
}

#[derive(Serialize, Deserialize)]
struct Register {
    service_id: String,
    capabilities: Vec<Capability>,
    endpoint: String,
    metadata: BTreeMap<String, String>,
    ttl_seconds: i32,
}

#[derive(Serialize, Deserialize)]
struct Registered {
    success: bool,
    registration_id: String,
    expires_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct Query {
    capability_type: String,
    requirements: BTreeMap<String, String>,
    include_offline: bool,
    page: Option<Pagination>,
}

#[derive(Serialize, Deserialize)]
struct Found {
    services: Vec<ServiceCapability>,
    next_page_token: String,
}

#[derive(Serialize, Deserialize)]
struct Deregister {
    registration_id: String,
}

impl Registration {
    /// Alive: its last heartbeat is not older than a beat and the grace.
    fn is_online(&self, now_ms: i64, grace_ms: i64) -> bool {
        now_ms <= self.last_heartbeat_ms + BEAT_MS + grace_ms
    }

    fn shown(&self, now_ms: i64, grace_ms: i64) -> ServiceCapability {
        let mut metadata = self.metadata.clone();
        metadata.extend(self.metrics.iter().map(|(name, value)| (format!("metric.{name}"), value.to_string())));
        ServiceCapability {
            service_id: self.service_id.clone(),
            registration_id: self.registration_id.clone(),
            capabilities: self.capabilities.clone(),
            is_online: self.is_online(now_ms, grace_ms),
            last_heartbeat_ms: self.last_heartbeat_ms,
            metadata,
        }
    }

    /// What makes a registration another one; heartbeats do not.
    fn offers(&self) -> (&[Capability], &str, &BTreeMap<String, String>) {
        (&self.capabilities, &self.endpoint, &self.metadata)
    }
}

impl Registry {
    fn grace_ms(&self) -> i64 {
        grace_ms(&self.settings)
    }

    fn register(
        self: Arc<Self>,
        context: Context,
        request: Register,
    ) -> Result<(Vec<String>, impl Rule<Registration, Registered>), Fault> {
        let ttl_ms = check(&request)?;
        let parts = [Part::Text("caps.v1"), tenant_part(context.tenant()), Part::Text(&request.service_id)];
        let registration_id = format!("reg_{:016x}", seed(&parts));
        let tokens = vec![registration_id.clone()];
        let rule = move |current: &Current<Registration>| {
            let registration = Registration {
                tenant: context.tenant().to_owned(),
                service_id: request.service_id.clone(),
                registration_id: registration_id.clone(),
                capabilities: request.capabilities.clone(),
                endpoint: request.endpoint.clone(),
                metadata: request.metadata.clone(),
                ttl_ms,
                beat_ms: ttl_ms / BEATS,
                last_heartbeat_ms: current.now_ms,
                metrics: current.value.as_ref().map(|before| before.metrics.clone()).unwrap_or_default(),
            };
            let is_new = current.value.as_ref().is_none_or(|before| before.offers() != registration.offers());
            let expires_at_ms = current.now_ms + ttl_ms;
            let reply = Registered { success: true, registration_id: registration_id.clone(), expires_at_ms };
            let told = is_new.then(|| {
                let shown = registration.shown(current.now_ms, self.grace_ms());
                let id = EventId::AtRevision(registration_id.clone());
                told(&context, "evt.capability.registered.v1", id, &shown)
            });
            Ok(Change::put(registration, reply).expires_at_ms(expires_at_ms).events(told.transpose()?))
        };
        Ok((tokens, rule))
    }

    async fn query(self: Arc<Self>, context: Context, request: Query) -> Result<Found, Fault> {
        texts("requirements", &request.requirements)?;
        let requirements = Requirements::read(&request.requirements)?;
        let page = Page::of(request.page.as_ref())?;
        let (now_ms, grace_ms) = (context.now_ms(), self.grace_ms());
        let mut found: Vec<(String, ServiceCapability)> = Vec::new();
        for (_, Document { value: registration, .. }) in self.all(&context).await? {
            let shown = registration.shown(now_ms, grace_ms);
            let is_wanted = |capability: &Capability| {
                (request.capability_type.is_empty() || capability.capability_type == request.capability_type)
                    && requirements.hold(&shown, capability)
            };
            let shown = shown.clone().only(is_wanted);
            found.extend(shown.map(|shown| (shown.service_id.clone(), shown)));
        }
        found.retain(|(_, shown)| shown.is_online || request.include_offline);
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let (services, next_page_token) = page.take(found);
        Ok(Found { services, next_page_token })
    }

    async fn all(&self, context: &Context) -> Result<Vec<(String, Document<Registration>)>, Fault> {
        let tenant = key(&[context.tenant()]);
        self.registrations.list(context, &Keys::Under(tenant)).await
    }

    fn deregister(self: Arc<Self>, context: Context, _: Deregister) -> Result<impl Parting<Registration>, Fault> {
        Ok(move |registration: Document<&Registration>| {
            let shown = registration.value.shown(context.now_ms(), self.grace_ms());
            Ok(vec![removed(&context, &shown, "deregistered")?])
        })
    }
}

fn grace_ms(settings: &LiveSettings) -> i64 {
    settings.now().capability_registry.grace.as_millis() as i64
}

/// Everything that is wrong with a registration; how long it lasts.
fn check(request: &Register) -> Result<i64, Fault> {
    id("service_id", &request.service_id)?;
    if request.capabilities.is_empty() {
        return Err(required("capabilities"));
    }
    if request.capabilities.len() > CAPABILITIES_MAX {
        return Err(invalid("capabilities", "too_many", format!("at most {CAPABILITIES_MAX} capabilities")));
    }
    for (index, capability) in request.capabilities.iter().enumerate() {
        let field = |name: &str| format!("capabilities[{index}].{name}");
        for (name, value) in
            [("capability_id", &capability.capability_id), ("capability_type", &capability.capability_type)]
        {
            if value.is_empty() {
                return Err(required(&field(name)));
            }
        }
        texts(&field("parameters"), &capability.parameters)?;
        if request.capabilities[..index].iter().any(|other| other.capability_id == capability.capability_id) {
            let text = format!("capability {} is there twice", capability.capability_id);
            return Err(invalid(&field("capability_id"), "duplicate", text));
        }
        for (name, value) in
            [("cost_multiplier", capability.cost_multiplier), ("avg_latency_ms", capability.avg_latency_ms)]
        {
            if !(0.0..=f64::MAX).contains(&value) {
                return Err(out_of_range(&field(name), 0, f64::MAX));
            }
        }
    }
    if !is_endpoint(&request.endpoint) {
        let text = "endpoint must be a subject, literal or with a last `>`, or an http(s) URL";
        return Err(invalid("endpoint", "bad_format", text));
    }
    texts("metadata", &request.metadata)?;
    match request.ttl_seconds {
        0 => Ok(i64::from(TTL_DEFAULT_S) * 1_000),
        seconds @ TTL_MIN_S..=TTL_DEFAULT_S => Ok(i64::from(seconds) * 1_000),
        _ => Err(out_of_range("ttl_seconds", TTL_MIN_S, TTL_DEFAULT_S)),
    }
}

fn is_endpoint(endpoint: &str) -> bool {
    let is_url = ["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme));
    let is_token = |token: &str| key_token(token) == token && !token.is_empty();
    let tokens = endpoint.strip_suffix(".>").unwrap_or(endpoint);
    endpoint.is_empty() || is_url || tokens.split('.').all(is_token)
}

fn told(context: &Context, subject: &str, id: EventId, shown: &ServiceCapability) -> Result<Notice, Fault> {
    let notice = notice(context, subject, id, "capability_registry.v1.ServiceCapability", shown)?;
    Ok(notice.with("service_id", &*shown.service_id))
}

fn removed(context: &Context, shown: &ServiceCapability, cause: &str) -> Result<Notice, Fault> {
    let shown = ServiceCapability { is_online: false, ..shown.clone() };
    let id = EventId::AtRevision(format!("{}:removed", shown.registration_id));
    Ok(told(context, "evt.capability.removed.v1", id, &shown)?.with("cause", cause).priority(7))
}
