//! What the documented examples do not show of knowledge-base: races between two replicas, life of a document, events,
//! scopes, long documents, streams, the corpus, vectors.

use crate::support;

use axum::body::Bytes;
use axum::routing::post;
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::replicas::Replicas;
use support::{eventually, gateway, project, url};

const INGEST: &str = "svc.kb.v1.ingest";
const QUERY: &str = "svc.kb.v1.query";
const UPDATE: &str = "svc.kb.v1.update";
const GET: &str = "svc.kb.v1.get";

fn ingest(id: &str, content: &str) -> Value {
    json!({ "collection": "lore", "documents": [{ "document_id": id, "content": content }] })
}

/// Ids and relevance of what a question finds.
async fn found(game: &Replicas, query: Value) -> Vec<(String, f64)> {
    let reply = game.ask(QUERY, query).await;
    let documents = reply["documents"].as_array().cloned().unwrap_or_default();
    let row = |row: &Value| (row["document_id"].as_str().unwrap().to_owned(), row["relevance_score"].as_f64().unwrap());
    documents.iter().map(row).collect()
}

fn fault(reply: &Value) -> [&str; 3] {
    let error = &reply["error"];
    [&error["code"], &error["details"]["field"], &error["details"]["reason"]].map(|part| part.as_str().unwrap_or(""))
}

async fn of_many_who_write_one_document_one_wins_and_all_find_it(game: Replicas) {
    let write = |number: usize| game.ask(INGEST, ingest("d1", &format!("Riddle number {number}.")));
    let replies = join_all((0..12).map(write)).await;
    let won = replies.iter().filter(|reply| reply["documents_ingested"] == 1).count();
    let lost = replies.iter().filter(|reply| fault(reply) == ["CONFLICT", "", "exists"]).count();
    assert_eq!((won, lost), (1, 11), "{replies:?}");
    let riddle = json!({ "query_text": "riddle" });
    eventually("both replicas find it", async || {
        let all = join_all((0..8).map(|_| found(&game, riddle.clone()))).await;
        all.iter().all(|found| found.len() == 1)
    })
    .await;
    // A key repeats a deletion, whoever gets it.
    let delete = json!({ "document_id": "d1" });
    let gone = game.ask_with_key(UPDATE, "k-1", delete.clone()).await;
    assert_eq!(gone, json!({ "success": true, "document_id": "d1" }));
    game.pass(std::time::Duration::from_secs(25 * 3_600));
    assert_eq!(game.ask_with_key(UPDATE, "k-1", delete.clone()).await, gone);
    assert_eq!(fault(&game.ask(UPDATE, delete).await), ["NOT_FOUND", "document_id", ""]);
}

#[tokio::test]
async fn races_on_the_embedded_bus() {
    of_many_who_write_one_document_one_wins_and_all_find_it(Replicas::embedded(&[]).await).await;
}

#[tokio::test]
async fn races_on_nats() {
    of_many_who_write_one_document_one_wins_and_all_find_it(Replicas::nats(&[]).await).await;
}

