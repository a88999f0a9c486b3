//! Which clients a new schema breaks, judged against the routes that lead to it: what no route reaches may change as it
//! likes. Pure: two snapshots in, a list out. What is inside of a `google.protobuf.Any` is not followed.

mod walk;

use std::collections::{BTreeMap, HashMap};

use super::problem::{Place, Problem};
use super::{Material, Route, Snapshot, Streaming};
use crate::schema;
use crate::transcode::MessageId;
use walk::{Finding, Root, Side};

/// Routes that a problem names before it counts the others.
const ROUTES_NAMED: usize = 2;

/// Something that breaks clients, or workers that run on the schema in force.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Break {
    /// What it is about: `shop.v1.Item.price`, `shop.v1.Color.RED`, `shop.v1.Shop/Buy`.
    pub element: String,
    /// What has changed, and whom it breaks.
    pub text: String,
    /// The routes that reach it, as `GET /v1/items/{id}`.
    pub routes: Vec<String>,
}

/// Everything of `new` that breaks clients of the routes of `old`, in order of the elements.
///
/// Routes that both have, by verb and template, are compared: what their requests take and what their replies give, in
/// the JSON form that each route has, and on the wire. A route that is gone counts only where its method is no longer in
/// the descriptors: taking a route out of the table is meant.
pub fn breaks(old: &Snapshot, new: &Snapshot) -> Vec<Break> {
    let mut found = Found::default();
    let mut walked: HashMap<Root, Vec<Finding>> = HashMap::new();
    let routes: HashMap<(&str, &str), &Route> =
        new.routes.iter().map(|route| ((&*route.verb, &*route.template), &**route)).collect();
    // What workers announce goes and changes with them.
    for before in old.routes.iter().filter(|route| !route.is_discovered) {
        let name = format!("{} {}", before.verb, before.template);
        let Some(after) = routes.get(&(&*before.verb, &*before.template)) else {
            let is_described = |snapshot: &Snapshot| snapshot.described.contains(&before.method.name);
            if is_described(old) && !is_described(new) {
                let text = format!("method `{}` is gone, and its route with it", before.method.name);
                found.add(&before.method.name, text, &name);
            }
            continue;
        };
        if let Some(text) = streaming(before, after) {
            found.add(&after.method.name, text, &name);
        }
        for root in roots(before, after) {
            for Finding { element, text } in
                walked.entry(root).or_insert_with(|| walk::walk(&old.tables, &new.tables, root))
            {
                found.add(element, text.clone(), &name);
            }
        }
        let body_of = |snapshot: &Snapshot, route: &Route| {
            let table = snapshot.tables.message(route.method.reply);
            route.response_body.map_or("the whole reply".to_owned(), |id| format!("`{}`", table.field(id).spec.name))
        };
        let (was, is) = (body_of(old, before), body_of(new, after));
        if was != is {
            found.add(&after.method.name, format!("the answer's body was {was} and is {is}: clients read it"), &name);
        }
    }
    found.0.into_iter().map(|((element, text), routes)| Break { element, text, routes }).collect()
}

/// Breaks as problems of the new files: at the element, or at what it was a part of.
pub fn problems(material: &Material, breaks: &[Break]) -> Vec<Problem> {
    if breaks.is_empty() {
        return Vec::new();
    }
    let elements: Vec<&str> = breaks.iter().map(|found| found.element.as_str()).collect();
    let places = schema::places(&material.descriptors, &material.paths, &elements);
    let problem = |(found, place): (&Break, Option<schema::SchemaPlace>)| {
        let place = match place {
            Some(place) => Place::new(&place.file, place.line, place.column),
            None => Place::new(&material.routes_name, 1, 1),
        };
        let named = found.routes.iter().take(ROUTES_NAMED).map(|route| format!("`{route}`"));
        let mut reached = named.collect::<Vec<_>>().join(", ");
        if found.routes.len() > ROUTES_NAMED {
            reached.push_str(&format!(" and {} more", found.routes.len() - ROUTES_NAMED));
        }
        let hint = format!(
            "it breaks clients of {reached}: keep what is there, serve the new version beside it, or allow it with \
             `--schema-changes allow`"
        );
        Problem::new(place, found.text.as_str()).hint(hint)
    };
    breaks.iter().zip(places).map(problem).collect()
}

/// What has been found, with the routes that reach it.
#[derive(Default)]
struct Found(BTreeMap<(String, String), Vec<String>>);

impl Found {
    fn add(&mut self, element: &str, text: String, route: &str) {
        let routes = self.0.entry((element.to_owned(), text)).or_default();
        if routes.last().is_none_or(|last| last != route) {
            routes.push(route.to_owned());
        }
    }
}

fn streaming(before: &Route, after: &Route) -> Option<String> {
    let way = |route: &Route| match (route.is_stream, route.method.streaming) {
        (true, _) | (_, Streaming::Server) => "with a stream",
        (false, Streaming::OnRequest) => "with a stream where the request asks for one",
        (false, Streaming::Unary) => "once",
    };
    let (was, is) = (way(before), way(after));
    // Whoever never asked for a stream gets what they got.
    let is_added = was == "once" && is.ends_with("asks for one");
    (was != is && !is_added).then(|| format!("`{}` answered {was} and answers {is} now", after.method.name))
}

/// The messages that a pair of routes takes and gives.
fn roots(before: &Route, after: &Route) -> Vec<Root> {
    let (old, new) = (&before.method, &after.method);
    let context = old.envelope.context.as_ref().map(|context| context.number);
    let reply = Side::reply(&before.policies.json_out);
    let root = |old: MessageId, new: MessageId, side: Side, field: Option<u32>| Root { old, new, side, field };
    let mut roots = vec![Root { old: old.request, new: new.request, side: Side::Request { context }, field: None }];
    if let Some(number) = context {
        roots.push(root(old.request, new.request, Side::Context, Some(number)));
    }
    let body = before.response_body.map(|id| old.tables.message(old.reply).field(id).spec.number);
    roots.push(root(old.reply, new.reply, reply, body));
    if old.streaming != Streaming::Unary && old.chunk != old.reply {
        roots.push(root(old.chunk, new.chunk, reply, None));
    }
    roots
}
