//! A closed-loop HTTP/1.1 load: a fixed number of keep-alive connections, one request in flight on each.

#![allow(dead_code, reason = "each bench uses its part")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Keep-alive connections to one server.
pub struct Load {
    connections: Vec<Connection>,
    request: Vec<u8>,
}

struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Load {
    /// Opens `count` connections for POSTs of `body` to `path`.
    pub async fn open(address: SocketAddr, count: usize, path: &str, body: &str) -> Load {
        let request = post(address, path, body);
        let mut connections = Vec::new();
        for _ in 0..count {
            let socket = TcpStream::connect(address).await.expect("the server accepts");
            socket.set_nodelay(true).expect("nodelay");
            connections.push(Connection { socket, buffer: Vec::with_capacity(16 * 1024) });
        }
        Load { connections, request: request.into_bytes() }
    }

    /// Sends `each` requests on every connection and checks that each is answered 200; the last body of all.
    pub async fn run(&mut self, each: usize) -> Vec<u8> {
        let request = &self.request;
        let rounds = self.connections.iter_mut().map(|connection| async move {
            let mut last = Vec::new();
            for _ in 0..each {
                last = connection.call(request).await;
            }
            last
        });
        futures_util::future::join_all(rounds).await.pop().unwrap_or_default()
    }
}

/// Waits until a request is answered 200, as it is once everything behind the server is connected, too.
pub async fn wait_for_answer(address: SocketAddr, request: &str) {
    for _ in 0..1_000 {
        let mut answer = Vec::new();
        if let Ok(mut socket) = TcpStream::connect(address).await
            && socket.write_all(request.as_bytes()).await.is_ok()
            && socket.read_buf(&mut answer).await.is_ok()
            && answer.starts_with(b"HTTP/1.1 200 ")
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("http://{address} does not answer 200 after 20 s: {request}");
}

/// A POST of JSON.
pub fn post(address: SocketAddr, path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

impl Connection {
    async fn call(&mut self, request: &[u8]) -> Vec<u8> {
        self.socket.write_all(request).await.expect("the server reads");
        self.buffer.clear();
        loop {
            let read = self.socket.read_buf(&mut self.buffer).await.expect("the server answers");
            assert!(read > 0, "the server closed: {}", String::from_utf8_lossy(&self.buffer));
            if let Some(body) = whole_body(&self.buffer) {
                return body;
            }
        }
    }
}

/// The body, once the whole answer is there; panics on any status but 200.
fn whole_body(answer: &[u8]) -> Option<Vec<u8>> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_end]).expect("an ASCII head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{}", String::from_utf8_lossy(answer));
    let length: usize = head
        .lines()
        .find_map(|line| line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")))
        .and_then(|(_, value)| value.trim().parse().ok())
        .expect("a content-length");
    answer.get(head_end..head_end + length).map(<[u8]>::to_vec)
}
