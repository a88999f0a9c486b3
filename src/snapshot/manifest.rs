//! `routes.yaml` as written. Every value that can be wrong later keeps its place in the file. Knows nothing of what the
//! rows mean.

mod migrate;

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

use super::cors::CorsRow;
use super::problem::{Place, Problem};
use crate::written;

pub use crate::written::At;
pub use migrate::{CutoverRow, MigrateRow, OldRow, ShadowRow};

/// The whole file.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// Version of this file's form: 1.
    pub version: Option<At<u32>>,
    /// Error style of answers without a route: `problem` (default), `google` or `legacy`.
    pub errors: Option<At<String>>,
    /// House styles by name. `plain` and `google` are built in.
    pub styles: BTreeMap<String, At<StyleRow>>,
    /// How `Authorization: Bearer TOKEN` is checked.
    pub credential: Option<At<CredentialRow>>,
    /// What holds for every route that does not say otherwise.
    pub defaults: PolicyRow,
    /// Routes taken from `google.api.http` options of the descriptors.
    pub annotations: Vec<At<AnnotationRow>>,
    /// Policies of single methods, by full name `pkg.Service/Method`.
    pub methods: BTreeMap<String, At<PolicyRow>>,
    /// Routes written here.
    pub routes: Vec<At<RouteRow>>,
    /// Routes that share policies.
    pub groups: Vec<At<GroupRow>>,
    /// Most open streams of one process (default 10000).
    pub open_streams: Option<At<usize>>,
    /// The API description of these routes.
    pub openapi: OpenApiRow,
    /// Services that announce themselves; no file names them.
    #[serde(skip)]
    pub discovered: Vec<String>,
    /// Services that came with their descriptors; `*` means none of them.
    #[serde(skip)]
    pub brought: Vec<String>,
}

/// What the API description says of itself, and whether clients can get it.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OpenApiRow {
    /// Its title (default `HTTP API`).
    pub title: Option<String>,
    /// The API's version, in your own counting (default `unversioned`).
    pub version: Option<String>,
    /// Where clients reach the gateway: `https://api.example.com`.
    pub server: Option<String>,
    /// Path where the gateway gives it to clients: `/openapi.json`. Without it only the admin port does.
    pub path: Option<At<String>>,
}

/// A method that is asked whose a token is, and the fields of its request and reply.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialRow {
    /// A method of the descriptors: `auth.v1.AuthService/ValidateSession`.
    pub call: At<String>,
    /// Text field of the request that takes the token.
    pub token: At<String>,
    /// Boolean field of the reply.
    pub valid: At<String>,
    /// Text field of the reply.
    pub user: At<String>,
    /// Text field of the reply, or an entry of a map: `session_data[tenant_id]`.
    #[serde(default)]
    pub tenant: Option<At<String>>,
    /// The same; a list, or a text with commas, where there are several.
    #[serde(default)]
    pub roles: Option<At<String>>,
    /// When it ends: a number field of the reply, milliseconds since 1970.
    #[serde(default)]
    pub expires: Option<At<String>>,
    /// A watch that tells of revoked tokens: they are then refused at once.
    #[serde(default)]
    pub revocations: Option<At<RevocationsRow>>,
}

/// A method whose stream tells of revoked tokens.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationsRow {
    /// A method of the descriptors that answers with a stream: `auth.v1.AuthService/WatchRevocations`.
    pub call: At<String>,
    /// Text field of its chunks: SHA-256 of the token, as hex digits.
    pub token_hash: At<String>,
    /// 64-bit number of its request: behind which id of a chunk it goes on after a pause.
    #[serde(default)]
    pub after: Option<At<String>>,
}

/// Services whose annotations become routes.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnnotationRow {
    /// Full names of services, or `*` for all.
    pub services: Vec<At<String>>,
    /// Methods without an annotation get `POST /pkg.Service/Method`.
    #[serde(default)]
    pub convention: bool,
    /// Policies of these routes.
    #[serde(default)]
    pub policies: PolicyRow,
}

/// Routes with policies in common.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupRow {
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// Put before each path.
    #[serde(default)]
    pub prefix: Option<String>,
    /// Policies of these routes.
    #[serde(default)]
    pub policies: PolicyRow,
    /// The routes.
    pub routes: Vec<At<RouteRow>>,
}

