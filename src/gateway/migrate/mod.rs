//! Routes that move from an old system to their workers: which side serves a request, and asking it.
//!
//! The side is decided once a request, by its caller's key alone, so that a caller stays where it is. A route that does
//! not move pays one branch.

mod http_old;
mod shadow;

use std::sync::Arc;

use http::HeaderName;

use super::Edge;
use super::ask::{self, Question, Until};
use super::inbound::Inbound;
use super::respond;
use crate::bus::Reply;
use crate::envelope::Verified;
use crate::fault::{Fault, Reason, Source};
use crate::limits::{Move, Verdict};
use crate::snapshot::{Method, Migration, Old, Route, Side, StickyKey, SubjectBreaker, percent};
use crate::telemetry::Outcome;
use crate::transcode::wire;
use crate::transcode::{FieldPath, Tables};

pub(super) use http_old::OldSystems;

static X_USER_ID: HeaderName = HeaderName::from_static("x-user-id");
static X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");

/// Where a request goes.
pub(super) struct Destination<'r> {
    /// The method there. An old HTTP system is asked with the messages of the route's own.
    pub(super) method: &'r Method,
    pub(super) breaker: Option<&'r SubjectBreaker>,
    /// `None` where the route does not move.
    side: Option<Side>,
    has_old_http: bool,
}

/// Where a request of a route goes.
pub(super) fn destination<'r>(
    route: &'r Route,
    inbound: &Inbound,
    caller: Option<&Verified>,
    payload: &[u8],
) -> Destination<'r> {
    let has_old_http = matches!(&route.migration, Some(migration) if matches!(migration.old, Old::Http(_)));
    let breaker = route.policies.breaker.as_deref();
    let new = |side| Destination { method: &route.method, breaker, side, has_old_http };
    let Some(migration) = &route.migration else { return new(None) };
    match (side(migration, &route.method.tables, inbound, caller, payload), &migration.old) {
        (Side::Old, Old::Subject { method, breaker }) => {
            Destination { method, breaker: breaker.as_deref(), side: Some(Side::Old), has_old_http }
        }
        (side, _) => new(Some(side)),
    }
}

impl Destination<'_> {
    /// Workers answer. An old HTTP system has no streams: whoever asks for one is served by the workers.
    pub(super) fn is_on_bus(&self, wants_stream: bool) -> bool {
        wants_stream || !self.has_old_http || self.side == Some(Side::New)
    }

    /// A stream has begun, or failed to.
    pub(super) fn ended(&self, edge: &Arc<Edge>, route: &Arc<Route>, fault: Option<&Fault>, until: Until) {
        if let (Some(migration), Some(side)) = (&route.migration, self.side) {
            let side = if self.has_old_http { Side::New } else { side };
            ended(edge, route, migration, side, fault, until);
        }
    }
}

/// Asks the side that serves.
pub(super) async fn ask(
    edge: &Arc<Edge>,
    route: &Arc<Route>,
    migration: &Arc<Migration>,
    goes: Destination<'_>,
    caller: Option<&Verified>,
    question: Question<'_>,
) -> Result<Reply, Fault> {
    let side = goes.side.unwrap_or(Side::New);
    let copy = shadow::begin(edge, route, migration, side, caller, &question);
    let until = question.until;
    let result = match (side, &migration.old) {
        (Side::Old, Old::Http(old)) => http_old::ask(edge, route, old, caller, question).await,
        _ => ask::ask(edge, goes.method, goes.breaker, route.policies.retries, question).await,
    };
    if let Some(copy) = copy {
        copy.compare(result.as_ref().map(|reply| reply.payload.clone()));
    }
    ended(edge, route, migration, side, result.as_ref().err(), until);
    result
}

/// What a side has answered is counted, and the share moves where that is the evidence for it.
fn ended(edge: &Edge, route: &Route, migration: &Migration, side: Side, fault: Option<&Fault>, until: Until) {
    // The silence within a time that the client has chosen proves nothing.
    if !until.is_routes && fault.is_some_and(|fault| fault.why() == Reason::UpstreamTimeout) {
        return;
    }
    let outcome = fault.map_or(Outcome::Ok, respond::outcome_of);
    let verdict = match (outcome, fault) {
        (Outcome::Upstream | Outcome::Internal, _) => Verdict::Failed,
        (_, Some(fault)) if fault.source() == Source::Upstream => Verdict::Refused,
        _ => Verdict::Answered,
    };
    let is_new = side == Side::New;
    migration.metrics.served(is_new, outcome);
    let now = edge.started.elapsed();
    let change = migration.cutover.served(migration.rule.as_ref(), is_new, verdict, now);
    moved(route, migration, change.as_ref());
    migration.metrics.share(f64::from(migration.cutover.share()) / 100.0);
}

/// Writes down why a share has moved, or has not.
pub(super) fn moved(route: &Route, migration: &Migration, change: Option<&Move>) {
    let Some(Move { from, to, why, .. }) = change else { return };
    let name = format!("{} {}", route.verb, route.template);
    if from == to {
        return tracing::info!(route = name, share = percent(*to), why, "the share of the new side stays");
    }
    migration.metrics.moved(to > from);
    migration.metrics.share(f64::from(*to) / 100.0);
    let (from, to) = (percent(*from), percent(*to));
    tracing::warn!(route = name, from, to, why, "the share of the new side moves");
}

/// The side of a request's caller.
fn side(migration: &Migration, tables: &Tables, inbound: &Inbound, caller: Option<&Verified>, payload: &[u8]) -> Side {
    for key in &migration.by {
        let text = match key {
            StickyKey::User => {
                caller.map(|caller| caller.user.as_str()).or_else(|| told(inbound, &X_USER_ID)).map(Into::into)
            }
            StickyKey::Tenant => {
                caller.map(|caller| caller.tenant.as_str()).or_else(|| told(inbound, &X_TENANT_ID)).map(Into::into)
            }
            StickyKey::Client => None,
            StickyKey::Header(name) => inbound.text(name).map(Into::into),
            StickyKey::Field(path) => field_text(tables, path, payload).map(Into::into),
        };
        let text: Option<std::borrow::Cow<'_, str>> = text;
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            return migration.side_of(text.as_bytes());
        }
        if *key == StickyKey::Client {
            break;
        }
    }
    migration.side_of(inbound.client.to_string().as_bytes())
}

/// What a trusted proxy says of the caller.
fn told<'i>(inbound: &'i Inbound, name: &HeaderName) -> Option<&'i str> {
    inbound.text(name).filter(|_| inbound.is_trusted)
}

/// The text of a single scalar field; pieces of a split message follow each other.
fn field_text(tables: &Tables, path: &FieldPath, payload: &[u8]) -> Option<String> {
    let (leaf, around) = path.steps().split_last()?;
    let mut content = std::borrow::Cow::Borrowed(payload);
    for (message, field) in around {
        let number = tables.message(*message).field(*field).spec.number;
        let mut inner = Vec::new();
        wire::each_message(&content, number, |piece| {
            inner.extend_from_slice(piece);
            Ok(())
        })
        .ok()?;
        content = inner.into();
    }
    let spec = &tables.message(leaf.0).field(leaf.1).spec;
    wire::scalar_text(&content, spec.number, spec.kind)
}
