//! Why a request goes where it goes: the very steps of its life up to the ask, with what they decide said in words.
//! Asks nobody and takes no token of any limit.

mod answer;
mod candidates;
mod route;

use bytes::Bytes;
use http::Request;
use serde::Serialize;

use super::inbound::{Inbound, Peer};
use super::{ConnectionLimits, Networks, life, respond};
use crate::fault::Fault;
use crate::snapshot::Snapshot;
use crate::transcode::{self, Scratch};

pub use answer::{BoundField, Refused};
pub use candidates::Candidate;
pub use route::{LimitRow, RateRow, RouteFacts};

/// Everything that is to be said of one request.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Its verb.
    pub verb: String,
    /// Its path and query.
    pub target: String,
    /// Generation of the tables that were asked.
    pub generation: u64,
    /// Routes whose path template takes the path, in the order in which they are tried.
    pub candidates: Vec<Candidate>,
    /// Where no route takes the path: those that come nearest, the nearest first.
    pub nearest: Vec<Candidate>,
    /// The route that takes the request.
    pub route: Option<RouteFacts>,
    /// Which field of the request message comes from where.
    pub bindings: Vec<BoundField>,
    /// Whether the answer is a stream.
    pub wants_stream: bool,
    /// The request message as the worker gets it, ids and times made up; `None` where there is none.
    pub message: Option<serde_json::Value>,
    /// What the gateway itself refuses this request with.
    pub refused: Option<Refused>,
}

/// Explains a request; its body may be empty. The peer is nobody whom the gateway trusts.
pub fn explain(snapshot: &Snapshot, request: Request<Bytes>) -> Explanation {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let inbound = Inbound::read(head, Peer::nobody(), &Networks::default());
    let mut told = Explanation {
        verb: inbound.head.method.to_string(),
        target,
        generation: snapshot.generation,
        candidates: Vec::new(),
        nearest: Vec::new(),
        route: None,
        bindings: Vec::new(),
        wants_stream: false,
        message: None,
        refused: None,
    };
    let found = life::find(snapshot, &inbound, ConnectionLimits::default().headers);
    let taken = found.as_ref().ok().map(|(route, _)| route.id);
    (told.candidates, told.nearest) = candidates::of(snapshot, &inbound, taken);
    match found {
        Err(fault) => told.refused = Some(Refused::new(&fault, respond::status_of(&fault, None))),
        Ok((route, segments)) => {
            told.route = Some(RouteFacts::new(&route));
            told.bindings = answer::bindings(&route, &segments, &inbound, &body);
            let result = bind(&mut told, snapshot, &route, &segments, &inbound, &body);
            let envelope = Some(&route.method.envelope);
            told.refused = result.err().map(|fault| Refused::new(&fault, respond::status_of(&fault, envelope)));
        }
    }
    told
}

/// The steps behind the route: what they refuse is what a caller would be told.
fn bind(
    told: &mut Explanation,
    snapshot: &Snapshot,
    route: &crate::snapshot::Route,
    segments: &crate::route::Segments,
    inbound: &Inbound,
    body: &Bytes,
) -> Result<(), Fault> {
    inbound.timeout(route.policies.timeout)?;
    super::auth::check_shown(route, inbound)?;
    let body: &[u8] = if route.binding.has_body() { body } else { &[] };
    if body.len() > route.policies.body_max {
        return Err(super::inbound::too_large(route.policies.body_max));
    }
    let bound = life::bind(snapshot, route, segments, inbound, None, body)?;
    told.wants_stream = bound.wants_stream;
    let (tables, mut json) = (&route.method.tables, Vec::new());
    let printed = transcode::wire_to_json(
        tables,
        route.method.request,
        &route.policies.json_out,
        &bound.payload,
        &mut Scratch::default(),
        &mut json,
    );
    told.message = printed.ok().and_then(|()| serde_json::from_slice(&json).ok());
    Ok(())
}