/// One route.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteRow {
    /// HTTP method and path template: `POST /v1/quests/{quest_id}:start`.
    pub route: At<String>,
    /// A method of the descriptors: `quest.v1.QuestService/GenerateQuest`.
    #[serde(default)]
    pub call: Option<At<String>>,
    /// NATS subject, for schemas without services.
    #[serde(default)]
    pub subject: Option<At<String>>,
    /// Full name of the request message, with `subject`.
    #[serde(default)]
    pub request: Option<At<String>>,
    /// Full name of the reply message, with `subject`.
    #[serde(default)]
    pub reply: Option<At<String>>,
    /// Full name of the chunk message: the route answers with a stream.
    #[serde(default)]
    pub chunk: Option<At<String>>,
    /// The body: `*` for everything that the path does not bind, a field, or nothing.
    #[serde(default)]
    pub body: Option<At<String>>,
    /// The reply field that is the answer's body.
    #[serde(default)]
    pub response_body: Option<At<String>>,
    /// Fields with a constant value.
    #[serde(default)]
    pub presets: BTreeMap<String, String>,
    /// Request headers that fill fields: header to field.
    #[serde(default)]
    pub headers_in: BTreeMap<String, String>,
    /// Reply fields that become response headers: field to header.
    #[serde(default)]
    pub headers_out: BTreeMap<String, String>,
    /// Policies of this route.
    #[serde(default)]
    pub policies: PolicyRow,
}

/// Policies; what is absent comes from the level above.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyRow {
    /// House style of the schema (default `plain`).
    pub style: Option<At<String>>,
    /// Error style: `problem` (default), `google` or `legacy`.
    pub errors: Option<At<String>>,
    /// Whether callers have a credential: `none` (default), `optional` or `required`.
    pub auth: Option<At<String>>,
    /// Longest wait for a reply, or for a stream to begin (default `30s`, at most `300s`).
    pub timeout: Option<At<String>>,
    /// Longest silence of a stream (default `30s`, at most `300s`).
    pub stream_idle: Option<At<String>>,
    /// Largest body (default `1MiB`, at most `64MiB`).
    pub body_max: Option<At<String>>,
    /// Token bucket (default none).
    pub rate: Option<At<RateRow>>,
    /// Most calls in flight (default no limit).
    pub calls: Option<At<usize>>,
    /// Most open streams (default no limit but `open_streams`).
    pub streams: Option<At<usize>>,
    /// Repeats of a call that is safe to repeat, where nobody was there or the connection broke: 0 (default) to 2.
    pub retries: Option<At<u32>>,
    /// Circuit breaker of the subject.
    pub breaker: Option<At<BreakerRow>>,
    /// Pages of other origins that may use it from a browser (default none).
    pub cors: Option<At<CorsRow>>,
    /// An old system beside the workers, while clients move over.
    pub migrate: Option<At<MigrateRow>>,
    /// Form of the JSON.
    pub json: Option<JsonRow>,
}

/// A circuit breaker: after time-outs in a row requests are refused for a while, then one is let through as a probe.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerRow {
    /// Time-outs in a row that open it: 5 without it.
    pub failures: Option<u32>,
    /// How long it stays open before a probe: `30s` without it.
    pub open: Option<String>,
}

/// A token bucket.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateRow {
    /// Requests in a window.
    pub requests: u32,
    /// Its length: `1s`.
    pub per: String,
    /// Requests that may come at once; `requests` without it.
    #[serde(default)]
    pub burst: Option<u32>,
    /// Who shares it: `route` (default) or `client`.
    #[serde(default)]
    pub key: Option<String>,
}

/// Form of the JSON.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JsonRow {
    /// Member names out: `camel` (default) or `proto`.
    pub names: Option<At<String>>,
    /// Absent fields out: `omit` (default) or `print`.
    pub defaults: Option<At<String>>,
    /// Enum values out: `name` (default) or `number`.
    pub enums: Option<At<String>>,
    /// Unknown members in: `reject` (default) or `ignore`.
    pub unknown: Option<At<String>>,
}

