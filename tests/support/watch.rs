//! A watch with a resume point, over GET: the schema, its route, and a worker that has every revision for ever.

use tidegate::bus::{Bus, Delivery, Headers, Message};

pub const SUBJECT: &str = "watch.v1.WatchService.Watch";

pub const PROTO: &str = r#"
syntax = "proto3";
package watch.v1;
message WatchRequest { string name = 1; uint64 after_revision = 2; }
message Item { uint64 index = 2; bool is_final = 3; uint64 revision = 4; string text = 5; }
service WatchService {
  rpc Watch(WatchRequest) returns (stream Item);
}
"#;

pub const ROUTES: &str = r#"
version: 1
styles:
  watch:
    chunk: { index: index, last: is_final, id: revision }
defaults: { style: watch }
routes:
  - route: GET /watch/{name}
    call: watch.v1.WatchService/Watch
    headers_in: { Last-Event-ID: after_revision }
"#;

/// An item; index and revision below 128.
pub fn item(index: u8, revision: u8, is_final: bool) -> Vec<u8> {
    let index = if index == 0 { vec![] } else { vec![0x10, index] };
    [index, if is_final { vec![0x18, 1] } else { vec![] }, vec![0x20, revision, 0x2a, 2, b'h', b'i']].concat()
}

/// The revision that a request wants to go on behind.
pub fn after(request: &Delivery) -> u8 {
    request.payload.iter().rposition(|byte| *byte == 0x10).map_or(0, |at| request.payload[at + 1])
}

/// Sends an item to whoever asked.
pub async fn send(bus: &Bus, request: &Delivery, item: Vec<u8>) {
    let subject = request.reply.clone().unwrap();
    let message = Message { subject, reply: None, headers: Headers::new(), payload: item.into() };
    bus.publish(message).await.unwrap();
}
