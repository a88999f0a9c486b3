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
fn everything_without_the_files_form_is_shown_at_once() {
    let mut material = project();
    material.routes = "\
version: one
ruotes: []
defaults: { timeout: 30s, calls: -1, json: proto }
styles:
  game: { error: { field: error, code: code }, chunk: [ index ] }
  other: { context: { field: meta, fill: { user_id: [ [ generated ] ] } } }
routes:
  - call: quest.v1.QuestService/GetQuest
    timeout: 5s
  - GET /v1/quests
groups: { name: quests }
"
    .to_owned();
    let problems = material.build(None).err().unwrap();
    let shown: Vec<String> = problems.iter().map(|problem| format!("{} {}", problem.place, problem.message)).collect();
    let route =
        "body, call, chunk, headers_in, headers_out, policies, presets, reply, request, response_body, route, subject";
    assert_eq!(
        shown,
        [
            "routes.yaml:1:10 expected a whole number, found `one`".to_owned(),
            "routes.yaml:2:1 unknown field `ruotes`, expected one of annotations, credential, defaults, errors, groups, \
             methods, open_streams, openapi, routes, styles, version"
                .to_owned(),
            "routes.yaml:3:34 expected a number from 0, found `-1`".to_owned(),
            "routes.yaml:3:44 expected a map, found `proto`".to_owned(),
            "routes.yaml:5:18 missing field `message`".to_owned(),
            "routes.yaml:5:55 expected a map, found a list".to_owned(),
            "routes.yaml:6:55 expected a text or a map, found a list".to_owned(),
            "routes.yaml:8:5 missing field `route`".to_owned(),
            format!("routes.yaml:9:5 unknown field `timeout`, expected one of {route}"),
            "routes.yaml:10:5 expected a map, found `GET /v1/quests`".to_owned(),
            "routes.yaml:11:9 expected a list, found a map".to_owned(),
        ]
    );
    assert_eq!(problems[1].hint, "did you mean `routes`?");
}

#[test]
fn a_key_that_does_not_exist_is_shown() {
    let mut material = project();
    material.routes = "version: 1\nruotes: []\n".to_owned();
    let report = build(&material).unwrap_err();
    assert!(report.contains("ruotes") && report.contains("--> routes.yaml:2:1"), "{report}");
}
