//! Templates and look-ups: what a verb and a path lead to, what they fill, and what a template may not say.

mod support;

use std::collections::BTreeSet;

use proptest::prelude::*;
use support::nats::NatsServer;
use support::{gateway, settle, snapshot};
use tidegate::bus::{Headers, Limits, Message, Pattern, Subject};
use tidegate::route::{Content, Lookup, Parts, PathTemplate, RouteId, Segments, Tree};
use tidegate::transcode::{JsonOut, Names, Scratch, wire_to_json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
message Ask { string a = 1; string b = 2; Inner in = 3; int32 n = 4; }
message Inner { string x = 1; string y = 2; }
message Answer { string a = 1; }
service Things { rpc Get(Ask) returns (Answer); }
"#;

/// What a request leads to in a table: the route and what the path fills, or `404`, `405 ALLOW`, `400 TEXT`.
fn leads_to(table: &[&str], request: &str) -> String {
    let rows: String = table.iter().map(|row| format!("  - {{ route: '{row}', call: t.v1.Things/Get }}\n")).collect();
    let snapshot = snapshot(&format!("routes:\n{rows}"), PROTO);
    let (verb, path) = request.split_once(' ').unwrap();
    let Some(segments) = Segments::split(path) else { return "404".to_owned() };
    let route = match snapshot.tree.find(verb, path, &segments) {
        Lookup::Found(id) => snapshot.route(id).clone(),
        Lookup::Missing => return "404".to_owned(),
        Lookup::WrongVerb(allow) => return format!("405 {}", allow.join(", ")),
    };
    let headers = http::HeaderMap::new();
    let parts = Parts { path, segments: &segments, query: None, headers: &headers, content: Content::Json, body: &[] };
    let (mut payload, mut json) = (Vec::new(), Vec::new());
    if let Err(fault) = route.binding.bind(&snapshot.tables, &parts, &mut payload) {
        return format!("400 {}", fault.message());
    }
    let options = JsonOut { names: Names::Proto, ..JsonOut::default() };
    let scratch = &mut Scratch::default();
    wire_to_json(&snapshot.tables, route.method.request, &options, &payload, scratch, &mut json).unwrap();
    format!("{} {} {}", route.verb, route.template, String::from_utf8(json).unwrap())
}

/// A table, and what requests lead to in it.
type Table = (&'static [&'static str], &'static [(&'static str, &'static str)]);

const TABLES: &[Table] = &[
    (
        &["GET /", "GET /a", "GET /a/b", "POST /a"],
        &[
            ("GET /", "GET / {}"),
            ("GET /a", "GET /a {}"),
            ("HEAD /a", "GET /a {}"),
            ("GET /a/b", "GET /a/b {}"),
            ("GET /A", "404"),
            ("GET /a/b/c", "404"),
            ("GET /ab", "404"),
            ("PUT /a", "405 GET, HEAD, POST"),
            ("PUT /a/b", "405 GET, HEAD"),
            ("get /a", "405 GET, HEAD, POST"),
        ],
    ),
    // Literal before `*` before `**`, from the left, going back where a way ends.
    (
        &[
            "GET /v1/things/all",
            "GET /v1/things/{a}",
            "GET /v1/{a=**}",
            "GET /v1/things/all/parts",
            "GET /v1/*/{b}/tags",
        ],
        &[
            ("GET /v1/things/all", "GET /v1/things/all {}"),
            ("GET /v1/things/one", r#"GET /v1/things/{a} {"a":"one"}"#),
            ("GET /v1/things/all/parts", "GET /v1/things/all/parts {}"),
            ("GET /v1/things/all/tags", r#"GET /v1/*/{b}/tags {"b":"all"}"#),
            ("GET /v1/things/all/else", r#"GET /v1/{a=**} {"a":"things/all/else"}"#),
            ("GET /v1", "GET /v1/{a=**} {}"),
            ("GET /v2", "404"),
        ],
    ),
    // A literal without the verb leaves the request to `*`.
    (
        &["POST /a/b", "GET /a/{a}"],
        &[
            ("GET /a/b", r#"GET /a/{a} {"a":"b"}"#),
            ("POST /a/b", "POST /a/b {}"),
            ("POST /a/c", "405 GET, HEAD"),
            ("PUT /a/b", "405 GET, HEAD, POST"),
        ],
    ),
    (
        &["* /any/{a}", "GET /any/{a}", "HEAD /any/{a}", "* /rest/{a}", "GET /rest/{a}"],
        &[
            ("GET /any/x", r#"GET /any/{a} {"a":"x"}"#),
            ("HEAD /any/x", r#"HEAD /any/{a} {"a":"x"}"#),
            ("LOCK /any/x", r#"* /any/{a} {"a":"x"}"#),
            ("HEAD /rest/x", r#"GET /rest/{a} {"a":"x"}"#),
        ],
    ),
    // Captures: nested fields, several segments, `**` before more segments, none at all.
    (
        &["GET /p/{in.x}/{in.y}", "GET /q/{a=x/*/y/**}", "GET /r/{a=**}/end/{b}", "GET /s/{a=only}", "GET /n/{n}"],
        &[
            ("GET /p/1/2", r#"GET /p/{in.x}/{in.y} {"in":{"x":"1","y":"2"}}"#),
            ("GET /q/x/1/y", r#"GET /q/{a=x/*/y/**} {"a":"x/1/y"}"#),
            ("GET /q/x/1/y/2/3", r#"GET /q/{a=x/*/y/**} {"a":"x/1/y/2/3"}"#),
            ("GET /q/x/1/z/2", "404"),
            ("GET /r/end/1", r#"GET /r/{a=**}/end/{b} {"b":"1"}"#),
            ("GET /r/1/2/end/3", r#"GET /r/{a=**}/end/{b} {"a":"1/2","b":"3"}"#),
            ("GET /r/end/end/end", r#"GET /r/{a=**}/end/{b} {"a":"end","b":"end"}"#),
            ("GET /r/1/2/3", "404"),
            ("GET /s/only", r#"GET /s/{a=only} {"a":"only"}"#),
            ("GET /s/other", "404"),
            ("GET /n/-7", r#"GET /n/{n} {"n":-7}"#),
            ("GET /n/seven", "400 path variable `n`: expected a 32-bit integer, found `seven`"),
            ("GET /n/2147483648", "400 path variable `n`: expected a 32-bit integer, found `2147483648`"),
        ],
    ),
    (
        &["GET /{a=**}"],
        &[
            ("GET /", "GET /{a=**} {}"),
            ("GET /x", r#"GET /{a=**} {"a":"x"}"#),
            ("GET /x/y", r#"GET /{a=**} {"a":"x/y"}"#),
        ],
    ),
    // Tails behind `**`: the longest, then literals from the left.
    (
        &["GET /f/{a=**}/*/x", "GET /f/{a=**}/y/*", "GET /f/{a=**}/x", "GET /f/{a=**}"],
        &[
            ("GET /f/1/x", r#"GET /f/{a=**}/*/x {}"#),
            ("GET /f/x", r#"GET /f/{a=**}/x {}"#),
            ("GET /f/1/y/x", r#"GET /f/{a=**}/y/* {"a":"1"}"#),
            ("GET /f/1/2", r#"GET /f/{a=**} {"a":"1/2"}"#),
        ],
    ),
    // Custom verbs behind a literal, `*` and `**`.
    (
        &[
            "POST /v1/things:sort",
            "POST /v1/things/{a}:go",
            "GET /v1/things/{a}",
            "POST /v1/{a=files/**}:sign",
            "GET /v1/{b}:go",
        ],
        &[
            ("POST /v1/things:sort", "POST /v1/things:sort {}"),
            ("POST /v1/things/t1:go", r#"POST /v1/things/{a}:go {"a":"t1"}"#),
            ("POST /v1/things/urn:id:7:go", r#"POST /v1/things/{a}:go {"a":"urn:id:7"}"#),
            ("POST /v1/files/a/b.txt:sign", r#"POST /v1/{a=files/**}:sign {"a":"files/a/b.txt"}"#),
            ("POST /v1/files:sign", r#"POST /v1/{a=files/**}:sign {"a":"files"}"#),
            ("GET /v1/things:go", r#"GET /v1/{b}:go {"b":"things"}"#),
            // A verb is encoded no more than a slash is: `%3A` is text, `g%6F` is `go`.
            ("POST /v1/things/t1:g%6F", r#"POST /v1/things/{a}:go {"a":"t1"}"#),
            ("GET /v1/things/t1%3Ago", r#"GET /v1/things/{a} {"a":"t1:go"}"#),
            // The verb of another operation is no part of an id; a verb that nobody has is.
            ("GET /v1/things/t1:go", "405 POST"),
            ("GET /v1/things/t1:stop", r#"GET /v1/things/{a} {"a":"t1:stop"}"#),
            ("GET /v1/things/t1:", r#"GET /v1/things/{a} {"a":"t1:"}"#),
            ("GET /v1/things/:go", r#"GET /v1/things/{a} {"a":":go"}"#),
            ("POST /v1/things", "404"),
            ("POST /v1/things:", "404"),
        ],
    ),
    // Percent-encoding: decoded once, before anything is compared; in captures of several segments `%2F` stays.
    (
        &["GET /caf\u{e9}/menu", "GET /one/{a}", "GET /many/{a=**}", "GET /two/{a=*/*}"],
        &[
            ("GET /caf%C3%A9/menu", "GET /caf\u{e9}/menu {}"),
            ("GET /caf%c3%a9/men%75", "GET /caf\u{e9}/menu {}"),
            ("GET /o%6Ee/x", r#"GET /one/{a} {"a":"x"}"#),
            ("GET /one/a%2Fb", r#"GET /one/{a} {"a":"a/b"}"#),
            ("GET /one%2Fa", "404"),
            ("GET /many/a%2Fb/c%20d", r#"GET /many/{a=**} {"a":"a%2Fb/c d"}"#),
            ("GET /many/a%2fb", r#"GET /many/{a=**} {"a":"a%2fb"}"#),
            ("GET /two/a%2Fb/c", r#"GET /two/{a=*/*} {"a":"a%2Fb/c"}"#),
            ("GET /two/a%2Fb", "404"),
            ("GET /one/a%252Fb", r#"GET /one/{a} {"a":"a%2Fb"}"#),
            ("GET /one/a+b", r#"GET /one/{a} {"a":"a+b"}"#),
            ("GET /one/%F0%9F%8C%8A", "GET /one/{a} {\"a\":\"\u{1f30a}\"}"),
            ("GET /one/%C0%AF", "400 path variable `a`: the decoded bytes are not UTF-8"),
            ("GET /one/%ED%A0%80", "400 path variable `a`: the decoded bytes are not UTF-8"),
            ("GET /one/%FF", "400 path variable `a`: the decoded bytes are not UTF-8"),
            ("GET /one/a%00b", "400 path variable `a`: control characters cannot stand here"),
            ("GET /one/a%0D%0Ab", "400 path variable `a`: control characters cannot stand here"),
            ("GET /one/%7F", "400 path variable `a`: control characters cannot stand here"),
            ("GET /one/%2", "400 path variable `a`: expected two hex digits behind `%`"),
            ("GET /one/%zz", "400 path variable `a`: expected two hex digits behind `%`"),
            ("GET /o%6/x", "404"),
        ],
    ),
    // One rule for paths that proxies read in several ways: they name nothing.
    (
        &["GET /a/b", "GET /x/{a}", "GET /y/{a=**}", "GET /"],
        &[
            ("GET /a/b/", "404"),
            ("GET //a/b", "404"),
            ("GET /a//b", "404"),
            ("GET //", "404"),
            ("GET /x/", "404"),
            ("GET /y/", "404"),
            ("GET /a/./b", "404"),
            ("GET /x/../a/b", "404"),
            ("GET /x/..", "404"),
            ("GET /x/%2e%2E", "404"),
            ("GET /x/.%2e", "404"),
            ("GET /y/1/%2e/2", "404"),
            ("GET /x/...", r#"GET /x/{a} {"a":"..."}"#),
            ("GET /x/.b", r#"GET /x/{a} {"a":".b"}"#),
            ("GET /a;v=1/b", "404"),
            ("GET /x/1;v=1", r#"GET /x/{a} {"a":"1;v=1"}"#),
            ("GET /x/a.b.*.%3E", r#"GET /x/{a} {"a":"a.b.*.>"}"#),
        ],
    ),
];

#[test]
fn every_request_leads_where_the_table_says() {
    for (table, requests) in TABLES {
        for (request, expected) in *requests {
            assert_eq!(leads_to(table, request), *expected, "{request} in {table:#?}");
            // The order of the rows means nothing.
            let backwards: Vec<&str> = table.iter().rev().copied().collect();
            assert_eq!(leads_to(&backwards, request), *expected, "{request} in {backwards:#?}");
        }
    }
}

#[test]
fn long_segments_and_deep_paths_have_their_limits() {
    let long = "x".repeat(5_000);
    let expected = format!("GET /x/{{a}} {{\"a\":\"{long}\"}}");
    assert_eq!(leads_to(&["GET /x/{a}"], &format!("GET /x/{long}")), expected);
    let table = ["GET /{a=**}"];
    assert_ne!(leads_to(&table, &format!("GET {}", "/x".repeat(64))), "404");
    assert_eq!(leads_to(&table, &format!("GET {}", "/x".repeat(65))), "404");
    assert_eq!(leads_to(&table, &format!("GET /{}", "x".repeat(65_536))), "404");
}

/// Templates that are none: the column and the whole text.
const NO_TEMPLATES: &[(&str, usize, &str)] = &[
    ("", 1, "a path template begins with `/`"),
    ("a", 1, "a path template begins with `/`"),
    ("//", 2, "expected a segment: text, `*`, `**` or `{field}`"),
    ("/a/", 4, "expected a segment: text, `*`, `**` or `{field}`"),
    ("/:go", 2, "expected a segment: text, `*`, `**` or `{field}`"),
    ("/a:", 4, "expected a verb behind `:`"),
    ("/a:go/b", 6, "a verb is the last thing of a template, and plain text"),
    ("/a:go:stop", 6, "a verb is the last thing of a template, and plain text"),
    ("/a:g%6F", 5, "a verb is the last thing of a template, and plain text"),
    ("/a:{b}", 4, "a verb is the last thing of a template, and plain text"),
    ("/a b", 3, "white space, `?`, `#` and `%` cannot stand in a literal segment"),
    ("/a?b=1", 3, "white space, `?`, `#` and `%` cannot stand in a literal segment"),
    ("/caf%C3%A9", 5, "white space, `?`, `#` and `%` cannot stand in a literal segment"),
    ("/a/../b", 4, "`.` and `..` are no segments of a path"),
    ("/./a", 2, "`.` and `..` are no segments of a path"),
    ("/a*", 3, "unexpected `*`"),
    ("/***", 4, "unexpected `*`"),
    ("/*a", 3, "unexpected `a`"),
    ("/**/**", 5, "`**` can stand only once in a template"),
    ("/{a=**}/{b=**}", 12, "`**` can stand only once in a template"),
    ("/a}", 3, "unexpected `}`"),
    ("/{a}b", 5, "unexpected `b`"),
    ("/b{a}", 3, "unexpected `{`"),
    ("/{}", 3, "expected a field path such as `player.id` behind `{`"),
    ("/{.a}", 3, "expected a field path such as `player.id` behind `{`"),
    ("/{a.}", 3, "expected a field path such as `player.id` behind `{`"),
    ("/{1a}", 3, "expected a field path such as `player.id` behind `{`"),
    ("/{a", 4, "expected `}`, the end of the variable that began in column 2"),
    ("/{a-b}", 4, "expected `}`, the end of the variable that began in column 2"),
    ("/{a=}", 5, "expected a segment: text, `*`, `**` or `{field}`"),
    ("/{a={b}}", 5, "a variable cannot stand inside another"),
    ("/{a=x:go}", 6, "expected `}`, the end of the variable that began in column 2"),
    ("/{a}/{a}", 7, "the variable `a` stands twice in this template"),
];

#[test]
fn each_mistake_of_a_template_has_its_column_and_text() {
    for (template, column, text) in NO_TEMPLATES {
        let error = PathTemplate::parse(template).map(|_| template).unwrap_err();
        assert_eq!((error.column, error.text.as_str()), (*column, *text), "{template}");
    }
    let deep = "/x".repeat(65);
    let error = PathTemplate::parse(&deep).unwrap_err();
    assert_eq!(error.to_string(), "column 130: more than 64 segments, the most that a path has");
    assert!(PathTemplate::parse(&deep[2..]).is_ok());
    let error = PathTemplate::parse(&format!("/{}", "x".repeat(1_024))).unwrap_err();
    assert_eq!(error.to_string(), "column 1025: longer than 1024 bytes");
}

/// Rows that the same requests would reach, and which two are named.
#[test]
fn routes_for_the_same_requests_are_refused_by_name() {
    for (one, other) in [
        ("GET /a/b", "GET /a/b"),
        ("GET /a/b", "GET /a/{a=b}"),
        ("GET /a/*", "GET /a/{b}"),
        ("GET /{a=x/*}/y", "GET /x/{b}/{a=y}"),
        ("GET /a/{a=**}", "GET /a/**"),
        ("GET /{a=x/**}/y", "GET /x/**/y"),
        ("POST /a:go", "POST /{a=a}:go"),
        ("* /a", "* /a"),
    ] {
        let routes = format!(
            "routes:\n  - {{ route: '{one}', call: t.v1.Things/Get }}\n  - {{ route: '{other}', call: t.v1.Things/Get }}\n"
        );
        let problems = support::material(&routes, PROTO).build(None).unwrap_err();
        let said: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.place, p.message)).collect();
        let expected = format!("routes.yaml:3:14: `{other}` takes the same requests as `{one}` (routes.yaml:2:14)");
        assert_eq!(said, [expected]);
    }
}

#[test]
fn annotations_bring_their_additional_bindings_and_custom_verbs() {
    let proto = r#"syntax = "proto3";
package t.v1;
import "google/api/annotations.proto";
message Ask { string a = 1; }
message Answer { string a = 1; }
service Things {
  rpc Get(Ask) returns (Answer) {
    option (google.api.http) = {
      get: "/v1/{a=things/*}"
      additional_bindings { custom { kind: "LOCK" path: "/v1/{a}:lock" } }
      additional_bindings { post: "/v1/get" body: "*" }
      additional_bindings { custom { kind: "*" path: "/any/{a}" } }
    };
  }
}
"#;
    let snapshot = snapshot("annotations: [ { services: ['*'] } ]\n", proto);
    for (request, template) in [
        ("GET /v1/things/1", "/v1/{a=things/*}"),
        ("LOCK /v1/x:lock", "/v1/{a}:lock"),
        ("POST /v1/get", "/v1/get"),
        ("PATCH /any/x", "/any/{a}"),
    ] {
        let (verb, path) = request.split_once(' ').unwrap();
        let Lookup::Found(id) = snapshot.tree.find(verb, path, &Segments::split(path).unwrap()) else {
            panic!("{request} leads nowhere")
        };
        assert_eq!(&*snapshot.route(id).template, template, "{request}");
    }
}

/// A template in the plainest form that the naive matcher works on.
#[derive(Clone, Debug)]
struct Naive {
    verb: &'static str,
    segments: Vec<&'static str>,
    custom: Option<&'static str>,
}

impl Naive {
    fn template(&self) -> String {
        let verb = self.custom.map(|custom| format!(":{custom}")).unwrap_or_default();
        format!("/{}{verb}", self.segments.join("/"))
    }

    fn fits(&self, path: &[&str], custom: Option<&str>) -> bool {
        fn fit(segments: &[&str], path: &[&str]) -> bool {
            match (segments, path) {
                ([], path) => path.is_empty(),
                (["**", rest @ ..], path) => fit(rest, path) || !path.is_empty() && fit(segments, &path[1..]),
                ([first, rest @ ..], [text, behind @ ..]) => (*first == "*" || first == text) && fit(rest, behind),
                _ => false,
            }
        }
        self.custom == custom && fit(&self.segments, path)
    }

    /// Less is tried earlier: the path's end, literal, `*`, `**`; behind `**` the longer tail.
    fn rank(&self) -> Vec<usize> {
        let kind = |segment: &&str| match *segment {
            "*" => 2,
            "**" => 3,
            _ => 1,
        };
        let mut rank: Vec<usize> = self.segments.iter().map(kind).collect();
        if let Some(many) = rank.iter().position(|kind| *kind == 3) {
            rank.insert(many + 1, 100 - (self.segments.len() - many));
        }
        rank.push(0);
        rank
    }
}

/// The same answer as the tree's, by trying every template.
fn naive(table: &[Naive], verb: &str, path: &[&str]) -> Lookup {
    let choose = |path: &[&str], custom: Option<&str>| -> Option<Lookup> {
        let fitting: Vec<(usize, &Naive)> =
            table.iter().enumerate().filter(|(_, route)| route.fits(path, custom)).collect();
        let takes = |route: &Naive| match route.verb {
            own if own == verb => Some(0),
            "GET" if verb == "HEAD" => Some(1),
            "*" => Some(2),
            _ => None,
        };
        let best = fitting.iter().filter_map(|(id, route)| Some((route.rank(), takes(route)?, *id))).min();
        match best {
            Some((_, _, id)) => Some(Lookup::Found(RouteId(id as u32))),
            None if fitting.is_empty() => None,
            None => {
                let mut allow: BTreeSet<String> = fitting.iter().map(|(_, route)| route.verb.to_owned()).collect();
                if allow.contains("GET") {
                    allow.insert("HEAD".to_owned());
                }
                Some(Lookup::WrongVerb(allow.into_iter().collect()))
            }
        }
    };
    let with_verb = path.split_last().and_then(|(last, before)| {
        let (head, custom) = last.rsplit_once(':').filter(|(head, _)| !head.is_empty())?;
        choose(&[before, &[head]].concat(), Some(custom))
    });
    with_verb.or_else(|| choose(path, None)).unwrap_or(Lookup::Missing)
}

fn templates() -> impl Strategy<Value = Naive> {
    let verb = prop::sample::select(vec!["GET", "GET", "POST", "HEAD", "*"]);
    let segment = || prop::sample::select(vec!["a", "a", "b", "b", "*", "*"]);
    let many = prop::option::weighted(0.3, prop::collection::vec(segment(), 0..3));
    let custom = prop::option::weighted(0.25, prop::sample::select(vec!["go", "stop"]));
    (verb, prop::collection::vec(segment(), 1..4), many, custom).prop_map(|(verb, mut segments, tail, custom)| {
        if let Some(tail) = tail {
            segments.pop();
            segments.push("**");
            segments.extend(tail);
        }
        Naive { verb, segments, custom }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_agrees_with_trying_every_template(
        table in prop::collection::vec(templates(), 1..14),
        verb in prop::sample::select(vec!["GET", "POST", "HEAD", "PUT"]),
        paths in prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec!["a", "b", "c", "a:go", "b:stop", "c:x", ":go"]), 1..6),
            1..12,
        ),
        is_encoded in any::<bool>(),
    ) {
        let mut tree = Tree::default();
        let mut kept: Vec<Naive> = Vec::new();
        for route in table {
            let template = PathTemplate::parse(&route.template()).unwrap();
            let same = |other: &Naive| (other.verb, &other.segments, other.custom) == (route.verb, &route.segments, route.custom);
            let id = RouteId(kept.len() as u32);
            match tree.insert(route.verb, &template, id) {
                Ok(()) => {
                    prop_assert!(!kept.iter().any(same), "{route:?} stands twice");
                    kept.push(route);
                }
                Err(conflict) => prop_assert!(same(&kept[conflict.with.0 as usize]), "{route:?} is no double"),
            }
        }
        for path in paths {
            let text = format!("/{}", path.join("/"));
            let text = if is_encoded { text.replace('a', "%61").replace('b', "%62") } else { text };
            let segments = Segments::split(&text).unwrap();
            prop_assert_eq!(tree.find(verb, &text, &segments), naive(&kept, verb, &path), "{} {} in {:#?}", verb, text, kept);
        }
    }
}

/// One request as raw bytes, which no client's URL library has put in order; its status line and body.
async fn raw(address: std::net::SocketAddr, path: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", head.split(' ').nth(1).unwrap())
}

#[tokio::test]
async fn no_path_variable_changes_the_subject_on_a_real_server() {
    let server = NatsServer::start_with(&[]);
    let (bus, spy) = (server.bus().await, server.bus().await);
    let snapshot = snapshot(
        "routes:\n  - { route: 'GET /one/{a}', call: t.v1.Things/Get }\n  - { route: 'GET /many/{a=**}', call: t.v1.Things/Get }\n",
        PROTO,
    );
    let subject = snapshot.methods[0].subject.clone();
    let mut everything = spy.subscribe(&Pattern::new(">").unwrap(), None, Limits::WORKER).await.unwrap();
    let mut requests =
        spy.subscribe(&Pattern::new(subject.as_str()).unwrap(), Some("q"), Limits::WORKER).await.unwrap();
    settle(&spy).await;
    let answers = spy.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = requests.next().await {
            let message = Message {
                subject: delivery.reply.unwrap(),
                reply: None,
                headers: Headers::new(),
                payload: delivery.payload,
            };
            answers.publish(message).await.unwrap();
        }
    });
    let (running, _) = gateway(snapshot, &bus, |_| {}).await;
    let mut called = 0;
    for value in [
        "a.b",
        "*",
        ">",
        "%3E",
        "a.%3E",
        "%2A",
        "$SYS",
        "$SYS.REQ.SERVER.PING",
        "_INBOX.x",
        "%2E",
        ".",
        "%2e%2e",
        "a%20b",
        "%09",
        "a%0D%0APUB%20x%201",
        "%00",
        "%C0%AE",
        "%F0%9F%8C%8A",
        "a%2Fb",
        "a%252Eb",
        "%",
        "..%2F..",
        "x;y=z",
        "",
        "a:b",
    ] {
        for path in [format!("/one/{value}"), format!("/many/x/{value}")] {
            let answer = raw(running.local_addr, &path).await;
            match &answer[..3] {
                "200" => called += 1,
                "400" | "404" => {}
                _ => panic!("{path}: {answer}"),
            }
        }
    }
    assert!(called >= 20, "only {called} values went through");
    // A last message of our own behind all others: what was published has been seen when it comes.
    let subject_of_end = Subject::new("test.end").unwrap();
    let end = Message { subject: subject_of_end, reply: None, headers: Headers::new(), payload: Default::default() };
    bus.publish(end).await.unwrap();
    let mut seen = 0;
    loop {
        let delivery = everything.next().await.unwrap().unwrap();
        match delivery.subject.as_str() {
            "test.end" => break,
            own if own == subject.as_str() => seen += 1,
            other => assert!(other.starts_with("_INBOX."), "a message went to `{other}`"),
        }
    }
    assert_eq!(seen, called);
}