#[tokio::test]
async fn a_document_comes_changes_and_goes_with_its_events() {
    let game = Replicas::embedded(&[]).await;
    let saw = json!({ "collection": "lore", "documents": [{ "content": "A saw.", "metadata": { "page": "1" } }],
        "default_metadata": { "scope": "global", "page": "0" } });
    let stored = game.ask(INGEST, saw.clone()).await;
    let id = stored["document_ids"][0].as_str().unwrap().to_owned();
    assert!(id.starts_with("doc_") && id.len() == 20, "{id}");
    assert_eq!(game.ask(INGEST, saw).await, json!({ "skipped_ids": [id] }));
    let change = json!({ "document_id": id, "content": "A bone saw.", "metadata": { "page": "", "hand": "left" } });
    assert_eq!(game.ask(UPDATE, change.clone()).await, json!({ "success": true, "document_id": id }));
    game.ask(UPDATE, json!({ "document_id": id, "content": "A bone saw." })).await;
    let expected = json!({ "document_id": id, "collection": "lore", "content": "A bone saw.",
        "metadata": { "scope": "global", "hand": "left" } });
    assert_eq!(game.ask(GET, json!({ "document_id": id })).await["document"], expected);
    let twin = json!({ "documents": [{ "document_id": id, "collection": "tools", "content": "Another saw." }] });
    game.ask(INGEST, twin).await;
    eventually("the twin is known to both replicas", async || {
        let all = join_all((0..8).map(|_| game.ask(UPDATE, change.clone()))).await;
        all.iter().all(|reply| fault(reply) == ["CONFLICT", "collection", "ambiguous"])
    })
    .await;
    let gone = game.ask(UPDATE, json!({ "document_id": id, "collection": "lore" })).await;
    assert_eq!(gone, json!({ "success": true, "document_id": id }));
    assert_eq!(game.ask(GET, json!({ "document_id": id })).await["document"]["collection"], "tools");
    let events = game.events("NARRATIVE_EVENTS", "evt.kb.document.ingested.v1", 4).await;
    let told: Vec<[&str; 3]> =
        events.iter().map(|(_, metadata)| ["op", "collection", "chunks"].map(|name| metadata[name].as_str())).collect();
    let op = |op, collection| [op, collection, "1"];
    assert_eq!(told, [op("ingested", "lore"), op("updated", "lore"), op("ingested", "tools"), op("deleted", "lore")]);
    assert!(events[0].0.starts_with(&format!("lore:{id}:")), "{}", events[0].0);
}

#[tokio::test]
async fn faults_are_told_before_anything_is_stored() {
    let game = Replicas::embedded(&[]).await;
    game.ask(INGEST, ingest("d1", "A saw.")).await;
    let two = |one: Value, other: Value| json!({ "collection": "lore", "documents": [one, other] });
    let new = json!({ "document_id": "d2", "content": "A hook." });
    let rows = [
        (INGEST, json!({ "collection": "lore" }), ["INVALID_ARGUMENT", "documents", "required"]),
        (INGEST, two(new.clone(), json!({})), ["INVALID_ARGUMENT", "documents[1].content", "required"]),
        (INGEST, json!({ "documents": [new] }), ["INVALID_ARGUMENT", "collection", "required"]),
        (
            INGEST,
            two(new.clone(), json!({ "content": "x", "collection": "tools" })),
            ["INVALID_ARGUMENT", "documents[1].collection", "conflicting_fields"],
        ),
        (INGEST, two(new.clone(), new.clone()), ["INVALID_ARGUMENT", "documents[1].document_id", "conflicting_fields"]),
        (INGEST, json!({ "collection": "No", "documents": [new] }), ["INVALID_ARGUMENT", "collection", "bad_format"]),
        (INGEST, two(new.clone(), json!({ "document_id": "d1", "content": "x" })), ["CONFLICT", "", "exists"]),
        (
            UPDATE,
            json!({ "document_id": "d1", "metadata": { "a": "b" } }),
            ["INVALID_ARGUMENT", "metadata", "conflicting_fields"],
        ),
        (GET, json!({ "document_id": "d2" }), ["NOT_FOUND", "document_id", ""]),
        (QUERY, json!({ "query_text": "x".repeat(1_001) }), ["INVALID_ARGUMENT", "query_text", "too_long"]),
        (
            QUERY,
            json!({ "query_text": "saw", "collections": ["a", "B"] }),
            ["INVALID_ARGUMENT", "collections[1]", "bad_format"],
        ),
        (QUERY, json!({ "query_text": "saw", "max_results": 101 }), ["OUT_OF_RANGE", "max_results", "out_of_range"]),
        (
            QUERY,
            json!({ "query_text": "saw", "filters": { "scope": "moon" } }),
            ["INVALID_ARGUMENT", "filters.scope", "unknown_value"],
        ),
        (
            QUERY,
            json!({ "query_text": "saw", "filters": { "page": "x".repeat(4_097) } }),
            ["INVALID_ARGUMENT", "filters", "too_long"],
        ),
        (
            QUERY,
            json!({ "query_text": "saw", "similarity_threshold": 1.5 }),
            ["OUT_OF_RANGE", "similarity_threshold", "out_of_range"],
        ),
    ];
    for (subject, request, expected) in rows {
        let reply = game.ask(subject, request.clone()).await;
        assert_eq!(fault(&reply), expected, "{request}: {reply}");
    }
}

