//! Two tables compared route by route, as a client sees them: what was added, removed and changed, and what of it breaks
//! clients that keep calling as they did. Pure.

mod route;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Route, Snapshot, compat};
use crate::route::{Lookup, PathTemplate, Segment, Segments};

/// What happened to a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// It takes the same requests, and does something else with them.
    Changed,
}

/// A route that is not as it was.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Verb and template; the new ones where there are such.
    pub route: String,
    /// What happened.
    pub kind: Kind,
    /// Clients that keep calling as they did break.
    pub is_breaking: bool,
    /// What exactly, one by one.
    pub details: Vec<Detail>,
    /// Where it was written.
    pub before: Option<String>,
    /// Where it is written.
    pub after: Option<String>,
}

/// One difference.
#[derive(Debug, Serialize)]
pub struct Detail {
    /// What differs: `subject`, `auth`, `path`.
    pub what: &'static str,
    /// As it was.
    pub before: String,
    /// As it is.
    pub after: String,
    /// It breaks clients.
    pub is_breaking: bool,
    /// What it means to them.
    pub meaning: String,
}

/// How bad it is, worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing differs.
    Same,
    /// Clients go on as before.
    Compatible,
    /// Some client breaks.
    Breaking,
}

/// What differs between two tables, and how bad it is; routes in order of paths and verbs.
pub fn diff(old: &Snapshot, new: &Snapshot) -> (Verdict, Vec<Change>) {
    let (before, after) = (by_requests(old), by_requests(new));
    let mut changes = Vec::new();
    for (requests, route) in &before {
        match after.get(requests) {
            Some(now) => changes.extend(changed(route, now)),
            None => changes.push(removed(route, requests, new)),
        }
    }
    changes.extend(
        after
            .iter()
            .filter(|(requests, _)| !before.contains_key(*requests))
            .map(|(requests, route)| added(route, requests, old)),
    );
    schema(old, new, &mut changes);
    changes.sort_by(|a, b| path_first(&a.route).cmp(&path_first(&b.route)));
    let breaks = changes.iter().any(|change| change.is_breaking);
    let verdict = match changes.is_empty() {
        true => Verdict::Same,
        false if breaks => Verdict::Breaking,
        false => Verdict::Compatible,
    };
    (verdict, changes)
}

/// Adds what the messages and methods of the new side break, as a reload judges it, to the routes that reach it.
fn schema(old: &Snapshot, new: &Snapshot, changes: &mut Vec<Change>) {
    for found in compat::breaks(old, new) {
        for name in &found.routes {
            let at = changes.iter().position(|change| change.route == *name).unwrap_or_else(|| {
                let place = |table: &Snapshot| {
                    let route = table.routes.iter().find(|route| self::name(route) == *name);
                    route.map(|route| route.defined_at.clone())
                };
                let (before, after) = (place(old), place(new));
                let (route, kind) = (name.clone(), Kind::Changed);
                changes.push(Change { route, kind, is_breaking: true, details: Vec::new(), before, after });
                changes.len() - 1
            });
            changes[at].is_breaking = true;
            changes[at].details.push(Detail {
                what: "schema",
                before: found.element.clone(),
                after: String::new(),
                is_breaking: true,
                meaning: found.text.clone(),
            });
        }
    }
}

/// `POST /v1/x` as `/v1/x POST`.
fn path_first(route: &str) -> (&str, &str) {
    let (verb, path) = route.split_once(' ').unwrap_or(("", route));
    (path, verb)
}

/// The requests that a route takes, whatever its variables are named.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Requests {
    segments: Vec<String>,
    custom: Option<String>,
    verb: String,
}

impl Requests {
    fn of(route: &Route) -> Option<Requests> {
        let template = PathTemplate::parse(&route.template).ok()?;
        let segments = template.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::One => "*".to_owned(),
            Segment::Many => "**".to_owned(),
        });
        Some(Requests { segments: segments.collect(), custom: template.verb, verb: route.verb.to_string() })
    }

    /// One of them, and where another table takes it.
    fn taken_by<'s>(&self, table: &'s Snapshot) -> Option<&'s Route> {
        let segments: Vec<&str> =
            self.segments.iter().map(|text| if text.starts_with('*') { "x" } else { text }).collect();
        let custom = self.custom.as_ref().map_or_else(String::new, |verb| format!(":{verb}"));
        let path = format!("/{}{custom}", segments.join("/"));
        let verb = if self.verb == "*" { "POST" } else { &self.verb };
        match table.tree.find(verb, &path, &Segments::split(&path)?) {
            Lookup::Found(id) => Some(table.route(id)),
            Lookup::Missing | Lookup::WrongVerb(_) => None,
        }
    }
}

fn by_requests(snapshot: &Snapshot) -> BTreeMap<Requests, &Route> {
    snapshot.routes.iter().filter_map(|route| Some((Requests::of(route)?, &**route))).collect()
}

fn name(route: &Route) -> String {
    format!("{} {}", route.verb, route.template)
}

fn removed(route: &Route, requests: &Requests, new: &Snapshot) -> Change {
    let meaning = match requests.taken_by(new) {
        Some(other) => format!("its requests go to `{}` now", name(other)),
        None => "its requests are refused now".to_owned(),
    };
    let detail = Detail {
        what: "route",
        before: route.method.name.to_string(),
        after: String::new(),
        is_breaking: true,
        meaning,
    };
    Change {
        route: name(route),
        kind: Kind::Removed,
        is_breaking: true,
        details: vec![detail],
        before: Some(route.defined_at.clone()),
        after: None,
    }
}

/// A new route breaks nobody, unless it takes requests that another one had.
fn added(route: &Route, requests: &Requests, old: &Snapshot) -> Change {
    let before = requests.taken_by(old);
    let meaning = match before {
        Some(other) => format!("takes requests that went to `{}` before", name(other)),
        None => "its requests were refused before".to_owned(),
    };
    let detail = Detail {
        what: "route",
        before: before.map_or_else(String::new, |other| other.method.name.to_string()),
        after: route.method.name.to_string(),
        is_breaking: before.is_some_and(|other| other.method.name != route.method.name),
        meaning,
    };
    Change {
        route: name(route),
        kind: Kind::Added,
        is_breaking: detail.is_breaking,
        details: vec![detail],
        before: None,
        after: Some(route.defined_at.clone()),
    }
}

fn changed(before: &Route, after: &Route) -> Option<Change> {
    let details = route::compare(before, after);
    (!details.is_empty()).then(|| Change {
        route: name(after),
        kind: Kind::Changed,
        is_breaking: details.iter().any(|detail| detail.is_breaking),
        details,
        before: Some(before.defined_at.clone()),
        after: Some(after.defined_at.clone()),
    })
}
