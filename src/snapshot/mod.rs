//! The tables as run: one immutable value that requests read and a reload replaces.
//!
//! `manifest` is the file as written, `sources` say where rows come from, `build` is the pure step between; nothing
//! here answers requests.

mod annotations;
mod api;
mod build;
pub mod compat;
mod cors;
mod credential;
pub mod diff;
mod instances;
mod live;
pub mod manifest;
mod methods;
mod migration;
mod policy;
pub mod reference;
mod reload;
mod resilience;
mod sources;
mod styles;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Headers, Subject};
use crate::envelope::Envelope;
use crate::limits::{Bucket, Slots};
use crate::route::{Binding, HTTP_BODY, RouteId, Tree};
use crate::schema::Docs;
use crate::schema::operation::{LogRow, Operation};
use crate::telemetry::trace::Span;
use crate::telemetry::{RouteMetrics, SubjectMetrics};
use crate::transcode::{FieldId, JsonOut, MessageId, Tables};
use problem::Problem;

pub use crate::written::problem;
pub use api::Api;
pub use build::build;
pub use cors::Cors;
pub use credential::{Auth, Credential, Revocations};
pub use instances::{Instance, answer_for, instances};
pub use live::Live;
pub use migration::{HttpOld, Migration, Old, Report, Seen, Shadow, Side, StickyKey, percent};
pub use reload::{Breaking, Following, Outcome, Reading, Rules, follow, watch};
pub use resilience::SubjectBreaker;
pub use sources::{
    BucketSource, BuiltIn, Changes, Files, Material, Revision, Source, Stored, TableAddress, TableBucket,
    WorkersSource, folder_of,
};

/// Everything that one generation of the tables says.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with each reload, from 1.
    pub generation: u64,
    /// Messages and enums.
    pub tables: Arc<Tables>,
    /// Verb and path → index into `routes`.
    pub tree: Tree,
    /// Routes, by [`RouteId`].
    pub routes: Vec<Arc<Route>>,
    /// Every method that a route or a worker can name.
    pub methods: Vec<Arc<Method>>,
    /// Services for workers.
    pub services: Vec<ServiceRow>,
    /// Full names of all methods of the descriptors, with a route or without.
    pub described: BTreeSet<Box<str>>,
    /// What is written about the schema.
    pub docs: Arc<Docs>,
    /// The API description's own words.
    pub api: Api,
    /// Routes of workers that gave way to others, and workers that were left out: each with the reason.
    pub left_out: Vec<Problem>,
    /// How callers' credentials are checked, where that is declared.
    pub credential: Option<Arc<Credential>>,
    /// Error style of answers without a route.
    pub error_style: ErrorStyle,
    /// Pages of other origins that may read answers without a route.
    pub cors: Option<Arc<Cors>>,
    /// Slots for all streams of the process.
    pub stream_slots: Arc<Slots>,
}

impl Snapshot {
    /// The route at that index.
    pub fn route(&self, id: RouteId) -> &Arc<Route> {
        &self.routes[id.0 as usize]
    }

    /// The method with that full name, `pkg.Service/Method`.
    pub fn method(&self, name: &str) -> Option<&Arc<Method>> {
        self.methods.iter().find(|method| &*method.name == name)
    }

    /// The first method on that subject.
    pub fn method_on(&self, subject: &str) -> Option<&Arc<Method>> {
        self.methods.iter().find(|method| method.subject.as_str() == subject)
    }
}

/// A service as a worker subscribes to it.
#[derive(Clone, Debug)]
pub struct ServiceRow {
    /// Full name, `quest.v1.QuestService`.
    pub name: Box<str>,
    /// Name in discovery and logs, `quest-system`.
    pub short_name: Box<str>,
    /// Its methods.
    pub methods: Vec<Arc<Method>>,
    /// The logs that it declares.
    pub logs: Vec<LogRow>,
}

/// When a method answers with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming {
    /// Never.
    Unary,
    /// Always.
    Server,
    /// When the request asks for it, as the house style says.
    OnRequest,
}

impl Streaming {
    /// As people are told.
    pub fn word(self) -> &'static str {
        match self {
            Streaming::Unary => "no",
            Streaming::Server => "yes",
            Streaming::OnRequest => "on request",
        }
    }
}

/// Subject, types and style of one operation.
#[derive(Debug)]
pub struct Method {
    /// `quest.v1.QuestService/GenerateQuest`, or the name of a row without a service.
    pub name: Box<str>,
    /// Where requests go.
    pub subject: Subject,
    /// The workers' queue group.
    pub queue_group: Option<Box<str>>,
    /// Request message.
    pub request: MessageId,
    /// Its full name.
    pub request_name: Box<str>,
    /// The headers that are the same on every request.
    pub request_headers: Headers,
    /// Reply message.
    pub reply: MessageId,
    /// Its full name.
    pub reply_name: Box<str>,
    /// Message of a stream's chunks; the reply's where there is no other.
    pub chunk: MessageId,
    /// Its full name.
    pub chunk_name: Box<str>,
    /// When it streams.
    pub streaming: Streaming,
    /// The house style, compiled.
    pub envelope: Envelope,
    /// Whether replies prove which request they answer.
    pub replies: ReplyProof,
    /// Calling it twice does what calling it once does.
    pub is_repeatable: bool,
    /// It changes nothing: a `GET`, or NO_SIDE_EFFECTS.
    pub is_read: bool,
    /// What it does, where the schema declares it.
    pub operation: Option<Arc<Operation>>,
    /// The tables that the ids belong to.
    pub tables: Arc<Tables>,
    /// What happens on its subject.
    pub metrics: SubjectMetrics,
}

