//! What the documented examples do not show of environmental-narrative and story-teller: two replicas that tell the same,
//! branches that lead on, prose by a model that stays, what a watch sees.

use crate::support;

use futures_util::future::join_all;
use serde_json::{Value, json};
use support::replicas::Replicas;

const STORY: &str = "svc.story.v1.generate";
const CONTINUE: &str = "svc.story.v1.continue";
const EVALUATE: &str = "svc.story.v1.evaluate";
const NARRATIVE: &str = "svc.narrative.v1.generate";
const UPDATE: &str = "svc.narrative.v1.update_context";

fn quest() -> Value {
    json!({ "story_type": "quest", "themes": ["greed"], "tone": "dark", "context": { "alternatives": "2" } })
}

fn cellar() -> Value {
    json!({ "location_id": "cellar", "scene_type": "transition", "tags": ["horror"], "max_elements": 5,
        "context": { "weather": "fog" } })
}

fn list(story: &Value, name: &str) -> Vec<String> {
    story["metadata"][name].as_str().unwrap_or_default().split(',').map(str::to_owned).collect()
}

async fn equal_requests_at_once_get_equal_replies(game: Replicas) {
    for (subject, request) in [(STORY, quest()), (NARRATIVE, cellar())] {
        let replies = join_all((0..8).map(|_| game.ask(subject, request.clone()))).await;
        assert!(replies[0].get("error").is_none(), "{}", replies[0]);
        assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
    }
}

#[tokio::test]
async fn equal_requests_at_once_get_equal_replies_on_either_bus() {
    equal_requests_at_once_get_equal_replies(Replicas::embedded(&[]).await).await;
    equal_requests_at_once_get_equal_replies(Replicas::nats(&[]).await).await;
}

