//! One door to every operation: requests passed on by names of the schema, at once or as jobs, and the health of the
//! services behind it.

mod figures;
mod health;
mod jobs;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::VERSION;
use super::checks::{invalid, out_of_range, required, unknown_value};
use super::common::{Error, Meta};
use super::notices::{notice, publish, records};
use super::seed::{Draws, Part, seed, tenant_part};
use super::settings::LiveSettings;
use crate::fault::{Code, Fault, Reason};
use crate::store::{BucketConfig, Store};
use crate::worker::records::{EventId, Records, RecordsConfig};
use crate::worker::{Context, Failed, PeerCall, Service};
use figures::{Figures, Gathered, Outcome};
use health::{ITSELF, millis};
use jobs::Job;

/// Full name of what events tell.
const ROUTED: &str = "router.v1.RouteResponse";
/// Longest timeout that a request may name, in milliseconds.
const TIMEOUT_MAX_MS: i32 = 30_000;
/// How long jobs and figures are kept.
const KEPT: Duration = Duration::from_secs(3_600);
/// Share of the calls at a time that slow calls of other classes may take before gold is refused, and when one is slow.
const CROWDED: f64 = 0.8;
const SLOW: Duration = Duration::from_secs(1);

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_router", ttl: Some(KEPT), history: 1 };
    let config = RecordsConfig { keeps_tombstones: false, ..records(settings, bucket) };
    let router = Router {
        kept: Records::open(store, config).await?,
        gathered: Gathered::default(),
        running: Mutex::default(),
        settings: settings.clone(),
    };
    Ok(Service::new("router", VERSION)
        .keeping(&router.kept)
        .sweeping("sweeper", &router.kept)
        .hook_get("router.v1.RouterService/GetJob", jobs::get_job)
        .sharing(router)
        .unary("router.v1.RouterService/Route", Router::route)
        .unary("router.v1.RouterService/Health", Router::health)
        .stream("router.v1.RouterService/WatchHealth", Router::watch_health)
        .task("figures", Router::gather)
        .done())
}

/// Number of the last call, and class and begin of those under way by number.
type UnderWay = (u64, BTreeMap<u64, (Class, Instant)>);

struct Router {
    kept: Records<Kept>,
    gathered: Gathered,
    running: Mutex<UnderWay>,
    settings: LiveSettings,
}

/// A record of the bucket.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kept {
    Job(Job),
    Figures(Figures),
}

#[derive(Serialize, Deserialize)]
struct Route {
    service_name: String,
    operation: String,
    payload: Bytes,
    routing_hints: BTreeMap<String, String>,
    timeout_ms: i32,
}

/// `router.v1.RouteResponse`; it stands in other messages, too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Routed {
    response_payload: Bytes,
    routed_to: String,
    latency_ms: i64,
    job_id: String,
    meta: Option<Meta>,
    error: Option<Error>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Gold,
    Silver,
    Bronze,
}

impl Class {
    fn timeout_ms(self) -> i32 {
        match self {
            Class::Gold => 1_000,
            Class::Silver => 5_000,
            Class::Bronze => 60_000,
        }
    }
}

/// How a request wants to be routed.
struct Hints {
    class: Class,
    timeout_ms: Option<i32>,
    key: String,
    allows_async: bool,
}

/// A call that counts among those under way until it is dropped.
struct Running<'r> {
    router: &'r Router,
    number: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.router.with_running(|running| running.1.remove(&self.number));
    }
}

impl Router {
    async fn route(self: Arc<Self>, context: Context, request: Route) -> Result<Routed, Failed<Routed>> {
        let mut hints = self.check(&context, &request)?;
        let figures = self.figures(&context, &request.service_name).await?;
        if hints.class == Class::Gold && !self.takes_gold(&context, &request.service_name, &figures).await? {
            hints.class = Class::Silver;
        }
        if hints.class == Class::Silver && !figures.is_healthy() && hints.allows_async {
            hints.class = Class::Bronze;
        }
        if hints.class == Class::Bronze {
            return Ok(self.begin_job(&context, request, hints).await?);
        }
        self.admit(&context, &request.service_name, &figures).await?;
        self.call(&context, &request, &hints).await
    }

