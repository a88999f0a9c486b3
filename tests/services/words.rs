//! Streams that tell a text word by word.

use crate::support;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::eventually;
use support::replicas::Replicas;

#[tokio::test]
async fn words_come_as_fast_as_the_settings_say() {
    let settings = [("common.text.pacing", json!("20ms")), ("knowledge-base.seed_corpus", json!(true))];
    let game = Replicas::embedded(&settings).await;
    let riddle = json!({ "query_text": "Which family does a riddle move?" });
    eventually("both replicas know of riddles", async || {
        let found = join_all((0..8).map(|_| game.ask("svc.kb.v1.query", riddle.clone()))).await;
        found.iter().all(|reply| reply["documents"].is_array() && reply["documents"] == found[0]["documents"])
    })
    .await;
    let lore = json!({ "story_type": "lore", "min_length": 60, "max_length": 90 });
    // The text in the reply, where a stream tells its words, and how many chunks have none.
    let rows = [
        ("svc.story.v1.generate", lore, "/story/content", "content_delta", 1),
        (
            "svc.quest.v1.generate",
            json!({ "player_id": "p1", "seed": "42" }),
            "/quest/description",
            "description_delta",
            2,
        ),
        ("svc.kb.v1.query", riddle, "/synthesized_answer", "answer_delta", 1),
    ];
    for (subject, request, text, delta, others) in rows {
        let reply = game.ask(subject, request.clone()).await;
        let text = reply.pointer(text).and_then(Value::as_str).unwrap();
        let others = others + reply["documents"].as_array().map_or(0, Vec::len);
        let words = text.split_inclusive([' ', '\n']).count();
        assert!(words > 2, "{subject}: {reply}");
        let begun = Instant::now();
        let chunks = game.chunks(&format!("{subject}_stream"), request, [words + others, 0], async {}).await;
        let told: String = chunks.iter().filter_map(|chunk| chunk[delta].as_str()).collect();
        assert_eq!(told, text, "{subject}");
        let least = Duration::from_millis(20) * (words as u32 - 1);
        assert!(begun.elapsed() >= least, "{subject}: {words} words in {:?}", begun.elapsed());
    }
}
