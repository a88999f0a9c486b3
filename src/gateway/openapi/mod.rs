//! The API description (OpenAPI 3.1.1) of a route table as run. Reads the snapshot; what a route does not do is not
//! described, and what OpenAPI cannot say stands beside it under `x-tidegate-…`.

mod json;
mod kinds;
mod operation;
mod parameters;
mod paths;
mod responses;
mod schemas;
mod serve;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

pub use json::Json;
pub(super) use serve::{description, pages, published};

use crate::fault::{Code, Fault};
use crate::route::PathTemplate;
use crate::snapshot::{ErrorStyle, Route, Snapshot};
use crate::transcode::JsonOut;
use operation::Writer;
use paths::OpenPath;

/// Verbs that a path item can have, in the order in which they are shown.
const VERBS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];
/// What a route for any verb is described under, where no route of its own takes the verb.
const ANY: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The description of a table. The same table gives the same bytes.
pub fn describe(snapshot: &Snapshot) -> Json {
    let usual = usual_form(snapshot);
    let mut writer = Writer::new(snapshot, usual);
    let mut paths = Json::new();
    for group in groups(snapshot) {
        let (path, item) = path_item(&group, &mut writer);
        paths.set(path, item);
    }
    let tags = tags(snapshot);
    let styles: Vec<ErrorStyle> = snapshot.routes.iter().map(|route| route.policies.error_style).collect();
    let has_auth = snapshot.routes.iter().any(|route| route.policies.auth.is_some());
    let bearer = Json::new().with("type", "http").with("scheme", "bearer");
    let (schemas, errors) = (writer.schemas, writer.errors);
    let components = Json::new()
        .with("schemas", schemas.into_components(responses::error_schemas(&styles)))
        .with("parameters", parameters::common())
        .with("headers", responses::headers())
        .with("responses", errors.into_components())
        .with_some("securitySchemes", has_auth.then(|| Json::new().with("bearer", bearer)));
    let info = Json::new()
        .with("title", &*snapshot.api.title)
        .with("version", &*snapshot.api.version)
        .with("description", ABOUT);
    let server = |url: &str| vec![Json::new().with("url", url)];
    Json::new()
        .with("openapi", "3.1.1")
        .with("info", info)
        .with_some("servers", snapshot.api.server.as_deref().map(server))
        .with("tags", tags)
        .with("paths", paths)
        .with("components", components)
}

/// The description as it is served: made once a generation, on first demand. That takes a while, so it is done off the
/// thread that serves connections, and once for all who ask meanwhile.
pub(super) async fn rendered(snapshot: &Arc<Snapshot>) -> Result<Bytes, Fault> {
    let render = || async {
        let described = snapshot.clone();
        let made = tokio::task::spawn_blocking(move || serde_json::to_vec(&describe(&described)));
        let cannot = |text: String| Fault::ours(Code::Internal, "the description cannot be made").internal(text);
        let made = made.await.map_err(|error| cannot(error.to_string()))?;
        made.map(Bytes::from).map_err(|error| cannot(error.to_string()))
    };
    snapshot.api.rendered.get_or_try_init(render).await.cloned()
}

const ABOUT: &str = "Made from the route table as it runs. Bodies are ProtoJSON, shown in the form that answers have: \
64-bit integers are text, bytes are base64, absent fields are left out. Requests may also write 64-bit integers as numbers, \
fields under their other name (`player_id`, `playerId`), enum values as numbers, and `null` for an absent field; numbers \
may be `\"NaN\"`, `\"Infinity\"` and `\"-Infinity\"` both ways. Fields that the path, a header or the gateway sets are no \
part of a body. `application/x-protobuf` is the message itself.";

/// Routes whose paths OpenAPI takes for one, by that path.
struct Group<'s> {
    paths: Vec<(&'s Route, OpenPath)>,
}

/// In order of paths, those of one path in order of the table.
fn groups(snapshot: &Snapshot) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<String, Group<'_>> = BTreeMap::new();
    for route in &snapshot.routes {
        // Only what parses gets into a table.
        let Ok(template) = PathTemplate::parse(&route.template) else { continue };
        let path = OpenPath::new(&template);
        groups.entry(path.key()).or_insert_with(|| Group { paths: Vec::new() }).paths.push((route, path));
    }
    groups.into_values().collect()
}

fn path_item(group: &Group<'_>, writer: &mut Writer<'_>) -> (String, Json) {
    let names = paths::shared_names(group.paths.iter().map(|row| &row.1));
    let mut taken: HashMap<&str, (&Route, &OpenPath)> = HashMap::new();
    let mut more = Vec::new();
    for (route, path) in group.paths.iter().filter(|row| &*row.0.verb != "*") {
        let verb = VERBS.iter().find(|verb| **verb == &*route.verb);
        match verb.filter(|verb| !taken.contains_key(**verb)) {
            Some(verb) => drop(taken.insert(verb, (route, path))),
            None => more.push((*route, path)),
        }
    }
    for (route, path) in group.paths.iter().filter(|row| &*row.0.verb == "*") {
        let free: Vec<&str> = ANY.into_iter().filter(|verb| !taken.contains_key(verb)).collect();
        if free.is_empty() {
            more.push((*route, path));
        }
        taken.extend(free.into_iter().map(|verb| (verb, (*route, path))));
    }
    let mut item = Json::new();
    for verb in VERBS {
        if let Some((route, path)) = taken.get(verb) {
            item.set(verb.to_ascii_lowercase(), writer.operation(route, path, &names, verb));
        }
    }
    if !more.is_empty() {
        let row = |route: &Route, operation: Json| {
            Json::new().with("verb", &*route.verb).with("template", &*route.template).with("operation", operation)
        };
        let rows: Vec<Json> = more
            .into_iter()
            .map(|(route, path)| row(route, writer.operation(route, path, &path.names(), &route.verb)))
            .collect();
        // Other verbs than OpenAPI's, and templates that differ only in ways that OpenAPI does not see.
        item.set("x-tidegate-more", rows);
    }
    let text = group.paths.first().map(|row| row.1.text(&names)).unwrap_or_default();
    (text, item)
}

/// A tag for each service that routes lead to.
fn tags(snapshot: &Snapshot) -> Vec<Json> {
    let names: BTreeSet<&str> = snapshot.routes.iter().map(|route| operation::tag(route)).collect();
    let row = |name: &str| Json::new().with("name", name).with_text("description", &snapshot.docs.of(name).comment);
    names.into_iter().map(row).collect()
}

/// The JSON form of most routes; of equals the first one.
fn usual_form(snapshot: &Snapshot) -> JsonOut {
    let forms = snapshot.routes.iter().map(|route| route.policies.json_out);
    let mut counts: Vec<(JsonOut, usize)> = Vec::new();
    for form in forms {
        match counts.iter_mut().find(|row| row.0 == form) {
            Some(row) => row.1 += 1,
            None => counts.push((form, 1)),
        }
    }
    counts.iter().rev().max_by_key(|row| row.1).map(|row| row.0).unwrap_or_default()
}
