//! The console's API as a script uses it: a gateway with all services, its token, and what the pages are made from.

mod support;

use std::path::PathBuf;
use std::process::Command;

use reqwest::Client;
use serde_json::{Value, json};
use support::eventually;
use support::program::Program;

const TOKEN: &str = "a-token-for-the-console";

/// A gateway on the built-in tables, and somebody who has its token.
struct Desk {
    program: Program,
    client: Client,
    _folder: tempfile::TempDir,
}

impl Desk {
    fn start() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        let program = Program::start(&["dev", "--admin-token-file", file.to_str().unwrap()]);
        Desk { program, client: Client::new(), _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.program.admin)
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(self.url(path)).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{path}");
        json_of(answer).await
    }

    async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        self.client.post(self.url(path)).bearer_auth(TOKEN).body(body.to_string()).send().await.unwrap()
    }

    /// A call through the console: the status and body of the answer behind it.
    async fn call(&self, verb: &str, path: &str, body: &Value) -> (u16, Value) {
        let answer =
            self.post("/admin/api/call", &json!({ "verb": verb, "path": path, "body": body.to_string() })).await;
        assert_eq!(answer.status().as_u16(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        let status = answer.headers()["tidegate-answer-status"].to_str().unwrap().parse().unwrap();
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn streams_open(&self) -> u64 {
        let text = reqwest::get(self.url("/metrics")).await.unwrap().text().await.unwrap();
        let open = text.lines().filter(|line| line.starts_with("tidegate_streams_open{"));
        open.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

async fn json_of(answer: reqwest::Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn the_api_is_closed_without_the_token_and_probes_are_open() {
    let desk = Desk::start();
    for path in ["/healthz", "/readyz", "/metrics", "/console", "/console.js", "/console.css", "/docs"] {
        assert_eq!(reqwest::get(desk.url(path)).await.unwrap().status().as_u16(), 200, "{path}");
    }
    let reads =
        ["routes", "figures", "reload", "workers", "methods/a.B/C", "nothing"].map(|path| format!("/admin/api/{path}"));
    for path in reads.iter().map(String::as_str).chain(["/openapi.json"]) {
        let answer = reqwest::get(desk.url(path)).await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{path}");
        assert_eq!(answer.status().as_u16(), 401, "{path}");
    }
    for path in ["/admin/api/explain", "/admin/api/call"] {
        let answer =
            desk.client.post(desk.url(path)).bearer_auth("another-token-than-ours").body("{}").send().await.unwrap();
        assert_eq!(answer.headers()["www-authenticate"], "Bearer error=\"invalid_token\"");
        let problem = json_of(answer).await;
        assert_eq!(
            (&problem["status"], &problem["detail"]),
            (&401.into(), &"this is not the token of the admin port".into())
        );
    }
    assert_eq!(desk.get("/openapi.json").await["openapi"], "3.1.1");
    let bent = desk.client.get(desk.url("/admin/api/routes")).bearer_auth(TOKEN).header("host", "evil.example");
    assert_eq!(bent.send().await.unwrap().status().as_u16(), 403);
    let page = reqwest::get(desk.url("/console")).await.unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';") && policy.contains("frame-ancestors 'none'"));
    let missing = desk.client.get(desk.url("/admin/api/nothing")).bearer_auth(TOKEN).send().await.unwrap();
    let problem = json_of(missing).await;
    assert_eq!((&problem["reason"], &problem["status"]), (&"route_not_found".into(), &404.into()));
}

#[tokio::test]
async fn routes_figures_workers_and_messages_are_told() {
    let desk = Desk::start();
    let table = desk.get("/admin/api/routes").await;
    let routes = table["routes"].as_array().unwrap();
    let name = "POST /v1/players/{player_id}/quests:generate";
    let quest = routes
        .iter()
        .find(|row| format!("{} {}", row["verb"].as_str().unwrap(), row["path"].as_str().unwrap()) == name);
    let quest = quest.unwrap();
    assert_eq!(
        (&quest["subject"], &quest["auth"], &quest["stream"]),
        (&"svc.quest.v1.generate".into(), &"optional".into(), &"no".into())
    );
    assert_eq!(quest["body_max_bytes"], 960 * 1024);

    assert_eq!(desk.program.post("/v1/players/p1/quests:generate", r#"{"seed": "42"}"#).await.0, 200);
    assert_eq!(desk.program.post("/v1/players/p1/quests:generate", "{").await.0, 400);
    // What a worker has to say against a request is the client's mistake, and no failure behind the gateway.
    assert_eq!(desk.program.get("/v1/players/p1/quests/qst_0000000000000000").await.0, 404);
    let figures = desk.get("/admin/api/figures").await;
    assert_eq!((&figures["bus"], &figures["is_counted"]), (&"connected".into(), &true.into()));
    let counted = &figures["routes"][name];
    assert_eq!(
        counted["requests"],
        json!({ "ok": 1, "client_error": 1, "limited": 0, "upstream_error": 0, "internal_error": 0 })
    );
    assert_eq!((&counted["timed"], &counted["in_flight"]), (&2.into(), &0.into()));
    let last = counted["buckets"].as_array().unwrap().last().unwrap();
    assert_eq!(last, &json!([30.0, 2]));
    let found = &figures["routes"]["GET /v1/players/{player_id}/quests/{quest_id}"]["requests"];
    assert_eq!((&found["client_error"], &found["upstream_error"]), (&1.into(), &0.into()));

    eventually("all services answer", async || {
        let told = desk.get("/admin/api/workers").await;
        told["services"].as_object().unwrap().len() == 22
    })
    .await;
    let told = desk.get("/admin/api/workers").await;
    let endpoints = told["services"]["quest-system"]["instances"][0]["endpoints"].as_array().unwrap();
    let generate = endpoints.iter().find(|row| row["subject"] == "svc.quest.v1.generate").unwrap();
    assert_eq!((&generate["requests"], &generate["errors"]), (&1.into(), &0.into()));

    let method = desk.get("/admin/api/methods/quest.v1.QuestService/GenerateQuest").await;
    let request = &method["messages"][method["request"].as_str().unwrap()];
    let player = request.as_array().unwrap().iter().find(|field| field["name"] == "player_id").unwrap();
    assert_eq!((&player["kind"], &player["json_name"]), (&"string".into(), &"playerId".into()));
    let reload = desk.get("/admin/api/reload").await;
    assert_eq!(reload, json!({ "generation": 1, "applied": 0, "refused": 0, "is_stale": false, "report": "" }));
}

#[tokio::test]
async fn calls_take_the_gateways_own_way() {
    let desk = Desk::start();
    let state = json!({ "state": { "money": 3 } });
    let (status, body) = desk.call("PUT", "/v1/players/p1/state", &state).await;
    assert_eq!((status, &body["ok"]), (200, &true.into()));
    let (status, body) = desk.call("GET", "/v1/players/p1/state", &json!("")).await;
    assert_eq!((status, &body["state"]["money"]), (200, &3.into()));
    assert_eq!(desk.call("GET", "/v1/nowhere", &json!("")).await.0, 404);
    let refused = async |body: Value| {
        let answer = desk.post("/admin/api/call", &body).await;
        let status = answer.status().as_u16();
        let problem = json_of(answer).await;
        (status, problem["detail"].as_str().unwrap().to_owned())
    };
    let path = json!({ "verb": "GET", "path": "v1" });
    assert_eq!(refused(path).await, (400, "`v1` is no path: it begins with `/`".to_owned()));
    let header = json!({ "verb": "GET", "path": "/v1", "headers": [["Content-Length", "7"]] });
    assert_eq!(refused(header).await, (400, "header `content-length` cannot be set by hand".to_owned()));
    let unknown = refused(json!({ "verb": "GET", "path": "/v1", "bdy": "" })).await;
    assert!(unknown.0 == 400 && unknown.1.contains("unknown field `bdy`"), "{unknown:?}");
}

#[tokio::test]
async fn a_stream_goes_with_whoever_watches_it_and_there_are_only_so_many() {
    let desk = Desk::start();
    let watch = json!({ "verb": "GET", "path": "/v1/worlds/w1/time:watch" });
    let mut watched = Vec::new();
    for _ in 0..16 {
        let mut answer = desk.post("/admin/api/call", &watch).await;
        assert_eq!(answer.headers()["tidegate-answer-status"], "200");
        assert!(answer.headers()["tidegate-answer-headers"].to_str().unwrap().contains("text/event-stream"));
        assert!(!answer.chunk().await.unwrap().unwrap().is_empty());
        watched.push(answer);
    }
    assert_eq!(desk.streams_open().await, 16);
    let answer = desk.post("/admin/api/call", &watch).await;
    assert_eq!(answer.status().as_u16(), 429);
    drop(watched);
    eventually("all streams are closed", async || desk.streams_open().await == 0).await;
    eventually("there is room again", async || desk.post("/admin/api/call", &watch).await.status().as_u16() == 200)
        .await;
}

#[tokio::test]
async fn client_certificates_count_as_the_token_does() {
    let file = |name: &str| format!("{}/tests/data/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read(file(name)).unwrap();
    let (cert, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let arguments = ["dev", "--admin-tls-cert", &cert, "--admin-tls-key", &key, "--admin-client-ca", &ca];
    let program = Program::start(&arguments);
    let ours = reqwest::Certificate::from_pem(&read("ca.crt")).unwrap();
    let builder = || Client::builder().tls_certs_only([ours.clone()]);
    let identity = reqwest::Identity::from_pem(&[read("client.crt"), read("client.key")].concat()).unwrap();
    let (stranger, known) = (builder().build().unwrap(), builder().identity(identity).build().unwrap());
    let ask = async |client: &Client, path: &str| {
        client.get(format!("https://{}{path}", program.admin)).send().await.unwrap().status().as_u16()
    };
    assert_eq!((ask(&stranger, "/healthz").await, ask(&known, "/healthz").await), (200, 200));
    assert_eq!((ask(&stranger, "/admin/api/routes").await, ask(&known, "/admin/api/routes").await), (403, 200));
    let plain = reqwest::get(format!("http://{}/healthz", program.admin)).await;
    assert!(plain.is_err(), "the port speaks TLS alone");
}

#[test]
fn credentials_that_cannot_be_used_stop_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let missing: PathBuf = folder.path().join("missing");
    let refused = |arguments: &[&str], token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).args(arguments);
        let output = command.env("TIDEGATE_ADMIN_TOKEN", token).current_dir(&folder).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let missing = missing.to_str().unwrap();
    let text =
        format!("error: the admin token in `{missing}` cannot be read: No such file or directory (os error 2)\n");
    assert_eq!(refused(&["--admin-token-file", missing], ""), (Some(1), text));
    let text = "error: the admin token has 5 bytes: it needs at least 16\n".to_owned();
    assert_eq!(refused(&[], "short"), (Some(1), text));
    let (code, text) = refused(&["--admin-tls-cert", missing, "--admin-tls-key", missing], "");
    assert!(code == Some(1) && text.starts_with(&format!("error: `{missing}` cannot be used for TLS: ")), "{text}");
}
