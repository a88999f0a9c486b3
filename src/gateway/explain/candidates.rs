//! The routes that a path could have meant, and why each does or does not take the request.

use std::cmp::Reverse;

use serde::Serialize;

use super::Inbound;
use crate::route::{Fit, Misfit, PathTemplate, RouteId, Segments};
use crate::snapshot::{Route, Snapshot};
use crate::written::distance;

/// Most routes that are named where none takes the path.
const NEAREST_MAX: usize = 5;

/// A route that a request could have meant.
#[derive(Debug, Serialize)]
pub struct Candidate {
    /// Verb and template.
    pub route: String,
    /// Where it is written.
    pub defined_at: String,
    /// It takes the request.
    pub is_taken: bool,
    /// Why it does, or why not.
    pub why: String,
}

/// The routes whose template takes the path, in the order in which they are tried; where there is none, the nearest.
pub(super) fn of(snapshot: &Snapshot, inbound: &Inbound, taken: Option<RouteId>) -> (Vec<Candidate>, Vec<Candidate>) {
    let path = inbound.head.uri.path();
    let Some(segments) = Segments::split(path) else { return (Vec::new(), Vec::new()) };
    let mut fitting = Vec::new();
    let mut others = Vec::new();
    for route in &snapshot.routes {
        let Ok(template) = PathTemplate::parse(&route.template) else { continue };
        let fit = template.fit(path, &segments);
        match fit.misfit {
            None => fitting.push((template, route)),
            Some(_) => others.push((fit, template, route)),
        }
    }
    fitting.sort_by_cached_key(|(template, route)| (template.precedence(), verb_rank(route, inbound)));
    let candidates = fitting.iter().map(|(template, route)| candidate(template, route, inbound, taken)).collect();
    if !fitting.is_empty() {
        return (candidates, Vec::new());
    }
    others.sort_by_cached_key(|(fit, template, route)| {
        let length = template.segments.len().abs_diff(segments.len());
        (Reverse(fit.agreed), difference(fit), Reverse(fit.alike), length, verb_rank(route, inbound))
    });
    // Routes that share nothing with the path help nobody, unless nothing does.
    let best = others.first().map_or(0, |(fit, ..)| fit.agreed);
    let near = others.iter().filter(|(fit, ..)| fit.agreed + 1 >= best.max(1)).take(NEAREST_MAX);
    (candidates, near.map(|(fit, _, route)| far(fit, route)).collect())
}

/// How far the first thing that does not agree is from agreeing, in letters.
fn difference(fit: &Fit) -> usize {
    match &fit.misfit {
        Some(Misfit::Text { expected, found, .. }) => distance(expected, found),
        Some(Misfit::Verb { .. }) => 0,
        _ => usize::MAX,
    }
}

/// The route's own verb before GET's for HEAD before that of any verb.
fn verb_rank(route: &Route, inbound: &Inbound) -> u8 {
    match (&*route.verb, inbound.head.method.as_str()) {
        (own, verb) if own == verb => 0,
        ("GET", "HEAD") => 1,
        ("*", _) => 2,
        _ => 3,
    }
}

fn candidate(template: &PathTemplate, route: &Route, inbound: &Inbound, taken: Option<RouteId>) -> Candidate {
    let is_taken = taken == Some(route.id);
    let verb = &inbound.head.method;
    let why = match (is_taken, verb_rank(route, inbound)) {
        (true, 1) => "takes the path; HEAD is answered as GET is".to_owned(),
        (true, 2) => "takes the path, with any verb".to_owned(),
        (true, _) => "takes the path and the verb".to_owned(),
        (false, 3) => format!("takes the path, but {} instead of {verb}", route.verb),
        (false, _) if taken.is_none() => {
            "takes the path and the verb, but the path ends with a custom verb that other routes have".to_owned()
        }
        (false, _) if template.verb.is_some() => {
            "takes the path; another one with this custom verb is nearer".to_owned()
        }
        (false, _) => "takes the path, but a nearer one comes first: literal text before `*` before `**`".to_owned(),
    };
    Candidate { is_taken, why, ..named(route) }
}

fn far(fit: &Fit, route: &Route) -> Candidate {
    let why = fit.misfit.as_ref().map(ToString::to_string).unwrap_or_default();
    Candidate { why, ..named(route) }
}

fn named(route: &Route) -> Candidate {
    Candidate {
        route: format!("{} {}", route.verb, route.template),
        defined_at: route.defined_at.clone(),
        is_taken: false,
        why: String::new(),
    }
}
