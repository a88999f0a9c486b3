//! One route as an operation.

use std::collections::{HashMap, HashSet};

use super::json::Json;
use super::parameters;
use super::paths::OpenPath;
use super::responses::{self, Errors};
use super::schemas::Schemas;
use crate::route::{BodyOutline, RouteId};
use crate::snapshot::{Route, Snapshot};
use crate::transcode::JsonOut;

/// What the operations of one document share.
pub(super) struct Writer<'s> {
    snapshot: &'s Snapshot,
    pub(super) schemas: Schemas<'s>,
    pub(super) errors: Errors,
    ids: HashMap<RouteId, String>,
}

impl<'s> Writer<'s> {
    pub(super) fn new(snapshot: &'s Snapshot, usual: JsonOut) -> Writer<'s> {
        let replies = snapshot.routes.iter().flat_map(|route| responses::without_error(route)).collect();
        let schemas = Schemas::new(&snapshot.tables, &snapshot.docs, usual, replies);
        Writer { snapshot, schemas, errors: Errors::default(), ids: ids(snapshot) }
    }

    /// A route under one verb; `names` are those of the path's slots.
    pub(super) fn operation(&mut self, route: &Route, path: &OpenPath, names: &[String], verb: &str) -> Json {
        let docs = &*self.snapshot.docs;
        let doc = docs.of(&route.method.name);
        let (summary, rest) = first_sentence(&doc.comment);
        let parameters = parameters::of(route, docs, path, names, &mut self.schemas);
        let body = self.request_body(route);
        let responses = responses::of(route, &mut self.schemas, &mut self.errors);
        let operation = Json::new()
            .with("operationId", self.id(route, verb))
            .with("tags", vec![tag(route)])
            .with_text("summary", summary)
            .with_text("description", rest);
        let operation = if doc.is_deprecated { operation.with("deprecated", true) } else { operation };
        operation
            .with_some("security", security(route))
            .with("parameters", parameters)
            .with_some("requestBody", body)
            .with("responses", responses)
            .with("x-tidegate-timeout-ms", route.policies.timeout.as_millis() as i64)
    }

    /// A route for any verb has the verb in its ids.
    fn id(&self, route: &Route, verb: &str) -> String {
        let id = self.ids.get(&route.id).map(String::as_str).unwrap_or_default();
        if &*route.verb == "*" { format!("{id}_{}", verb.to_ascii_lowercase()) } else { id.to_owned() }
    }

    fn request_body(&mut self, route: &Route) -> Option<Json> {
        let form = &route.policies.json_out;
        let (content, is_required) = match route.binding.body_outline() {
            BodyOutline::None => return None,
            BodyOutline::Raw => (Json::new().with("*/*", Json::new()), false),
            BodyOutline::Message(plan) => {
                let schema = self.schemas.body(plan.root, &plan.claims, plan.lift.as_deref(), form);
                let is_required = self.schemas.requires_members(&schema);
                let content = Json::new()
                    .with("application/json", Json::new().with("schema", schema))
                    .with("application/x-protobuf", Json::new());
                (content, is_required)
            }
        };
        let max = route.policies.body_max;
        let body = Json::new().with("description", format!("At most {max} bytes.")).with("content", content);
        Some(if is_required { body.with("required", true) } else { body })
    }
}

/// `quest_v1_QuestService_GenerateQuest`; the further bindings of a method are counted in order of the table.
fn ids(snapshot: &Snapshot) -> HashMap<RouteId, String> {
    let mut taken = HashSet::new();
    let mut ids = HashMap::new();
    for route in &snapshot.routes {
        let base = match route.method.name.split_once('/') {
            Some((service, method)) if !service.contains(' ') => words(&format!("{service}.{method}")),
            _ => words(&format!("{} {}", route.verb.to_ascii_lowercase(), route.template)),
        };
        let further = (2..).map(|count| format!("{base}_{count}"));
        let id = std::iter::once(base.clone()).chain(further).find(|id| taken.insert(id.clone()));
        ids.insert(route.id, id.unwrap_or(base));
    }
    ids
}

/// The service that a route leads to; rows without one are together.
pub(super) fn tag(route: &Route) -> &str {
    match route.method.name.split_once('/') {
        Some((service, _)) if !service.contains(' ') => service,
        _ => "routes",
    }
}

fn security(route: &Route) -> Option<Vec<Json>> {
    let auth = route.policies.auth.as_ref()?;
    let bearer = Json::new().with("bearer", Vec::<Json>::new());
    Some(if auth.is_required { vec![bearer] } else { vec![Json::new(), bearer] })
}

/// A comment's first sentence, without its full stop, and what follows it.
fn first_sentence(comment: &str) -> (&str, &str) {
    let paragraph = comment.find("\n\n").unwrap_or(comment.len());
    let end = comment[..paragraph].find(". ").or_else(|| comment[..paragraph].find(".\n")).unwrap_or(paragraph);
    let (first, rest) = comment.split_at(end);
    (first.trim_end_matches('.'), rest.trim_start_matches('.').trim())
}

/// Letters and digits, joined by underscores.
fn words(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("_")
}

#[cfg(test)]
mod tests {
    use super::first_sentence;

    #[test]
    fn the_first_sentence_is_the_summary() {
        for (comment, expected) in [
            ("", ("", "")),
            ("Reads a document.", ("Reads a document", "")),
            ("Reads it. The same input\ngives the same.", ("Reads it", "The same input\ngives the same.")),
            ("Reads `v1.2` things\nin two lines", ("Reads `v1.2` things\nin two lines", "")),
            ("Title\n\nMore. And more.", ("Title", "More. And more.")),
        ] {
            assert_eq!(first_sentence(comment), expected);
        }
    }
}
