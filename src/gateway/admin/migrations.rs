//! Routes that move from an old system to their workers: how they stand, and orders for them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Desk;
use super::access::refusal;
use super::api;
use crate::fault::{Code, Fault};
use crate::gateway::migrate;
use crate::limits::{Evidence, Move};
use crate::snapshot::{Migration, Route};

/// An order for a route's share.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// `VERB /template`.
    route: String,
    #[serde(rename = "do")]
    action: Action,
    /// Percent, with `set`.
    share: Option<f64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    Hold,
    Go,
    Set,
    RollBack,
}

/// `GET /admin/api/migrations`: every route that moves.
pub(super) async fn list(State(desk): State<Arc<Desk>>) -> Response {
    let (snapshot, now) = (desk.edge.live.pin(), desk.edge.started.elapsed());
    let rows: Vec<Value> = moving(&snapshot.routes).map(|(route, migration)| row(route, migration, now)).collect();
    api::json(&json!({ "migrations": rows }))
}

/// `POST /admin/api/migrations`: holds a share, sets it, lets it move, takes it back.
pub(super) async fn order(State(desk): State<Arc<Desk>>, body: Bytes) -> Response {
    match obey(&desk, &body) {
        Ok(row) => api::json(&row),
        Err(fault) => refusal(&fault),
    }
}

fn obey(desk: &Desk, body: &[u8]) -> Result<Value, Fault> {
    let wrong = |text: String| Fault::client(Code::InvalidArgument, text);
    let order: Order = serde_json::from_slice(body).map_err(|error| {
        wrong(format!("expected {{\"route\", \"do\": \"hold\", \"go\", \"set\" or \"roll_back\", \"share\"}}: {error}"))
    })?;
    let (snapshot, now) = (desk.edge.live.pin(), desk.edge.started.elapsed());
    let found = moving(&snapshot.routes).find(|(route, _)| name(route) == order.route);
    let (route, migration) =
        found.ok_or_else(|| Fault::client(Code::NotFound, format!("no route `{}` has a `migrate`", order.route)))?;
    let cutover = &migration.cutover;
    let change = match (order.action, order.share) {
        (Action::Set, Some(share)) if (0.0..=100.0).contains(&share) => {
            cutover.set((share * 100.0).round() as u32, now)
        }
        (Action::Set, _) => return Err(wrong("`set` needs a `share` from 0 to 100 percent".to_owned())),
        (_, Some(_)) => return Err(wrong("`share` belongs to `set`".to_owned())),
        (Action::Hold, None) => cutover.hold(now),
        (Action::RollBack, None) => cutover.roll_back(now),
        (Action::Go, None) => match &migration.rule {
            Some(rule) => cutover.go_on(rule, now),
            None => {
                let text = format!("`{}` has no `cutover` by which it could move", order.route);
                return Err(Fault::client(Code::FailedPrecondition, text));
            }
        },
    };
    migrate::moved(route, migration, Some(&change));
    Ok(row(route, migration, now))
}

fn moving(routes: &[Arc<Route>]) -> impl Iterator<Item = (&Route, &Migration)> {
    routes.iter().filter_map(|route| Some((&**route, route.migration.as_deref()?)))
}

fn name(route: &Route) -> String {
    format!("{} {}", route.verb, route.template)
}

fn percent(share: u32) -> f64 {
    f64::from(share) / 100.0
}

/// A route's migration as it stands; times are milliseconds back from now.
fn row(route: &Route, migration: &Migration, now: Duration) -> Value {
    let standing = migration.cutover.standing();
    let ago = |at: Duration| now.saturating_sub(at).as_millis() as u64;
    let Evidence { requests, errors, refused, old_requests, old_errors, old_refused, compared, different } =
        standing.evidence;
    let moves: Vec<Value> = standing
        .moves
        .iter()
        .map(|Move { at, from, to, why }| {
            json!({ "ago_ms": ago(*at), "from": percent(*from), "to": percent(*to), "why": why })
        })
        .collect();
    json!({
        "route": name(route),
        "old": migration.old.to_string(),
        "new": route.method.subject.as_str(),
        "share": percent(standing.share),
        "course": if migration.rule.is_none() { "fixed" } else { standing.course.word() },
        "steps": migration.rule.as_ref().map(|rule| rule.steps.iter().map(|step| percent(*step)).collect::<Vec<_>>()),
        "since_ms": standing.since.map(ago),
        "evidence": {
            "new": { "requests": requests, "errors": errors, "refused": refused },
            "old": { "requests": old_requests, "errors": old_errors, "refused": old_refused },
            "compared": compared,
            "different": different,
        },
        "moves": moves,
        "shadow": migration.shadow.as_ref().map(|shadow| json!({
            "to": shadow.to.map_or("both", |side| side.word()),
            "percent": percent(shadow.share),
            "found": shadow.report.found(),
        })),
    })
}