    /// Everything that is wrong with a request; how it wants to be routed.
    fn check(&self, context: &Context, request: &Route) -> Result<Hints, Fault> {
        let (service, operation) = (request.service_name.as_str(), request.operation.as_str());
        let settings = self.settings.now();
        if settings.router.deny.iter().any(|denied| denied == service) {
            return Err(Fault::client(Code::PermissionDenied, format!("{service} is not routed to"))
                .detail("field", "service_name")
                .detail("reason", "denied"));
        }
        for (field, value) in [("service_name", service), ("operation", operation)] {
            if value.is_empty() {
                return Err(required(field));
            }
        }
        if service == ITSELF {
            return Err(invalid("service_name", "loop", "the router does not route to itself"));
        }
        let call = context.operation(service, operation);
        if let Some(call) = &call {
            call.check(&request.payload).map_err(|error| {
                let text = format!("payload is no {}: {error}", call.method().request_name);
                invalid("payload", "malformed", text)
            })?;
            if call.streams(&request.payload) {
                return Err(invalid("operation", "stream", format!("{service} {operation} answers with a stream")));
            }
        }
        let hints = Hints::read(request)?;
        let unknown = |field: &'static str, text: String| Fault::client(Code::NotFound, text).detail("field", field);
        match call {
            Some(_) => Ok(hints),
            None if context.knows_service(service) => {
                Err(unknown("operation", format!("{service} has no operation {operation}")))
            }
            None => Err(unknown("service_name", format!("there is no service {service}"))),
        }
    }

    /// True where a call with a short timeout may go to a service, be it as the one trial after many failed.
    async fn takes_gold(&self, context: &Context, service: &str, figures: &Figures) -> Result<bool, Fault> {
        let retry_ms = millis(self.settings.now().router.retry_unhealthy);
        // Whether it is due is looked at before anything is written.
        if figures.is_gold_healthy() || !figures.clone().try_gold(context.now_ms(), retry_ms) {
            return Ok(figures.is_gold_healthy());
        }
        self.shared(context, service, |figures, now_ms| figures.is_gold_healthy() || figures.try_gold(now_ms, retry_ms))
            .await
    }

    /// Lets a call through to a service that is well, or as the one trial of one that is not.
    async fn admit(&self, context: &Context, service: &str, figures: &Figures) -> Result<(), Fault> {
        if figures.is_healthy() {
            return Ok(());
        }
        let retry_ms = millis(self.settings.now().router.retry_unhealthy);
        let wait_ms = self.shared(context, service, |figures, now_ms| {
            let wait_ms = if figures.is_healthy() { None } else { figures.wait_ms(now_ms, retry_ms) };
            if wait_ms.is_none() && !figures.is_healthy() {
                figures.try_it(now_ms);
            }
            wait_ms
        });
        match wait_ms.await? {
            None => Ok(()),
            Some(wait_ms) => {
                Err(Fault::upstream(Code::Unavailable, format!("{service} is unhealthy: try again later"))
                    .detail("reason", "unhealthy")
                    .retry_after(Duration::from_millis(wait_ms.unsigned_abs())))
            }
        }
    }

    /// Passes the request on, and counts and tells what came of it.
    async fn call(&self, context: &Context, request: &Route, hints: &Hints) -> Result<Routed, Failed<Routed>> {
        let _running = self.begin(hints.class)?;
        let timeout_ms = hints.timeout_ms.unwrap_or(hints.class.timeout_ms());
        let call = self.peer(context, request)?;
        let subject = call.method().subject.as_str().to_owned();
        let call = call.key(&*hints.key).timeout(Duration::from_millis(timeout_ms.unsigned_abs().into()));
        let sent = Instant::now();
        let answer = call.forward(&request.payload).await;
        let latency_ms = sent.elapsed().as_secs_f64() * 1_000.0;
        let code = match &answer {
            Ok(forwarded) => forwarded.fault.as_ref().map(Fault::code),
            Err(fault) => Some(fault.code()),
        };
        let is_failure = answer.is_err() || code.is_some_and(is_failure);
        let is_gold = hints.class == Class::Gold;
        self.gathered.add(&request.service_name, Outcome { at_ms: context.now_ms(), latency_ms, is_failure, is_gold });
        let routed = match answer {
            Ok(forwarded) => {
                if let Some(fault) = &forwarded.fault {
                    context.label("target_error", fault.code_name());
                }
                let routed_to = forwarded.instance.unwrap_or(subject);
                // Whole milliseconds; a reply that came sooner than one took some time all the same.
                let latency_ms = latency_ms.round().max(1.0) as i64;
                Ok(Routed { response_payload: forwarded.payload, routed_to, latency_ms, ..Routed::default() })
            }
            Err(fault) => {
                let routed = Routed { routed_to: subject, ..Routed::default() };
                Err(Failed::with(transport_fault(fault, timeout_ms), routed))
            }
        };
        let told = match &routed {
            Ok(routed) => routed.clone(),
            Err(failed) => failed.reply.as_deref().cloned().unwrap_or_default(),
        };
        self.tell(context, request, told, code).await?;
        routed
    }