#[tokio::test]
async fn long_documents_are_cut_scopes_hold_and_a_stream_tells_the_same() {
    let game = Replicas::embedded(&[]).await;
    let long = format!("{}\n\nThe riddle of the moon. {}", "filler ".repeat(5_000), "tail ".repeat(300));
    let of_scope = |scope: &str| json!({ "scope": scope });
    let documents = json!([
        { "document_id": "long", "content": long, "metadata": of_scope("day_world") },
        { "document_id": "all", "content": "A riddle for all.", "metadata": of_scope("global") },
        { "document_id": "dark", "content": "A dark riddle.", "metadata": of_scope("dark_world") },
    ]);
    game.ask(INGEST, json!({ "collection": "lore", "documents": documents })).await;
    let query = |scope: &str| json!({ "query_text": "riddle", "filters": { "scope": scope } });
    let ids = async |scope: &str| found(&game, query(scope)).await.into_iter().map(|row| row.0).collect::<Vec<_>>();
    eventually("both replicas have all", async || {
        let all = join_all((0..8).map(|_| found(&game, json!({ "query_text": "riddle" })))).await;
        all.iter().all(|found| found.len() == 3)
    })
    .await;
    assert_eq!(ids("dark_world").await, ["all", "dark"]);
    assert_eq!(ids("DAY_World").await, ["all", "long"], "in any case");
    let reply = game.ask(QUERY, query("day_world")).await;
    let cut = &reply["documents"][1];
    assert_eq!((cut["content"].as_str().unwrap().len(), &cut["metadata"]["truncated"]), (32 * 1024, &json!("true")));
    let passages = cut["chunks"].as_array().unwrap();
    assert!(passages.iter().all(|passage| passage.as_str().unwrap().contains("riddle of the moon")), "{passages:?}");
    assert_eq!(reply["sources"], json!(["all", "long"]));
    let words = reply["synthesized_answer"].as_str().unwrap().split_inclusive([' ', '\n']).count();
    let chunks =
        game.chunks("svc.kb.v1.query_stream", query("day_world"), [3 + words, 0], std::future::ready(())).await;
    let told: Vec<&Value> = chunks.iter().filter_map(|chunk| chunk.get("document")).collect();
    assert_eq!(told, reply["documents"].as_array().unwrap().iter().collect::<Vec<_>>());
    let said: String = chunks.iter().filter_map(|chunk| chunk["answer_delta"].as_str()).collect();
    assert_eq!(said, reply["synthesized_answer"].as_str().unwrap());
    assert_eq!(chunks.last().unwrap()["is_final"], true);
}

#[tokio::test]
async fn two_replicas_write_the_corpus_once() {
    let game = Replicas::embedded(&[("knowledge-base.seed_corpus", json!(true))]).await;
    let riddle = json!({ "query_text": "Which family does a riddle move?", "filters": { "scope": "dark_world" } });
    eventually("the corpus is there", async || {
        found(&game, riddle.clone()).await.first().is_some_and(|row| row.0 == "family_silent_court")
    })
    .await;
    eventually("all of it is there", async || {
        found(&game, json!({ "query_text": "veil death", "collections": ["lore"] }))
            .await
            .first()
            .is_some_and(|row| row.0 == "rules_death")
    })
    .await;
    // One event a document, and the next one is of something else.
    game.ask(INGEST, ingest("d1", "A saw.")).await;
    let events = game.events("NARRATIVE_EVENTS", "evt.kb.document.ingested.v1", 22).await;
    let ids: std::collections::BTreeSet<&str> = events.iter().map(|event| event.0.as_str()).collect();
    assert_eq!((ids.len(), events[21].0.starts_with("lore:d1:")), (22, true), "{ids:?}");
}

