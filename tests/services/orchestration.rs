//! Workflows over services that are played by the test: a replica that dies over a step, cancelling, refused files. What
//! the service answers is in `tests/examples.rs`.

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::place::on_each_bus;
use support::{calls, eventually, gateway, project, url};
use tidegate::bus::{Bus, Delivery, Message};
use tidegate::gateway::Running;
use tidegate::services::buckets::BUCKETS;
use tidegate::services::events::{LOGS, ORCHESTRATION_STEP};
use tidegate::services::{Settings, roster};
use tidegate::store::{ConsumerConfig, Expected, Store};
use tidegate::worker::{Options, Worker};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A payment, then a deal; the payment can be undone.
const WORKFLOW: &str = r#"
id: pay_and_deal
parameters:
  amount: { default: "10", pattern: "[0-9]+" }
steps:
  - id: pay
    service: payment
    operation: process
    timeout_ms: 1000
    retries: 0
    request: { player_id: p1, currency_type: money, amount: "${parameters.amount}" }
    compensate:
      operation: refund
      request: { transaction_id: "${steps.pay.reply.transaction_id}", reason: "${execution_id}" }
  - id: deal
    service: body-broker-integration
    operation: complete_deal
    after: [ pay ]
    timeout_ms: 20000
    retries: 0
    request: { player_id: p1, deal_id: "${steps.pay.reply.transaction_id}" }
"#;
/// A payment for each of several items, then a deal about the second one.
const FAN_OUT: &str = r#"
id: fan_out
parameters:
  items: { default: "a,b,c" }
steps:
  - id: each
    service: payment
    operation: process
    for_each: ${parameters.items}
    retries: 0
    request: { player_id: p1, currency_type: money, amount: "1", item_id: "${item}" }
  - id: deal
    service: body-broker-integration
    operation: complete_deal
    after: [ each ]
    retries: 0
    request: { player_id: p1, deal_id: "${steps.each.reply.1.transaction_id}" }
"#;
/// A file with everything wrong that can be.
const FAULTY: &str = r#"
id: faulty
steps:
  - { id: a, service: payment, operation: credit, after: [ b ] }
  - { id: b, service: payment, operation: process, after: [ a ], request: { player: "${parameters.who}" } }
"#;

struct Game {
    bus: Bus,
    store: Store,
    running: Running,
    settings: Settings,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Game {
    async fn on(bus: Bus) -> Game {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("pay_and_deal.yaml"), WORKFLOW).unwrap();
        std::fs::write(folder.path().join("fan_out.yaml"), FAN_OUT).unwrap();
        std::fs::write(folder.path().join("faulty.yaml"), FAULTY).unwrap();
        let path = json!(folder.path().to_str().unwrap());
        let settings = Settings::with([("orchestration.workflows", &path)]).unwrap();
        let store = Store::of(&bus);
        // As in the game, but for a shorter wait until the work of a dead replica goes to another one.
        let log = LOGS.iter().find(|log| log.name == ORCHESTRATION_STEP.log).unwrap();
        store.provide_log(log.clone()).await.unwrap();
        let consumer = ConsumerConfig { ack_wait: Duration::from_secs(1), ..ORCHESTRATION_STEP };
        store.provide_consumer(consumer).await.unwrap();
        let (running, _) = gateway(project().build(None).unwrap(), &bus, |_| {}).await;
        let client = reqwest::Client::new();
        Game { bus, store, running, settings, client, _folder: folder }
    }

