//! Gateways that say which table they run, and why not another: by the NATS services protocol, so that `nats micro info`
//! shows it as well, and nobody needs a right to write anywhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Live, Outcome};
use crate::bus::discovery::{Answer, Question, answer_of, ask, questions};
use crate::bus::{Bus, BusError, Headers, Message};

/// The name of all gateways.
const NAME: &str = "tidegate-gateway";
/// Most bytes of a report: metadata are for a glance, the whole is in the log.
const REPORT_MAX: usize = 4_096;
/// How long further answers are waited for.
const QUIET: Duration = Duration::from_millis(250);
/// Longest wait for answers.
const LONGEST: Duration = Duration::from_secs(2);

/// What a gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its id, made at its start.
    pub id: String,
    /// Where it runs.
    pub host: String,
    /// The table in force: `kv://tg_routes/routes.yaml@7`.
    pub in_force: String,
    /// The table that was read last.
    pub last_read: String,
    /// That one was refused.
    pub is_stale: bool,
    /// Why.
    pub report: String,
    /// Routes in force.
    pub routes: String,
}

/// Answers for a gateway until the bus closes.
pub async fn answer_for(bus: Bus, host: String, live: Arc<Live>, outcome: watch::Receiver<Outcome>) {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let started = crate::transcode::rfc3339(started.as_secs() as i64, 0).unwrap_or_default();
    let mut asked = match questions(&bus).await {
        Ok(asked) => asked,
        Err(error) => return tracing::warn!(%error, "this gateway is not found by `tidegate routes status`"),
    };
    while let Some(delivery) = asked.next().await {
        let Ok(delivery) = delivery else { continue };
        let (Some(to), Some(question)) = (delivery.reply, Question::of(&delivery.subject)) else { continue };
        if !question.is_for(NAME, &id) {
            continue;
        }
        let metadata = metadata(&host, &live, &outcome.borrow());
        let kind = question.verb.to_ascii_lowercase();
        let mut answer = answer_of(&kind, NAME, &id, env!("CARGO_PKG_VERSION"), &metadata);
        match kind.as_str() {
            "ping" => {}
            "info" => (answer["description"], answer["endpoints"]) = (json!("HTTP in front of NATS"), json!([])),
            "stats" => (answer["started"], answer["endpoints"]) = (json!(started), json!([])),
            _ => continue,
        }
        let payload = Bytes::from(answer.to_string());
        let _ = bus.publish(Message { subject: to, reply: None, headers: Headers::new(), payload }).await;
    }
}

fn metadata(host: &str, live: &Live, outcome: &Outcome) -> Value {
    let end = (0..=outcome.report.len().min(REPORT_MAX)).rev().find(|at| outcome.report.is_char_boundary(*at));
    json!({
        "host": host,
        "in_force": outcome.in_force,
        "last_read": outcome.last_read,
        "outcome": if outcome.is_stale { "refused" } else { "applied" },
        "report": &outcome.report[..end.unwrap_or(0)],
        "routes": live.pin().routes.len().to_string(),
    })
}

/// All gateways that answer, by host.
pub async fn instances(bus: &Bus) -> Result<Vec<Instance>, BusError> {
    let answers = ask(bus, &format!("$SRV.INFO.{NAME}"), QUIET, LONGEST).await?;
    let mut found: Vec<Instance> = answers.iter().filter_map(Answer::read).map(instance).collect();
    found.sort_by(|a, b| (&a.host, &a.id).cmp(&(&b.host, &b.id)));
    Ok(found)
}

fn instance(answer: Answer) -> Instance {
    let text = |name: &str| answer.metadata(name).to_owned();
    Instance {
        host: text("host"),
        in_force: text("in_force"),
        last_read: text("last_read"),
        is_stale: text("outcome") == "refused",
        report: text("report"),
        routes: text("routes"),
        id: answer.id,
    }
}
