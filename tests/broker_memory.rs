//! What requests with inboxes that are used once leave behind in a nats-server: nothing.

mod support;

use std::time::Duration;

use futures_util::StreamExt as _;
use support::nats::NatsServer;
use support::{PATIENCE, eventually, settle};
use tidegate::bus::{Bus, Headers, Limits, Message, Pattern, Request, Subject};

/// Requests in flight at once.
const AT_ONCE: usize = 256;

/// How many requests are made: `TIDEGATE_REQUESTS=1000000` for the long form.
fn count() -> usize {
    std::env::var("TIDEGATE_REQUESTS").map_or(50_000, |count| count.parse().expect("TIDEGATE_REQUESTS is a number"))
}

async fn echo(bus: &Bus) {
    let mut requests = bus.subscribe(&Pattern::new("svc.echo").unwrap(), None, Limits::WORKER).await.unwrap();
    settle(bus).await;
    let bus = bus.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = requests.next().await {
            let subject = delivery.reply.unwrap();
            let message = Message { subject, reply: None, headers: Headers::new(), payload: delivery.payload };
            let _ = bus.publish(message).await;
        }
    });
}

/// Makes requests; none of them proves its reply, so that each has an inbox of its own.
async fn ask(bus: &Bus, count: usize) {
    let calls = (0..count).map(|number| async move {
        let payload = number.to_string();
        let request = Request {
            subject: Subject::new("svc.echo").unwrap(),
            headers: Headers::new(),
            payload: payload.clone().into(),
            timeout: PATIENCE,
            proof: None,
        };
        assert_eq!(bus.request(request).await.unwrap().payload, payload);
    });
    futures_util::stream::iter(calls).buffer_unordered(AT_ONCE).for_each(std::future::ready).await;
}

/// Bytes and subscriptions that the server holds.
async fn held(server: &NatsServer) -> (u64, u64) {
    let said = server.monitored("/varz").await.unwrap();
    (said["mem"].as_u64().unwrap(), said["subscriptions"].as_u64().unwrap())
}

/// The same, once its garbage collector has had time: the lowest of a second.
async fn least_held(server: &NatsServer) -> (u64, u64) {
    let mut least = held(server).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        least = least.min(held(server).await);
    }
    least
}

async fn requests_leave_nothing(bus: Bus, server: &NatsServer) {
    let count = count();
    echo(&server.bus().await).await;
    // A server that has never worked grows to its working size first.
    ask(&bus, count / 5).await;
    let (before, subscriptions) = least_held(server).await;
    ask(&bus, count).await;
    let (after, subscriptions_after) = least_held(server).await;
    println!("{count} requests: {} KiB before, {} KiB after", before / 1024, after / 1024);
    // Even 100 bytes a request would be 4.8 MiB here, and 95 MiB in the long form.
    let allowed = 4 * 1024 * 1024;
    assert!(after < before + allowed, "{count} requests: {before} bytes before, {after} after");
    assert_eq!(subscriptions_after, subscriptions);
    assert_eq!(bus.figures().pending, 0);
    drop(bus);
    eventually("its connections are gone", async || server.connections().await == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_leave_nothing_in_the_server() {
    let server = NatsServer::start_with(&[]);
    requests_leave_nothing(server.bus().await, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_the_lane_leave_nothing_in_the_server() {
    let server = NatsServer::start_with(&[]);
    requests_leave_nothing(server.lane_bus().await, &server).await;
}