    async fn replica(&self) -> Worker {
        let mut options = Options::new(self.bus.clone(), Arc::new(project().build(None).unwrap()));
        options.store = self.store.clone();
        let services =
            roster(&self.store, &self.settings.clone().into(), |name| name == "orchestration").await.unwrap();
        Worker::start(options, services).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Plays a service: tells of each request, and answers it where `answer` does.
    async fn play(
        &self,
        subject: &str,
        mut answer: impl FnMut(usize) -> Option<Vec<u8>> + Send + 'static,
    ) -> UnboundedReceiver<Delivery> {
        let (tell, told) = unbounded_channel();
        let mut count = 0;
        calls::worker(&self.bus, subject, move |delivery| {
            count += 1;
            let messages: Vec<Message> =
                answer(count).into_iter().map(|bytes| calls::answer(&delivery, &bytes)).collect();
            tell.send(delivery).unwrap();
            messages
        })
        .await;
        told
    }

    async fn ask(&self, verb: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(verb.parse().unwrap(), url(&self.running, path));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn execute(&self, body: Value) -> String {
        self.execute_one("pay_and_deal", body).await
    }

    async fn execute_one(&self, workflow: &str, body: Value) -> String {
        let (status, reply) = self.ask("POST", &format!("/v1/workflows/{workflow}:execute"), Some(body)).await;
        assert_eq!(status, 200, "{reply}");
        reply["execution_id"].as_str().unwrap().to_owned()
    }

    /// Status of the execution, of each step with its message, and progress.
    async fn status(&self, execution_id: &str) -> (String, Vec<String>, i64) {
        let (status, reply) = self.ask("GET", &format!("/v1/executions/{execution_id}"), None).await;
        assert_eq!(status, 200, "{reply}");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let step = |step: &Value| format!("{} {}", text(&step["status"]), text(&step["error_message"]));
        let steps = reply["steps"].as_array().unwrap().iter().map(|row| step(row).trim().to_owned()).collect();
        (text(&reply["status"]), steps, reply["progress_percentage"].as_i64().unwrap_or(0))
    }

    /// Subjects of the events so far.
    async fn events(&self) -> Vec<String> {
        let mut found: Vec<(u64, String)> = Vec::new();
        while let Some(event) = self
            .store
            .event_after("ORCHESTRATION_EVENTS", found.last().map_or(0, |(sequence, _)| *sequence))
            .await
            .unwrap()
        {
            found.push((event.sequence, event.subject.as_str().to_owned()));
        }
        found.into_iter().map(|(_, subject)| subject).collect()
    }
}

const STARTED: &str = "evt.orchestration.workflow.started.v1";
const COMPLETED: &str = "evt.orchestration.workflow.completed.v1";

/// `transaction_id: "txn_1", success: true`.
fn paid() -> Vec<u8> {
    [b"\x12\x05txn_1".as_slice(), &[0x18, 1]].concat()
}

/// `error { code: NOT_FOUND, message: "no deal" }`.
fn no_deal() -> Vec<u8> {
    b"\x2a\x0b\x08\x02\x12\x07no deal".to_vec()
}

async fn told(requests: &mut UnboundedReceiver<Delivery>) -> Delivery {
    tokio::time::timeout(support::PATIENCE, requests.recv()).await.expect("a request in time").unwrap()
}

fn contains(delivery: &Delivery, text: &str) -> bool {
    delivery.payload.windows(text.len()).any(|part| part == text.as_bytes())
}

on_each_bus!(
    |place| (Game::on(place.bus.clone()).await);
    the_work_of_a_replica_that_died_goes_to_another_one_and_what_was_done_is_undone,
    cancelling_abandons_what_runs_and_undoes_what_is_done,
    a_waiting_call_is_answered_at_the_end_and_faulty_files_are_refused,
    a_deadline_fails_what_runs_and_undoes_what_is_done,
    a_step_for_each_element_has_a_key_for_each_call_and_a_list_of_replies,
    one_element_that_fails_fails_its_step,
    what_no_replica_survives_is_given_up,
);

async fn the_work_of_a_replica_that_died_goes_to_another_one_and_what_was_done_is_undone(game: Game) {
    // The first replica never hears what became of its call.
    let mut payments = game.play("svc.payment.v1.process", |count| (count > 1).then(paid)).await;
    let mut deals = game.play("svc.broker.v1.complete_deal", |_| Some(no_deal())).await;
    let mut refunds = game.play("svc.payment.v1.refund", |_| Some(vec![0x10, 1])).await;
    let first = game.replica().await;
    let id = game.execute(json!({"parameters": {"amount": "25"}})).await;
    let lost = told(&mut payments).await;
    drop(first);

    let _second = game.replica().await;
    let repeat = told(&mut payments).await;
    let key = format!("{id}:pay");
    assert_eq!(lost.headers.get("Nats-Msg-Id"), Some(key.as_str()));
    assert_eq!(repeat.headers.get("Nats-Msg-Id"), Some(key.as_str()));
    assert!(contains(&told(&mut deals).await, "txn_1"));
    let refund = told(&mut refunds).await;
    assert_eq!(refund.headers.get("Nats-Msg-Id"), Some(format!("{key}:undo").as_str()));
    assert!(contains(&refund, "txn_1") && contains(&refund, &id));
    eventually("it has failed", async || game.status(&id).await.0 == "failed").await;
    let steps = vec!["compensated".to_owned(), "failed NOT_FOUND: no deal".to_owned()];
    assert_eq!(game.status(&id).await, ("failed".to_owned(), steps, 100));
    eventually("its end is told", async || game.events().await == [STARTED, COMPLETED]).await;
    let left = async || {
        let figures = game.store.log_figures("ORCHESTRATION_WORK").await.unwrap();
        figures.events
    };
    eventually("its work is done", async || left().await == 0).await;
    assert!(payments.try_recv().is_err() && deals.try_recv().is_err() && refunds.try_recv().is_err());
}

async fn cancelling_abandons_what_runs_and_undoes_what_is_done(game: Game) {
    let _replicas = (game.replica().await, game.replica().await);
    let mut payments = game.play("svc.payment.v1.process", |_| Some(paid())).await;
    let mut deals = game.play("svc.broker.v1.complete_deal", |_| None).await;
    let mut refunds = game.play("svc.payment.v1.refund", |_| Some(vec![0x10, 1])).await;
    let id = game.execute(json!({})).await;
    told(&mut payments).await;
    told(&mut deals).await;
    let path = format!("/v1/executions/{id}:cancel");
    let cancelled = json!({"success": true, "final_status": "cancelled"});
    let (_, reply) = game.ask("POST", &path, Some(json!({"reason": "player left"}))).await;
    assert_eq!((&reply["success"], &reply["final_status"]), (&cancelled["success"], &cancelled["final_status"]));
    assert!(contains(&told(&mut refunds).await, "txn_1"));
    let steps = vec!["compensated".to_owned(), "cancelled".to_owned()];
    let end = ("cancelled".to_owned(), steps, 100);
    eventually("all is undone", async || game.status(&id).await == end).await;
    // The same again changes nothing, and a watch of what is over ends at once.
    let (_, again) = game.ask("POST", &path, Some(json!({}))).await;
    assert_eq!((&again["success"], &again["final_status"]), (&cancelled["success"], &cancelled["final_status"]));
    let watch = game.client.get(url(&game.running, &format!("/v1/executions/{id}:watch"))).send().await.unwrap();
    let text = watch.text().await.unwrap();
    let items: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
    let item: Value = serde_json::from_str(items[0]).unwrap();
    assert_eq!((items.len(), &item["is_final"], &item["status"]["status"]), (1, &json!(true), &json!("cancelled")));
    eventually("its end is told once", async || game.events().await == [STARTED, COMPLETED]).await;
}

async fn a_waiting_call_is_answered_at_the_end_and_faulty_files_are_refused(game: Game) {
    let _replica = game.replica().await;
    let _payments = game.play("svc.payment.v1.process", |_| Some(paid())).await;
    let _deals = game.play("svc.broker.v1.complete_deal", |_| Some(vec![0x10, 1])).await;
    let (status, reply) = game.ask("POST", "/v1/workflows/pay_and_deal:execute", Some(json!({"wait": true}))).await;
    assert_eq!((status, &reply["status"]), (200, &json!("completed")), "{reply}");
    // `success: true`, as the broker said it.
    assert_eq!(reply["steps"][1]["result"], "EAE=");

    let (status, reply) = game.ask("POST", "/v1/workflows/faulty:execute", Some(json!({}))).await;
    assert_eq!((status, &reply["error"]["code"]), (404, &json!("NOT_FOUND")));
    // The built-in ones are good: what they want is said, or they begin.
    for (workflow, wanted) in [
        ("health_probe", None),
        ("layered_generation", None),
        ("quest_pipeline", Some("parameters.player_id")),
        ("deal_settlement", Some("parameters.deal_id")),
    ] {
        let (status, reply) = game.ask("POST", &format!("/v1/workflows/{workflow}:execute"), Some(json!({}))).await;
        assert_eq!((status == 200, reply["error"]["details"]["field"].as_str()), (wanted.is_none(), wanted), "{reply}");
    }
    for (parameters, field, reason) in [
        (json!({"amount": "many"}), "parameters.amount", "bad_format"),
        (json!({"colour": "red"}), "parameters.colour", "unknown_value"),
    ] {
        let body = json!({"parameters": parameters});
        let (status, reply) = game.ask("POST", "/v1/workflows/pay_and_deal:execute", Some(body)).await;
        let details = &reply["error"]["details"];
        assert_eq!((status, &details["field"], &details["reason"]), (400, &json!(field), &json!(reason)));
    }
}

async fn a_deadline_fails_what_runs_and_undoes_what_is_done(game: Game) {
    let _replicas = (game.replica().await, game.replica().await);
    let mut payments = game.play("svc.payment.v1.process", |_| Some(paid())).await;
    let mut deals = game.play("svc.broker.v1.complete_deal", |_| None).await;
    let mut refunds = game.play("svc.payment.v1.refund", |_| Some(vec![0x10, 1])).await;
    let id = game.execute(json!({ "timeout_seconds": 1 })).await;
    told(&mut payments).await;
    told(&mut deals).await;
    // The step itself may take 20 s.
    assert!(contains(&told(&mut refunds).await, "txn_1"));
    let end = ("failed".to_owned(), vec!["compensated".to_owned(), "failed deadline".to_owned()], 100);
    eventually("it is over", async || game.status(&id).await == end).await;
    eventually("its end is told once", async || game.events().await == [STARTED, COMPLETED]).await;
    assert!(deals.try_recv().is_err() && refunds.try_recv().is_err());
}

async fn a_step_for_each_element_has_a_key_for_each_call_and_a_list_of_replies(game: Game) {
    let _replicas = (game.replica().await, game.replica().await);
    let transaction = |number: usize| [b"\x12\x05txn_".as_slice(), number.to_string().as_bytes(), &[0x18, 1]].concat();
    let mut payments = game.play("svc.payment.v1.process", move |number| Some(transaction(number))).await;
    let mut deals = game.play("svc.broker.v1.complete_deal", |_| Some(vec![0x10, 1])).await;
    let id = game.execute_one("fan_out", json!({ "parameters": { "items": "heart, liver ,spleen" } })).await;
    let mut keys = Vec::new();
    for _ in 0..3 {
        let payment = told(&mut payments).await;
        let key = payment.headers.get("Nats-Msg-Id").unwrap().to_owned();
        let index: usize = key.strip_prefix(&format!("{id}:each:")).unwrap().parse().unwrap();
        assert!(contains(&payment, ["heart", "liver", "spleen"][index]), "{key}");
        keys.push(index);
    }
    // Transactions are numbered as they came, replies stand in the order of the elements.
    let second = keys.iter().position(|index| *index == 1).unwrap() + 1;
    assert!(contains(&told(&mut deals).await, &format!("txn_{second}")));
    keys.sort_unstable();
    assert_eq!(keys, [0, 1, 2]);
    let end = ("completed".to_owned(), vec!["completed".to_owned(); 2], 100);
    eventually("it is over", async || game.status(&id).await == end).await;
}

async fn one_element_that_fails_fails_its_step(game: Game) {
    let _replica = game.replica().await;
    // `error { code: FAILED_PRECONDITION, message: "no money" }`.
    let poor = b"\x32\x0c\x08\x07\x12\x08no money".to_vec();
    let _payments =
        game.play("svc.payment.v1.process", move |count| Some(if count == 2 { poor.clone() } else { paid() })).await;
    let mut deals = game.play("svc.broker.v1.complete_deal", |_| Some(vec![0x10, 1])).await;
    let id = game.execute_one("fan_out", json!({})).await;
    let steps = vec!["failed FAILED_PRECONDITION: no money".to_owned(), "cancelled".to_owned()];
    let end = ("failed".to_owned(), steps, 100);
    eventually("it has failed", async || game.status(&id).await == end).await;
    assert!(deals.try_recv().is_err());
}

/// Four replicas are played by the record that they would leave behind: each takes a minute to be missed.
async fn what_no_replica_survives_is_given_up(game: Game) {
    let mut payments = game.play("svc.payment.v1.process", |_| None).await;
    let mut deals = game.play("svc.broker.v1.complete_deal", |_| Some(vec![0x10, 1])).await;
    let first = game.replica().await;
    let id = game.execute(json!({})).await;
    told(&mut payments).await;
    drop(first);
    let config = BUCKETS.iter().find(|config| config.name == "tg_exec").unwrap();
    let executions = game.store.bucket(config.clone()).await.unwrap();
    let entry = executions.get(&format!("_.{id}")).await.unwrap().unwrap();
    let mut record: Value = serde_json::from_slice(&entry.value).unwrap();
    assert_eq!(record["value"]["takes"], 1, "{record}");
    record["value"]["takes"] = 5.into();
    executions.put(&entry.key, record.to_string().into(), Expected::Revision(entry.revision)).await.unwrap();

    let _last = game.replica().await;
    let steps = ["failed engine_gave_up", "cancelled engine_gave_up"].map(str::to_owned).to_vec();
    let end = ("failed".to_owned(), steps, 100);
    eventually("it is given up", async || game.status(&id).await == end).await;
    eventually("its end is told", async || game.events().await == [STARTED, COMPLETED]).await;
    assert!(payments.try_recv().is_err() && deals.try_recv().is_err());
}
