//! Answers to browsers whose page comes from another origin (the Fetch standard, "CORS protocol"): the question before a
//! request, and what lets the page read an answer.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode};

use super::body::Answer;
use super::inbound::Inbound;
use super::respond;
use crate::route::{Lookup, Segments};
use crate::snapshot::{Cors, Snapshot};

/// What pages may read of each answer beside its body; a route's own header fields come behind it.
const EXPOSED: &str = "etag, x-request-id, retry-after, ratelimit, ratelimit-policy, allow";

/// The answer to a browser that asks before it sends; `None` where nobody asks, or the page may not.
pub(super) fn preflight(snapshot: &Snapshot, inbound: &Inbound) -> Option<Response<Answer>> {
    let fields = &inbound.head.headers;
    if inbound.head.method != Method::OPTIONS {
        return None;
    }
    let (origin, verb) = (fields.get(ORIGIN)?, fields.get(ACCESS_CONTROL_REQUEST_METHOD)?);
    let path = inbound.head.uri.path();
    let Lookup::Found(id) = snapshot.tree.find(verb.to_str().ok()?, path, &Segments::split(path)?) else { return None };
    let cors = snapshot.route(id).policies.cors.as_deref()?;
    let mut answer = respond::empty(StatusCode::NO_CONTENT);
    let out = answer.headers_mut();
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed(cors, origin)?);
    out.insert(ACCESS_CONTROL_ALLOW_METHODS, verb.clone());
    let asked = fields.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    if let Some(names) = cors.headers.as_deref().map_or(asked, |names| HeaderValue::from_str(names).ok()) {
        out.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
    let vary = "origin, access-control-request-method, access-control-request-headers";
    out.insert(VARY, HeaderValue::from_static(vary));
    Some(answer)
}

/// Lets a page read an answer, where its origin may; `own` are further header fields of the route's answers.
pub(super) fn allow<'a>(
    cors: &Cors,
    fields: &HeaderMap,
    own: impl Iterator<Item = &'a HeaderName>,
    answer: &mut Response<Answer>,
) {
    let out = answer.headers_mut();
    if !cors.allows_all() {
        // Also without an origin: a cache must not give a page what somebody else has asked for.
        out.append(VARY, HeaderValue::from_static("origin"));
    }
    let Some(allowed) = fields.get(ORIGIN).and_then(|origin| allowed(cors, origin)) else { return };
    out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    let exposed = own.fold(EXPOSED.to_owned(), |names, name| names + ", " + name.as_str());
    if let Ok(exposed) = HeaderValue::from_str(&exposed) {
        out.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

fn allowed(cors: &Cors, origin: &HeaderValue) -> Option<HeaderValue> {
    if cors.allows_all() {
        return Some(HeaderValue::from_static("*"));
    }
    cors.allows(origin.to_str().ok()?).then(|| origin.clone())
}