#[tokio::test]
async fn every_branch_is_judged_and_leads_on() {
    let game = Replicas::embedded(&[]).await;
    let told = game.ask(STORY, quest()).await;
    let alternatives = told["alternatives"].as_array().unwrap();
    assert_eq!(alternatives.len(), 2, "{told}");
    for story in std::iter::once(&told["story"]).chain(alternatives) {
        let choices: Vec<&str> = story["choices"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let checkpoint = story["metadata"]["checkpoint_id"].as_str().unwrap();
        let branches = list(story, "branch_ids");
        assert_eq!(branches.len(), choices.len(), "{story}");
        for (index, (branch, choice)) in branches.iter().zip(&choices).enumerate() {
            let by_text = game.ask(EVALUATE, json!({ "story_branch_id": branch, "player_choice": choice })).await;
            assert_eq!(by_text["evaluation"]["branch_id"], **branch, "{by_text}");
            let number = (index + 1).to_string();
            let own = game.ask(EVALUATE, json!({ "story_branch_id": branch })).await;
            let by_number = game.ask(EVALUATE, json!({ "story_branch_id": branch, "player_choice": number })).await;
            assert_eq!((&own, &by_number), (&by_text, &by_text));
            let on = json!({ "checkpoint_id": checkpoint, "player_choice": number });
            let next = game.ask(CONTINUE, on.clone()).await;
            let metadata = &next["continuation"]["metadata"];
            assert_eq!((&metadata["depth"], &metadata["parent_checkpoint_id"]), (&json!("1"), &json!(checkpoint)));
            assert_eq!(game.ask(CONTINUE, on).await, next);
            let found =
                game.ask("svc.story.v1.get_checkpoint", json!({ "checkpoint_id": metadata["checkpoint_id"] })).await;
            assert_eq!(found, json!({ "story": next["continuation"], "parent_checkpoint_id": checkpoint }));
        }
        let refused = game.ask(CONTINUE, json!({ "checkpoint_id": checkpoint, "player_choice": "9" })).await;
        let details = json!({ "field": "player_choice", "reason": "unknown_value", "choices": choices.join("|") });
        assert_eq!((&refused["error"]["code"], &refused["error"]["details"]), (&json!("INVALID_ARGUMENT"), &details));
    }
}

#[tokio::test]
async fn themes_in_another_order_are_another_story_whichever_was_told_first() {
    let of = |themes: [&str; 2]| json!({ "story_type": "lore", "themes": themes, "seed": 3 });
    let (one, other) = (of(["greed", "horror"]), of(["horror", "greed"]));
    let mut told = Vec::new();
    for requests in [[&one, &other], [&other, &one]] {
        let game = Replicas::embedded(&[]).await;
        told.push([game.ask(STORY, requests[0].clone()).await, game.ask(STORY, requests[1].clone()).await]);
    }
    assert_eq!([&told[0][0], &told[0][1]], [&told[1][1], &told[1][0]]);
    assert_ne!(told[0][0]["story"]["content_id"], told[0][1]["story"]["content_id"]);
    assert_ne!(told[0][0]["story"]["content"], told[0][1]["story"]["content"]);
}

#[tokio::test]
async fn a_context_that_no_judge_could_read_is_refused_before_anything_is_looked_up() {
    let game = Replicas::embedded(&[]).await;
    let request = |subject: &str, context: Value| match subject {
        STORY => json!({ "story_type": "quest", "context": context }),
        CONTINUE => json!({ "checkpoint_id": "cp_x", "context": context }),
        _ => json!({ "story_branch_id": "br_x", "context": context }),
    };
    for subject in [STORY, CONTINUE, EVALUATE] {
        for (name, text) in [("market.medicine", "cheap"), ("theme_score", "low"), ("required_level", "novice")] {
            let refused = game.ask(subject, request(subject, json!({ (name): text }))).await;
            let details = json!({ "field": format!("context.{name}"), "reason": "bad_format" });
            assert_eq!(refused["error"]["details"], details, "{subject}: {refused}");
        }
        let context = json!({ "required_level": "5", "level": "novice" });
        let refused = game.ask(subject, request(subject, context)).await;
        assert_eq!(refused["error"]["details"]["field"], "context.level", "{subject}: {refused}");
    }
    for (alternatives, code) in [("4", "OUT_OF_RANGE"), ("-1", "OUT_OF_RANGE"), ("some", "INVALID_ARGUMENT")] {
        let refused = game.ask(STORY, request(STORY, json!({ "alternatives": alternatives }))).await;
        assert_eq!(refused["error"]["code"], code, "{alternatives}: {refused}");
    }
}

#[tokio::test]
async fn a_choice_has_needs_and_a_story_an_end() {
    let game = Replicas::embedded(&[]).await;
    let told = game.ask(STORY, json!({ "story_type": "dialogue" })).await;
    let mut checkpoint = told["story"]["metadata"]["checkpoint_id"].clone();
    let needs = json!({ "required_level": "5", "level": "4", "required_item": "hook", "items": "saw, rope" });
    let poor = game.ask(CONTINUE, json!({ "checkpoint_id": checkpoint, "player_choice": "1", "context": needs })).await;
    let details = json!({ "reason": "prerequisites", "missing": "level,hook" });
    assert_eq!((&poor["error"]["code"], &poor["error"]["details"]), (&json!("FAILED_PRECONDITION"), &details));
    let mut last = Value::Null;
    for depth in 1..=10 {
        let next = game.ask(CONTINUE, json!({ "checkpoint_id": checkpoint, "context": { "choice": "1" } })).await;
        assert_eq!(next["continuation"]["metadata"]["depth"], depth.to_string(), "{next}");
        checkpoint = next["continuation"]["metadata"]["checkpoint_id"].clone();
        last = next["continuation"].clone();
    }
    let judged = game.ask(EVALUATE, json!({ "story_branch_id": list(&last, "branch_ids")[0] })).await;
    assert_eq!(judged["error"]["details"], json!({ "reason": "depth" }), "{judged}");
    let end = game.ask(CONTINUE, json!({ "checkpoint_id": checkpoint, "player_choice": "1" })).await;
    assert_eq!(end["error"]["details"], json!({ "reason": "depth" }), "{end}");
}

#[tokio::test]
async fn what_follows_from_a_choice_is_told_of_market_npc_and_drift() {
    let game = Replicas::embedded(&[]).await;
    let mut greedy = None;
    for seed in 1..40 {
        let told = game.ask(STORY, json!({ "story_type": "quest", "tone": "tense", "seed": seed })).await;
        let at = list(&told["story"], "choice_kinds").iter().position(|kind| kind == "greedy");
        if let Some(at) = at {
            greedy = Some(list(&told["story"], "branch_ids")[at].clone());
            break;
        }
    }
    let branch = greedy.expect("one of forty stories has a greedy choice");
    let context = json!({ "npc": "Mags", "item": "ledger", "market.medicine": "1/4", "event": "territory_lost",
        "theme_score": "0.5", "tangential_share": "0.31" });
    let judged = game.ask(EVALUATE, json!({ "story_branch_id": branch, "context": context })).await;
    assert_eq!(
        judged["evaluation"],
        json!({
            "branch_id": branch, "coherence_score": 0.3, "impact_score": 0.7,
            "consequences": [
                "hostile witnesses in 0.5 days (p=0.7)", "hoarding in 1 days (p=0.6)",
                "attempt to reclaim in 3 days (p=0.5)", "loyalty shift of its people in 1 days (p=0.8)",
                "resource war in 2 days (p=0.7)",
            ],
            "state_changes": {
                "money": "+50", "reputation": "-5", "relationships": "-5 Mags", "items": "+1 ledger",
                "price.medicine": "60", "market.medicine": "price spike,shortage",
            },
        })
    );
}

#[tokio::test]
async fn a_models_prose_replaces_words_alone_and_stays() {
    let plain = Replicas::embedded(&[]).await;
    let on = ["story-teller.text.llm", "environmental-narrative.text.llm", "quest-system.text.llm"];
    let prosaic = Replicas::embedded(&on.map(|path| (path, json!(true)))).await;
    let quest_request = json!({ "player_id": "p1", "seed": 5 });
    for (subject, request, words) in [
        (STORY, json!({ "story_type": "lore", "min_length": 300, "max_length": 400 }), "/story/content"),
        (NARRATIVE, cellar(), "/elements/0/content"),
        ("svc.quest.v1.generate", quest_request, "/quest/description"),
    ] {
        let built_in = plain.ask(subject, request.clone()).await;
        let told = prosaic.ask(subject, request.clone()).await;
        assert_eq!(prosaic.ask(subject, request).await, told);
        let (ours, theirs) = (built_in.pointer(words).unwrap(), told.pointer(words).unwrap());
        assert_ne!(ours, theirs, "{told}");
        if subject == STORY {
            let length = theirs.as_str().unwrap().chars().count();
            assert!((300..=400).contains(&length), "{length}: {told}");
        }
        let (mut ours, mut theirs) = (built_in.clone(), told.clone());
        for reply in [&mut ours, &mut theirs] {
            *reply.pointer_mut(words).unwrap() = Value::Null;
            for element in reply["elements"].as_array_mut().into_iter().flatten() {
                element["content"] = Value::Null;
            }
        }
        assert_eq!(ours, theirs);
    }
}

#[tokio::test]
async fn a_longer_set_of_a_seed_is_prose_to_its_end() {
    let plain = Replicas::embedded(&[]).await;
    let prosaic = Replicas::embedded(&[("environmental-narrative.text.llm", json!(true))]).await;
    let of_length = |elements: usize| {
        let mut request = cellar();
        request["max_elements"] = elements.into();
        request
    };
    let contents = async |game: &Replicas, elements: usize| -> Vec<Value> {
        let set = game.ask(NARRATIVE, of_length(elements)).await;
        set["elements"].as_array().unwrap().iter().map(|element| element["content"].clone()).collect()
    };
    let (built_in, short, long) = (contents(&plain, 5).await, contents(&prosaic, 2).await, contents(&prosaic, 5).await);
    assert_eq!(long[..2], short);
    assert!(long.iter().zip(&built_in).all(|(theirs, ours)| theirs != ours), "{long:?}");
    assert_eq!(contents(&prosaic, 5).await, long);
}

#[tokio::test]
async fn each_set_that_was_told_has_an_event() {
    let game = Replicas::embedded(&[]).await;
    for (elements, tag) in [(2, "horror".to_owned()), (5, "horror".to_owned()), (5, "a".repeat(65))] {
        let mut request = cellar();
        (request["max_elements"], request["tags"]) = (elements.into(), json!([tag]));
        // Told again, it is no news.
        for _ in 0..2 {
            let set = game.ask(NARRATIVE, request.clone()).await;
            assert_eq!(set["elements"].as_array().map(Vec::len), Some(elements), "{set}");
        }
    }
    let told = game.events("NARRATIVE_EVENTS", "evt.narrative.generated.v1", 3).await;
    let ids: std::collections::BTreeSet<&str> = told.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
}

#[tokio::test]
async fn a_watch_of_a_place_sees_its_context_then_what_changes_and_what_is_told() {
    let game = Replicas::embedded(&[]).await;
    let first = game.ask(NARRATIVE, cellar()).await;
    let fog = json!({ "location_id": "cellar", "context_updates": { "light": "red" } });
    game.ask(UPDATE, fog).await;
    let storm =
        json!({ "location_id": "cellar", "context_updates": { "weather": "storm" }, "active_events": ["raid"] });
    let between = async {
        game.ask(UPDATE, storm).await;
        game.ask(NARRATIVE, json!({ "location_id": "cellar", "max_elements": 1 })).await;
    };
    let watch = json!({ "location_id": "cellar" });
    let seen = game.chunks("svc.narrative.v1.watch", watch, [1, 2], between).await;
    let touched: Vec<&Value> = [0, 3].map(|index| &first["elements"][index]["element_id"]).into();
    assert_eq!(seen[0]["context"], json!({ "light": "red" }));
    assert_eq!(seen[1]["context"], json!({ "light": "red", "weather": "storm" }));
    assert_eq!(seen[1]["affected_elements"], json!(touched));
    let generated = &seen[2]["generated"];
    assert_eq!(
        (generated["elements"].as_array().map(Vec::len), &generated["context_revision"]),
        (Some(1), &json!("2"))
    );
    assert_eq!(generated["elements"][0]["triggers"]["weather"], "storm");
}

#[tokio::test]
async fn streams_tell_what_the_plain_calls_tell() {
    let game = Replicas::embedded(&[]).await;
    let set = game.ask(NARRATIVE, cellar()).await;
    let pieces = game.chunks("svc.narrative.v1.generate_stream", cellar(), [6, 0], async {}).await;
    let elements: Vec<&Value> = pieces[..5].iter().map(|piece| &piece["element"]).collect();
    assert_eq!(json!(elements), set["elements"]);
    assert_eq!((&pieces[5]["atmosphere"], &pieces[5]["is_final"]), (&set["atmosphere"], &json!(true)));
    let story = game.ask(STORY, quest()).await["story"].take();
    let content = story["content"].as_str().unwrap();
    let words = content.split_inclusive([' ', '\n']).count();
    let pieces = game.chunks("svc.story.v1.generate_stream", quest(), [words + 1, 0], async {}).await;
    let joined: String = pieces.iter().filter_map(|piece| piece["content_delta"].as_str()).collect();
    assert_eq!((joined.as_str(), &pieces[words]["story"]), (content, &story));
}
