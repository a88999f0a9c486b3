//! HTTP/2 by prior knowledge: many requests on one connection, and what it refuses.

mod support;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{gateway, project};
use tidegate::bus::Bus;
use tidegate::gateway::Running;
use tokio::net::TcpStream;

async fn connect(running: &Running) -> SendRequest<Full<Bytes>> {
    let socket = TcpStream::connect(running.local_addr).await.unwrap();
    let (client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn request(uri: &str) -> hyper::Request<Full<Bytes>> {
    hyper::Request::post(uri).header("content-type", "application/json").body(Full::from("{}")).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection_and_each_gets_its_answer() {
    let (running, _) = gateway(project().build(None).unwrap(), &Bus::embedded(), |_| {}).await;
    let client = connect(&running).await;
    let calls = (0..50).map(|number| {
        let mut client = client.clone();
        async move {
            let path = if number % 2 == 0 { "/quest/generate" } else { "/nowhere" };
            let answer = client.send_request(request(&format!("http://edge{path}"))).await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (number, status, String::from_utf8(body.to_vec()).unwrap())
        }
    });
    for (number, status, body) in futures_util::future::join_all(calls).await {
        let (wanted, reason) = if number % 2 == 0 { (503, "no_responders") } else { (404, "route_not_found") };
        assert_eq!(status, wanted, "{body}");
        assert!(body.contains(reason), "{body}");
    }
}

#[tokio::test]
async fn draining_ends_the_connection_after_its_answers() {
    let (running, _) = gateway(project().build(None).unwrap(), &Bus::embedded(), |_| {}).await;
    let mut client = connect(&running).await;
    assert_eq!(client.send_request(request("http://edge/nowhere")).await.unwrap().status(), 404);
    assert_eq!(running.drain(support::PATIENCE).await, 0);
    assert!(client.send_request(request("http://edge/nowhere")).await.is_err());
}