/// A house style.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StyleRow {
    /// The caller context.
    #[serde(default)]
    pub context: Option<ContextRow>,
    /// An error inside the reply; without it the headers of the NATS services protocol say so.
    #[serde(default)]
    pub error: Option<ErrorRow>,
    /// Without `error`: a failed reply's body is a `google.rpc.Status`, with its details.
    #[serde(default)]
    pub status: bool,
    /// A chunk's place in its stream.
    #[serde(default)]
    pub chunk: ChunkRow,
}

/// The caller context: a message field that only the gateway writes.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContextRow {
    /// Name of the field in every message.
    pub field: String,
    /// Its fields, each with its sources; the first that has a value wins.
    pub fill: BTreeMap<String, Vec<SourceRow>>,
    /// Its labels.
    #[serde(default)]
    pub labels: Option<LabelsRow>,
}

/// The labels of the context.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelsRow {
    /// Name of the map field.
    pub field: String,
    /// Headers with this prefix become labels.
    #[serde(default)]
    pub header_prefix: Option<String>,
    /// Most labels from a client (default 32).
    #[serde(default)]
    pub max: Option<usize>,
    /// Names that a client cannot set.
    #[serde(default)]
    pub reserved: Vec<String>,
    /// Labels that the gateway sets.
    #[serde(default)]
    pub set: BTreeMap<String, SourceRow>,
}

/// An error inside the reply.
#[derive(Clone, Debug, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ErrorRow {
    /// Name of the field.
    pub field: String,
    /// Name of its code, an enum.
    pub code: String,
    /// Name of its text.
    pub message: String,
    /// Name of its details, a map of strings.
    #[serde(default)]
    pub details: Option<String>,
    /// Other fields of a failed reply become details.
    #[serde(default)]
    pub copy_rest_into_details: bool,
    /// HTTP status by name of the code.
    #[serde(default)]
    pub codes: BTreeMap<String, u16>,
}

/// A chunk's place in its stream.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ChunkRow {
    /// Number field, counted from 0.
    pub index: Option<String>,
    /// Boolean field of the last chunk.
    pub last: Option<String>,
    /// Number field that is the resume point of an event; the index without it.
    pub id: Option<String>,
    /// Path of the boolean by which a request asks for a stream.
    pub stream_when: Option<String>,
}

/// Where a context value comes from: a word, or a map with one of `header`, `value`, `body_member`.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum SourceRow {
    /// `generated`, `traceparent`, `now`, `caller.user`, `caller.tenant`, `caller.role`.
    Word(String),
    /// A header, a constant, or a member of the body.
    Map(SourceMap),
}

/// A source with parameters.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SourceMap {
    /// A request header.
    pub header: Option<String>,
    /// With `header`: `services` refuses values that name a service.
    pub not_in: Option<String>,
    /// With `header`: only from trusted peers.
    pub trusted: bool,
    /// A constant.
    pub value: Option<String>,
    /// A top-level member of the JSON body.
    pub body_member: Option<String>,
}

impl<'de> Deserialize<'de> for SourceRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SourceRow, D::Error> {
        struct Row;
        impl<'de> Visitor<'de> for Row {
            type Value = SourceRow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source such as `generated`, or a map such as `{ header: X-Trace-ID }`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SourceRow, E> {
                Ok(SourceRow::Word(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SourceRow, A::Error> {
                SourceMap::deserialize(de::value::MapAccessDeserializer::new(map)).map(SourceRow::Map)
            }
        }
        deserializer.deserialize_any(Row)
    }
}

/// Reads a file's text. Fails with everything that has not the form of this file.
pub fn parse(file: &str, text: &str) -> Result<Manifest, Vec<Problem>> {
    written::read_shaped(file, text)?.ok_or_else(|| {
        let hint = "`tidegate init` makes a starter folder";
        vec![Problem::new(Place::new(file, 1, 1), "this file is empty: it would serve nothing").hint(hint)]
    })
}

/// The JSON Schema of the file, for editors.
pub fn json_schema() -> String {
    serde_json::to_string_pretty(&schemars::schema_for!(Manifest)).unwrap_or_default()
}
