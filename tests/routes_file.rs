//! The project's own routes file builds; mistakes in one are shown as a compiler shows them.

use tidegate::snapshot::problem::render;
use tidegate::snapshot::{Files, Material, Snapshot, Source as _};

fn project() -> Material {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = Files { routes: root.join("routes.yaml"), descriptors: root.join("descriptors") };
    let mut material = files.read().unwrap();
    material.routes_name = "routes.yaml".to_owned();
    material
}

fn build(material: &Material) -> Result<Snapshot, String> {
    material.build(None).map_err(|problems| render(&problems, false, |file| material.text_of(file)))
}

#[test]
fn the_projects_own_table_builds() {
    let snapshot = build(&project()).unwrap_or_else(|report| panic!("{report}"));
    let shown: Vec<String> = snapshot.routes.iter().map(|r| format!("{} {}", r.verb, r.template)).collect();
    for wanted in [
        "POST /v1/players/{player_id}/quests:generate",
        "POST /quest/generate",
        "PUT /v1/players/{player.player_id}/state",
        "POST /ai/llm/infer",
        "GET /v1/players/{player_id}/state:watch",
    ] {
        assert!(shown.iter().any(|row| row == wanted), "{wanted} is not among {shown:#?}");
    }
}

#[test]
fn mistakes_are_shown_all_at_once_with_their_places() {
    let mut material = project();
    material.routes = "\
version: 1
defaults: { style: plane, timeout: 30 }
routes:
  - route: POST /a/{player_id}
    call: quest.v1.QuestService/GenerateQuests
  - route: FETCH /b
    call: quest.v1.QuestService/GenerateQuest
  - route: GET /c/{nothing}
    call: quest.v1.QuestService/GetQuest
    policies: { style: plain, timeout: 1s }
"
    .to_owned();
    let report = build(&material).unwrap_err();
    for wanted in [
        "error: the descriptors have no method `quest.v1.QuestService/GenerateQuests`",
        "--> routes.yaml:5:11",
        "help: did you mean `quest.v1.QuestService/GenerateQuest`?",
        "error: `FETCH`: expected one of GET, PUT, POST, DELETE, PATCH, HEAD, *",
        "error: `GET /c/{nothing}`: path variable `nothing`: `quest.v1.GetQuestRequest` has no field `nothing`",
    ] {
        assert!(report.contains(wanted), "{wanted}\nis not in\n{report}");
    }
}

#[test]
fn a_key_that_does_not_exist_is_shown() {
    let mut material = project();
    material.routes = "version: 1\nruotes: []\n".to_owned();
    let report = build(&material).unwrap_err();
    assert!(report.contains("ruotes") && report.contains("--> routes.yaml:2:1"), "{report}");
}