/// An endpoint whose vectors say whether a text is about riddles or about saws.
async fn endpoint() -> String {
    let answer = |body: Bytes| async move {
        let asked: Value = serde_json::from_slice(&body).unwrap();
        let about = |text: &str, words: [&str; 2]| f64::from(u8::from(words.iter().any(|word| text.contains(word))));
        let vector = |text: &Value| {
            let text = text.as_str().unwrap().to_lowercase();
            [about(&text, ["riddle", "puzzle"]), about(&text, ["saw", "blade"]), 0.1]
        };
        let rows = asked["input"].as_array().unwrap().iter().enumerate();
        let rows = rows.map(|(index, text)| json!({ "index": index, "embedding": vector(text) }));
        json!({ "data": rows.collect::<Vec<_>>() }).to_string()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/v1/embeddings", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/v1")
}

#[tokio::test]
async fn vectors_find_what_has_no_word_in_common_and_their_absence_is_told() {
    let settings = |base_url: String| {
        [
            ("knowledge-base.vectors.base_url", json!(base_url)),
            ("knowledge-base.vectors.model", json!("m")),
            ("knowledge-base.vectors.dimensions", json!(3)),
        ]
    };
    let documents = json!([
        { "document_id": "d1", "content": "The Silent Court loves riddles." },
        { "document_id": "d2", "content": "Carrion Kin keep saws." },
    ]);
    let stored = json!({ "collection": "lore", "documents": documents });
    let game = Replicas::embedded(&settings(endpoint().await)).await;
    game.ask(INGEST, stored.clone()).await;
    let puzzle = json!({ "query_text": "puzzles", "similarity_threshold": 0.4 });
    eventually("it is found", async || found(&game, puzzle.clone()).await == [("d1".to_owned(), 0.5)]).await;
    assert_eq!(found(&game, json!({ "query_text": "puzzles" })).await, []);
    let deaf = Replicas::embedded(&settings("http://127.0.0.1:1/v1".to_owned())).await;
    deaf.ask(INGEST, stored).await;
    eventually("words are enough", async || found(&deaf, json!({ "query_text": "riddles" })).await.len() == 1).await;
    let reply = deaf.ask_as(QUERY, json!({}), json!({ "query_text": "riddles" })).await;
    assert_eq!(reply["meta"]["labels"]["degraded"], "true");
}

/// Whatever its query says: with a text it would write one.
#[tokio::test]
async fn a_delete_over_http_only_deletes() {
    let game = Replicas::embedded(&[]).await;
    let (running, _) = gateway(project().build(None).unwrap(), &game.bus, |_| {}).await;
    assert_eq!(game.ask(INGEST, ingest("d1", "A riddle.")).await["documents_ingested"], 1);
    let delete = async |path: &str| {
        let answer = reqwest::Client::new().delete(url(&running, path)).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap())
    };
    let (status, refused) = delete("/v1/knowledge/documents/d1?content=Another").await;
    assert_eq!((status, &refused["error"]["details"]["reason"]), (400, &json!("conflicting_fields")), "{refused}");
    assert_eq!(game.ask(GET, json!({ "document_id": "d1" })).await["document"]["content"], "A riddle.");
    let (status, gone) = delete("/v1/knowledge/documents/d1").await;
    assert_eq!((status, &gone["success"]), (200, &json!(true)), "{gone}");
    assert_eq!(game.ask(GET, json!({ "document_id": "d1" })).await["error"]["code"], "NOT_FOUND");
}
