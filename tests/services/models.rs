//! What the documented examples do not show of the registry of models: watches from the start and from a revision, selections
//! under conditions and keys, tenants that each have the built-in models, pages.

use crate::support;

use serde_json::{Value, json};
use support::eventually;
use support::place::on_each_bus;
use support::replicas::Replicas;
use tidegate::services::LiveSettings;

const LIST: &str = "svc.ai.model.v1.list";
const GET: &str = "svc.ai.model.v1.get";
const SELECT: &str = "svc.ai.model.v1.select";
const SET_STATUS: &str = "svc.ai.model.v1.set_status";
const WATCH: &str = "svc.ai.model.v1.watch";

/// A configured model of modality voice.
fn voice(model_id: &str, provider: &str, is_selected: bool, status: &str) -> Value {
    json!({ "model_id": model_id, "provider": provider, "modality": "voice", "selected": is_selected,
        "metadata": { "status": status } })
}

/// Two voices, of which the first one is selected, and one that is not ready.
async fn voices(place: support::place::Place) -> Replicas {
    let models = [voice("alto", "choir", true, "current"), voice("bass", "choir", false, "current")];
    let models = [&models[..], &[voice("tenor", "opera", false, "candidate")]].concat();
    Replicas::at(place, &[("model-management.models", json!(models))]).await
}

/// `alto+`: a model's id, and whether it is selected.
fn shown(model: &Value) -> String {
    let mark = if model["is_default"] == true { "+" } else { "" };
    format!("{}{mark}", model["model_id"].as_str().unwrap_or_default())
}

fn told(chunk: &Value) -> String {
    format!("{} {}", chunk["change"].as_str().unwrap_or_default(), shown(&chunk["model"]))
}

async fn listed(game: &Replicas, request: Value) -> Vec<String> {
    let reply = game.ask(LIST, request).await;
    reply["models"].as_array().into_iter().flatten().map(shown).collect()
}

/// Both replicas list what was there at the start.
async fn settle(game: &Replicas) {
    eventually("both replicas list all voices", async || {
        let lists = (0..6).map(|_| listed(game, json!({ "modality_filter": "voice" })));
        futures_util::future::join_all(lists).await.iter().all(|found| found.len() == 3)
    })
    .await;
}

fn error(reply: &Value) -> (&str, &Value) {
    (reply["error"]["code"].as_str().unwrap_or("OK"), &reply["error"]["details"])
}

on_each_bus!(
    |place| (voices(place).await);
    a_watch_shows_what_passes_and_then_each_change,
    a_watch_goes_on_behind_a_revision_with_whole_models,
    a_selection_is_made_once_and_told_once,
    what_may_not_be_selected_is_refused,
    a_repeated_selection_gets_its_answer_whatever_the_model_has_become,
    each_tenant_has_the_models_and_selections_of_its_own,
    a_list_comes_in_pages_with_the_selected_first,
);