impl Method {
    /// True where the reply, or that field of it, is a `google.api.HttpBody`.
    pub(crate) fn replies_raw(&self, field: Option<FieldId>) -> bool {
        let message = match field {
            Some(field) => self.tables.message(self.reply).field(field).message(),
            None => Some(self.reply),
        };
        message.is_some_and(|message| &*self.tables.message(message).name == HTTP_BODY)
    }

    /// Says in a span what is called (OpenTelemetry's conventions for RPC and messaging).
    pub(crate) fn describe(&self, span: &mut Span) {
        span.set("rpc.system", "nats");
        let (service, method) = self.name.split_once('/').unwrap_or(("", &self.name));
        if !service.is_empty() {
            span.set("rpc.service", service);
        }
        span.set("rpc.method", method);
        span.set("messaging.system", "nats");
        span.set("messaging.destination.name", self.subject.as_str());
    }

    /// What a service's own work runs as: nobody calls it, and it answers nobody.
    pub(crate) fn without_requests(service: &str, tables: Arc<Tables>) -> Method {
        let none = MessageId(0);
        Method {
            name: service.into(),
            subject: Subject::trusted(service.to_owned()),
            queue_group: None,
            request: none,
            request_name: "".into(),
            request_headers: Headers::new(),
            reply: none,
            reply_name: "".into(),
            chunk: none,
            chunk_name: "".into(),
            streaming: Streaming::Unary,
            envelope: Envelope::bare(),
            replies: ReplyProof::default(),
            is_repeatable: false,
            is_read: false,
            operation: None,
            tables,
            metrics: SubjectMetrics::none(),
        }
    }
}

/// What a method's workers have shown so far of echoing `Tidegate-Call`. Only then are reply subjects used again.
#[derive(Debug, Default)]
pub struct ReplyProof(std::sync::atomic::AtomicU8);

impl ReplyProof {
    const PROVEN: u8 = 1;
    const BROKEN: u8 = 2;

    /// True where replies may come to subjects that were used before.
    pub fn is_proven(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed) == Self::PROVEN
    }

    /// A reply has proven which request it answers.
    pub fn prove(&self) {
        let relaxed = std::sync::atomic::Ordering::Relaxed;
        let _ = self.0.compare_exchange(0, Self::PROVEN, relaxed, relaxed);
    }

    /// A reply answered another request: from now on every subject is used once.
    pub fn give_up(&self) {
        self.0.store(Self::BROKEN, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The form of error answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ErrorStyle {
    /// RFC 9457 `application/problem+json`.
    #[default]
    Problem,
    /// `{"error":{"code":…,"message":…,"status":…,"details":[…]}}` as Google's APIs answer.
    Google,
    /// `{"error":{"code":…,"message":…,"details":{…}},"request_id":…}`.
    Legacy,
}

impl ErrorStyle {
    /// As the routes file says it.
    pub fn word(self) -> &'static str {
        match self {
            ErrorStyle::Problem => "problem",
            ErrorStyle::Google => "google",
            ErrorStyle::Legacy => "legacy",
        }
    }
}

/// Who shares a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKey {
    /// All callers of the route.
    Route,
    /// Each client address has its own.
    Client,
}

/// What a route allows and how it answers.
#[derive(Debug)]
pub struct Policies {
    /// How callers are known; `None` where nobody is asked.
    pub auth: Option<Auth>,
    /// Longest wait for a reply, or for a stream to begin.
    pub timeout: Duration,
    /// Longest silence of a running stream.
    pub stream_idle: Duration,
    /// Largest body in bytes.
    pub body_max: usize,
    /// Token bucket; shared between generations while its row is unchanged.
    pub bucket: Option<(LimitKey, Arc<Bucket>)>,
    /// Calls in flight.
    pub call_slots: Option<Arc<Slots>>,
    /// Open streams.
    pub stream_slots: Option<Arc<Slots>>,
    /// Repeats of a call that is safe to repeat, where nobody answered.
    pub retries: u32,
    /// The breaker of its subject.
    pub breaker: Option<Arc<SubjectBreaker>>,
    /// Pages of other origins that may read the answers.
    pub cors: Option<Arc<Cors>>,
    /// How replies are printed.
    pub json_out: JsonOut,
    /// How errors are printed.
    pub error_style: ErrorStyle,
}

/// One row of the table, compiled.
#[derive(Debug)]
pub struct Route {
    /// Its index.
    pub id: RouteId,
    /// HTTP method, or `*`.
    pub verb: Box<str>,
    /// Path template as written: the metrics' label.
    pub template: Box<str>,
    /// Where it leads.
    pub method: Arc<Method>,
    /// This row always streams (the row names a server-streaming method).
    pub is_stream: bool,
    /// From HTTP to request bytes.
    pub binding: Binding,
    /// The reply's field that is the answer's body.
    pub response_body: Option<FieldId>,
    /// The answer's body is a `google.api.HttpBody`: it has the type that the worker gives it.
    pub is_raw: bool,
    /// Reply field → response header, such as `version` → `ETag`; entity tags are quoted.
    pub headers_out: Vec<(FieldId, http::HeaderName)>,
    /// Limits and forms.
    pub policies: Policies,
    /// The old system beside its workers, while it moves.
    pub migration: Option<Arc<Migration>>,
    /// `routes.yaml:12:5`, for people.
    pub defined_at: String,
    /// Its workers announce it: it goes with them.
    pub is_discovered: bool,
    /// What happens on it.
    pub metrics: RouteMetrics,
}