    fn peer<'c>(&self, context: &'c Context, request: &Route) -> Result<PeerCall<'c>, Fault> {
        let call = context.operation(&request.service_name, &request.operation);
        call.ok_or_else(|| Fault::ours(Code::Internal, "the operation is gone"))
    }

    /// Counts a call as under way; refuses a fast one where slow ones take nearly all the room.
    fn begin(&self, class: Class) -> Result<Running<'_>, Fault> {
        let parallel = self.settings.now().common.max_parallel as f64;
        let number = self.with_running(|(last, running)| {
            let is_slow = |row: &&(Class, Instant)| row.0 != Class::Gold && row.1.elapsed() > SLOW;
            let slow = running.values().filter(is_slow).count();
            if class == Class::Gold && slow as f64 > CROWDED * parallel {
                return None;
            }
            *last += 1;
            running.insert(*last, (class, Instant::now()));
            Some(*last)
        });
        match number {
            Some(number) => Ok(Running { router: self, number }),
            None => Err(Fault::ours(Code::ResourceExhausted, "slow calls take all the room: try again")
                .detail("reason", "busy")
                .retry_after(Duration::from_millis(100))),
        }
    }

    fn with_running<A>(&self, use_it: impl FnOnce(&mut UnderWay) -> A) -> A {
        use_it(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The event of a call, for the configured share of them.
    async fn tell(&self, context: &Context, request: &Route, routed: Routed, code: Option<Code>) -> Result<(), Fault> {
        let parts = [Part::Text("router.sample.v1"), tenant_part(context.tenant()), Part::Text(context.request_id())];
        if Draws::new(seed(&parts)).unit() >= self.settings.now().router.events_sample {
            return Ok(());
        }
        let told = Routed { response_payload: Bytes::new(), ..routed };
        let id = EventId::Text(context.request_id().to_owned());
        let notice = notice(context, "evt.router.route.completed.v1", id, ROUTED, &told)?
            .with("service_name", request.service_name.as_str())
            .with("operation", request.operation.as_str())
            .with("outcome", code.map_or("OK", Code::name))
            .priority(if code.is_some() { 7 } else { 5 });
        publish(context, notice).await;
        Ok(())
    }
}

impl Hints {
    fn read(request: &Route) -> Result<Hints, Fault> {
        let hint = |name: &str| request.routing_hints.get(name).map_or("", String::as_str);
        let classes = ["real-time", "interactive", "async"];
        let class = match hint("sla").to_ascii_lowercase().as_str() {
            "real-time" => Class::Gold,
            "" | "interactive" => Class::Silver,
            "async" => Class::Bronze,
            _ => return Err(unknown_value("routing_hints.sla", format!("unknown sla {}", hint("sla")), &classes)),
        };
        let allows_async = match hint("allow_async").to_ascii_lowercase().as_str() {
            "true" => true,
            "" | "false" => false,
            _ => {
                let text = "allow_async must be true or false";
                return Err(unknown_value("routing_hints.allow_async", text, &["true", "false"]));
            }
        };
        let named =
            match hint("timeout_ms") {
                "" => None,
                text => Some(text.parse::<i32>().map_err(|_| {
                    invalid("routing_hints.timeout_ms", "bad_format", "timeout_ms must be a whole number")
                })?),
            };
        let is_good = |timeout_ms: i32| (1..=TIMEOUT_MAX_MS).contains(&timeout_ms);
        if named.is_some_and(|timeout_ms| !is_good(timeout_ms)) {
            return Err(out_of_range("routing_hints.timeout_ms", 1, TIMEOUT_MAX_MS));
        }
        if request.timeout_ms != 0 && !is_good(request.timeout_ms) {
            return Err(out_of_range("timeout_ms", 1, TIMEOUT_MAX_MS));
        }
        let timeout_ms = if request.timeout_ms == 0 { named } else { Some(request.timeout_ms) };
        Ok(Hints { class, timeout_ms, key: hint("idempotency_key").to_owned(), allows_async })
    }
}

/// True for errors that say that a service is not well.
fn is_failure(code: Code) -> bool {
    matches!(code, Code::Internal | Code::Unavailable | Code::DeadlineExceeded)
}

/// Why no reply came, as the caller reads it.
fn transport_fault(fault: Fault, timeout_ms: i32) -> Fault {
    match (fault.why(), fault.code()) {
        (Reason::NoResponders, _) => {
            Fault::upstream(Code::Unavailable, "no responders").detail("reason", "no_responders")
        }
        (_, Code::DeadlineExceeded) => {
            Fault::upstream(Code::DeadlineExceeded, format!("no answer within {timeout_ms} ms"))
                .detail("reason", "timeout")
        }
        _ => fault,
    }
}