async fn a_watch_shows_what_passes_and_then_each_change(game: Replicas) {
    let change = async {
        game.ask(SELECT, json!({ "model_id": "gemini-2.5-pro" })).await;
        game.ask(SELECT, json!({ "model_id": "bass" })).await;
        game.ask(SET_STATUS, json!({ "model_id": "alto", "status": "deprecated" })).await;
        game.ask(SET_STATUS, json!({ "model_id": "tenor", "status": "testing" })).await;
        game.ask(SELECT, json!({ "model_id": "alto", "expected_model_id": "alto" })).await;
        game.ask(SELECT, json!({ "model_id": "tenor" })).await;
    };
    let chunks = game.chunks(WATCH, json!({ "modality_filter": "VOICE" }), [3, 4], change).await;
    let told: Vec<String> = chunks.iter().map(told).collect();
    let (snapshot, changes) = told.split_at(3);
    let mut snapshot = snapshot.to_vec();
    snapshot.sort();
    assert_eq!(snapshot, ["snapshot alto+", "snapshot bass", "snapshot tenor"]);
    assert_eq!(changes, ["selected bass+", "updated alto", "updated tenor", "selected tenor+"]);
    let revision = |chunk: &Value| chunk["revision"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(chunks.iter().map(revision).is_sorted(), "{chunks:?}");
}

async fn a_watch_goes_on_behind_a_revision_with_whole_models(game: Replicas) {
    let request = json!({ "provider_filter": "choir" });
    let seen = game.chunks(WATCH, request, [2, 0], std::future::ready(())).await;
    settle(&game).await;
    game.ask(SELECT, json!({ "model_id": "bass" })).await;
    let resumed = json!({ "provider_filter": "choir", "after_revision": seen[1]["revision"] });
    let deprecate = async {
        game.ask(SET_STATUS, json!({ "model_id": "bass", "status": "deprecated" })).await;
    };
    let chunks = game.chunks(WATCH, resumed, [1, 1], deprecate).await;
    // What a reader knows already is not told, but it is known: models come whole, selected ones as such.
    assert_eq!(chunks.iter().map(told).collect::<Vec<_>>(), ["selected bass+", "updated bass+"]);
    assert_eq!(chunks[0]["model"]["provider"], "choir");
    assert_eq!(chunks[1]["model"]["metadata"]["status"], "deprecated");
}

async fn a_selection_is_made_once_and_told_once(game: Replicas) {
    for _ in 0..2 {
        assert_eq!(game.ask(SELECT, json!({ "model_id": "bass" })).await, json!({ "ok": true }));
    }
    game.ask(SELECT, json!({ "model_id": "alto", "expected_model_id": "bass" })).await;
    let events = game.events("AI_EVENTS", "evt.ai.model.selected.v1", 2).await;
    let told = |index: usize| {
        let (_, metadata) = &events[index];
        [metadata["previous_model_id"].as_str(), metadata["modality"].as_str()]
    };
    assert_eq!([told(0), told(1)], [["alto", "voice"], ["bass", "voice"]]);
    eventually("get shows the selection", async || {
        let models = ["alto", "bass"].map(|model_id| game.ask(GET, json!({ "model_id": model_id })));
        let replies = futures_util::future::join_all(models).await;
        replies.iter().map(|reply| shown(&reply["model"])).collect::<Vec<_>>() == ["alto+", "bass"]
    })
    .await;
}

async fn what_may_not_be_selected_is_refused(game: Replicas) {
    let refused = [
        (json!({}), "INVALID_ARGUMENT", json!({ "field": "model_id", "reason": "required" })),
        (json!({ "model_id": "a b" }), "INVALID_ARGUMENT", json!({ "field": "model_id", "reason": "bad_id" })),
        (json!({ "model_id": "voice" }), "NOT_FOUND", json!({ "field": "model_id" })),
        (json!({ "model_id": "tenor" }), "FAILED_PRECONDITION", json!({ "reason": "status", "status": "candidate" })),
        (
            json!({ "model_id": "bass", "expected_model_id": "tenor" }),
            "FAILED_PRECONDITION",
            json!({ "reason": "model_mismatch", "current_model_id": "alto" }),
        ),
    ];
    for (request, code, details) in refused {
        let reply = game.ask(SELECT, request.clone()).await;
        assert_eq!(error(&reply), (code, &details), "{request}");
    }
    for (model_id, reason) in [("", "required"), ("a b", "bad_id")] {
        let reply = game.ask(SET_STATUS, json!({ "model_id": model_id, "status": "testing" })).await;
        assert_eq!(error(&reply), ("INVALID_ARGUMENT", &json!({ "field": "model_id", "reason": reason })));
    }
}

async fn a_repeated_selection_gets_its_answer_whatever_the_model_has_become(game: Replicas) {
    let bass = json!({ "model_id": "bass" });
    assert_eq!(game.ask_with_key(SELECT, "s-1", bass.clone()).await, json!({ "ok": true }));
    game.ask(SET_STATUS, json!({ "model_id": "bass", "status": "deprecated" })).await;
    for _ in 0..4 {
        assert_eq!(game.ask_with_key(SELECT, "s-1", bass.clone()).await, json!({ "ok": true }));
    }
    let other = game.ask_with_key(SELECT, "s-1", json!({ "model_id": "alto" })).await;
    assert_eq!(error(&other), ("CONFLICT", &json!({ "reason": "key_reused" })));
    let anew = game.ask_with_key(SELECT, "s-2", bass).await;
    assert_eq!(error(&anew), ("FAILED_PRECONDITION", &json!({ "reason": "status", "status": "deprecated" })));
    // A deprecated model that is selected stays selected, and its reader is told.
    eventually("get says so", async || {
        let reply = game.ask_as(GET, json!({}), json!({ "model_id": "bass" })).await;
        reply["model"]["is_default"] == true && reply["meta"]["labels"]["selected_deprecated"] == "true"
    })
    .await;
}

async fn each_tenant_has_the_models_and_selections_of_its_own(game: Replicas) {
    let north = || json!({ "tenant_id": "north" });
    let selected = game.ask_as(SELECT, north(), json!({ "model_id": "bass", "expected_model_id": "alto" })).await;
    assert_eq!(selected["ok"], true, "{selected}");
    eventually("each tenant has its own selection", async || {
        let mut shows = Vec::new();
        for meta in [north(), json!({}), json!({ "tenant_id": "south" })] {
            let reply = game.ask_as(LIST, meta, json!({ "modality_filter": "voice" })).await;
            shows.push(reply["models"].as_array().into_iter().flatten().map(shown).collect::<Vec<_>>());
        }
        shows == [["bass+", "alto", "tenor"], ["alto+", "bass", "tenor"], ["alto+", "bass", "tenor"]]
    })
    .await;
}

async fn a_list_comes_in_pages_with_the_selected_first(game: Replicas) {
    settle(&game).await;
    let (mut pages, mut token) = (Vec::new(), json!(""));
    loop {
        let reply = game.ask(LIST, json!({ "page": { "page_size": 4, "page_token": token } })).await;
        pages.push(reply["models"].as_array().into_iter().flatten().map(shown).collect::<Vec<_>>());
        match reply.get("next_page_token") {
            Some(next) => token = next.clone(),
            None => break,
        }
    }
    let expected: [&[&str]; 2] = [&["alto+", "gpt-5-pro+", "claude-4.5-sonnet", "bass"], &["gemini-2.5-pro", "tenor"]];
    assert_eq!(pages, expected);
    let reply = game.ask(LIST, json!({ "page": { "page_size": 501 } })).await;
    assert_eq!((error(&reply).0, &reply["error"]["details"]["field"]), ("OUT_OF_RANGE", &json!("page.page_size")));
}

#[tokio::test]
async fn a_model_that_is_added_to_the_settings_is_there_and_changes_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.yaml");
    let write = |models: &[Value]| {
        std::fs::write(&file, json!({ "model-management": { "models": models } }).to_string()).unwrap();
    };
    write(&[voice("alto", "choir", true, "current")]);
    let (settings, _outcome) = LiveSettings::follow(&file).unwrap();
    let game = Replicas::following(settings).await;
    game.ask(SET_STATUS, json!({ "model_id": "alto", "status": "deprecated" })).await;
    write(&[voice("alto", "choir", true, "current"), voice("bass", "choir", true, "current")]);
    eventually("the new one is listed, and not selected", async || {
        listed(&game, json!({ "modality_filter": "voice" })).await == ["alto+", "bass"]
    })
    .await;
    let alto = game.ask(GET, json!({ "model_id": "alto" })).await;
    assert_eq!(alto["model"]["metadata"]["status"], "deprecated");
}
