//! A source of somebody's own, built on nothing but the public API: a table that an HTTP server hands out, fetched every
//! few milliseconds. `docs/fleet.md` shows the part between the marks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidegate::snapshot::problem::{Place, Problem};
use tidegate::snapshot::{Changes, Live, Material, Rules, Source, watch};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

// [docs]
/// A table that a URL gives: fetched by a task of its own, handed out as it was fetched last.
struct Polled {
    newest: Mutex<Result<Material, Vec<Problem>>>,
    changes: tokio::sync::watch::Sender<u64>,
}

impl Polled {
    /// Fetches once, then every `pause` until nobody holds the source any more.
    async fn start(url: String, descriptors: Vec<tidegate::schema::SourceFile>, pause: Duration) -> Arc<Polled> {
        let fetch = async move || -> Result<Material, Vec<Problem>> {
            let answer = async { reqwest::get(&url).await?.error_for_status()?.text().await };
            let problem = |error| vec![Problem::new(Place::new(&url, 1, 1), format!("cannot be fetched: {error}"))];
            let routes = answer.await.map_err(problem)?;
            let descriptors = descriptors.clone();
            Ok(Material { routes_name: url.clone(), routes, descriptors, ..Material::default() })
        };
        let source = Polled { newest: Mutex::new(fetch().await), changes: tokio::sync::watch::Sender::new(0) };
        let source = Arc::new(source);
        let weak = Arc::downgrade(&source);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let fetched = fetch().await;
                let Some(source) = weak.upgrade() else { return };
                *source.newest.lock().unwrap() = fetched;
                source.changes.send_modify(|count| *count += 1);
            }
        });
        source
    }
}

impl Source for Polled {
    fn read(&self) -> Result<Material, Vec<Problem>> {
        self.newest.lock().unwrap().clone()
    }

    fn changes(&self) -> Changes {
        // What was fetched is whole, so it is built at once; where nothing has changed, nothing is built.
        Changes::Counted(self.changes.subscribe())
    }
}
// [docs]

const PROTO: &str = r#"syntax = "proto3";
package t.v1;
message Ask { string id = 1; }
service Things { rpc Get(Ask) returns (Ask); }
"#;

/// A server that hands out a text; 404 while there is none. Gives its URL.
async fn server(text: Arc<Mutex<Option<String>>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/routes.yaml", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = socket.read(&mut head).await;
            let text = text.lock().unwrap().clone();
            let (status, body) = text.map_or(("404 Not Found", String::new()), |text| ("200 OK", text));
            let answer =
                format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    url
}

fn table(path: &str) -> Option<String> {
    Some(format!("routes: [ {{ route: GET {path}, call: t.v1.Things/Get }} ]\n"))
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let all = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap_or_else(|_| panic!("{what}"));
}

#[test]
fn the_page_shows_this_source() {
    let shown = include_str!("third_party_source.rs").split("// [docs]\n").nth(1).unwrap();
    assert!(include_str!("../docs/fleet.md").contains(shown));
}

#[tokio::test]
async fn a_table_over_http_is_followed_and_an_outage_keeps_the_last_one() {
    let text = Arc::new(Mutex::new(table("/a")));
    let url = server(text.clone()).await;
    let descriptors = vec![tidegate::schema::SourceFile { name: "t.proto".to_owned(), bytes: PROTO.into() }];
    let source = Polled::start(url.clone(), descriptors, Duration::from_millis(5)).await;
    let first = source.read().unwrap();
    let live = Live::new(first.build(None).unwrap());
    let outcome = watch(live.clone(), source, first, Rules::default());
    let serves = |path: &str| *live.pin().routes[0].template == *path;
    assert!(serves("/a"));
    *text.lock().unwrap() = table("/b");
    eventually("/b is served", || serves("/b")).await;
    *text.lock().unwrap() = None;
    eventually("the outage is told", || outcome.borrow().is_stale).await;
    assert!(outcome.borrow().report.contains("cannot be fetched: HTTP status client error (404 Not Found)"));
    assert_eq!((outcome.borrow().in_force.as_str(), serves("/b")), (url.as_str(), true));
    *text.lock().unwrap() = table("/c");
    eventually("/c is served", || serves("/c")).await;
    assert!(!outcome.borrow().is_stale);
    assert_eq!(live.pin().generation, 3, "what has not changed is not built again");
}
