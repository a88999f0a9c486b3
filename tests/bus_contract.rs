//! One contract for every bus: each rule is tested on the embedded one and on a real nats-server.

mod support;

use std::future::Future as _;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use support::nats::NatsServer;
use support::{PATIENCE, eventually, settle};
use tidegate::bus::{
    Branch, Bus, BusError, Delivery, Headers, IN_FLIGHT_MAX, Limits, Message, Pattern, Reply, Request, Status,
    StreamError, Subject, Subscription,
};

/// Runs a rule on each engine.
macro_rules! contract {
    ($($rule:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $rule() {
                super::$rule(&tidegate::bus::Bus::embedded()).await;
            })*
        }
        mod nats {
            $(#[tokio::test]
            async fn $rule() {
                let server = super::NatsServer::start();
                super::$rule(&server.bus().await).await;
            })*
        }
        mod nats_with_a_request_lane {
            $(#[tokio::test]
            async fn $rule() {
                let server = super::NatsServer::start();
                super::$rule(&server.lane_bus().await).await;
            })*
        }
    };
}

contract!(
    a_request_is_answered,
    headers_arrive_as_sent_and_compare_without_case,
    a_request_that_nobody_takes_fails_at_once,
    a_request_without_an_answer_ends_at_its_timeout,
    a_late_reply_hits_nobody,
    a_worker_that_replies_twice_never_answers_another_request,
    replies_that_prove_nothing_are_told_at_the_timeout,
    a_worker_that_floods_a_call_with_replies_harms_no_other,
    ten_thousand_calls_without_a_reply_leave_nothing,
    calls_given_up_leave_nothing,
    more_calls_than_the_cap_are_refused,
    a_queue_group_shares_and_others_get_everything,
    wildcards_take_what_they_should,
    a_stream_comes_in_order,
    a_stream_that_nobody_serves_says_so,
    a_full_stream_ends_with_overflow_behind_what_came,
    a_full_stream_is_full_in_bytes_too,
    a_full_subscription_of_a_worker_counts_and_goes_on,
    dropping_a_stream_ends_its_interest,
    a_worker_hears_on_its_control_subject_that_nobody_listens,
    a_drained_subscription_gives_what_came_and_then_ends,
    what_is_too_large_is_refused_and_the_rest_goes_on,
    a_closed_bus_ends_everything,
    inboxes_have_their_branch_and_never_repeat,
);

fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

fn message(to: &str, payload: impl Into<Bytes>) -> Message {
    Message { subject: subject(to), reply: None, headers: Headers::new(), payload: payload.into() }
}

fn call(to: &str, payload: impl Into<Bytes>, timeout: Duration) -> Request<'static> {
    Request { subject: subject(to), headers: Headers::new(), payload: payload.into(), timeout, proof: None }
}

async fn listen(bus: &Bus, pattern: &str, group: Option<&str>) -> Subscription {
    let subscription = bus.subscribe(&Pattern::new(pattern).unwrap(), group, Limits::WORKER).await.unwrap();
    settle(bus).await;
    subscription
}

async fn next(subscription: &mut Subscription) -> Option<Result<Delivery, StreamError>> {
    tokio::time::timeout(PATIENCE, subscription.next()).await.expect("a message in time")
}

async fn next_payload(subscription: &mut Subscription) -> Bytes {
    next(subscription).await.expect("a message").unwrap().payload
}

/// Answers each message of a subject with the messages that `answer` makes.
async fn worker(bus: &Bus, pattern: &str, mut answer: impl FnMut(Delivery) -> Vec<Message> + Send + 'static) {
    let mut requests = listen(bus, pattern, Some("q")).await;
    let bus = bus.clone();
    tokio::spawn(async move {
        while let Some(Ok(delivery)) = requests.next().await {
            for message in answer(delivery) {
                let _ = bus.publish(message).await;
            }
        }
    });
}

fn reply(to: Subject, payload: impl Into<Bytes>) -> Message {
    Message { subject: to, reply: None, headers: Headers::new(), payload: payload.into() }
}

async fn a_request_is_answered(bus: &Bus) {
    worker(bus, "svc.echo", |delivery| vec![reply(delivery.reply.unwrap(), delivery.payload)]).await;
    for payload in [&b"hello"[..], b"", &[0xff, 0, b'\r', b'\n']] {
        let answer = bus.request(call("svc.echo", payload, PATIENCE)).await.unwrap();
        assert_eq!((answer.payload.as_ref(), answer.mismatches), (payload, 0));
    }
    assert_eq!(bus.figures().pending, 0);
}

async fn headers_arrive_as_sent_and_compare_without_case(bus: &Bus) {
    worker(bus, "svc.echo", |delivery| {
        let mut message = reply(delivery.reply.clone().unwrap(), "");
        message.headers = delivery.headers;
        vec![message]
    })
    .await;
    let mut headers = Headers::new();
    assert!(headers.push("content-type", "application/x-protobuf"));
    assert!(headers.push("Tidegate-Roles", "admin,höher ✓"));
    assert!(headers.push("empty", ""));
    for (name, value) in [("a b", "x"), ("", "x"), ("a:b", "x"), ("a", "x\r\ny: z"), ("a", "x\0"), ("ä", "x")] {
        assert!(!headers.push(name, value), "`{name}: {value}` taken");
    }
    let request = Request { headers: headers.clone(), ..call("svc.echo", "", PATIENCE) };
    let answer = bus.request(request).await.unwrap();
    assert_eq!(answer.headers.iter().count(), 3, "{:?}", answer.headers);
    for (name, value) in headers.iter() {
        assert_eq!(answer.headers.get(&name.to_uppercase()), Some(value));
    }
}

async fn a_request_that_nobody_takes_fails_at_once(bus: &Bus) {
    let start = Instant::now();
    let error = bus.request(call("svc.nobody", "", Duration::from_secs(3600))).await.unwrap_err();
    assert_eq!(error, BusError::NoResponders);
    assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
    assert_eq!(bus.figures().pending, 0);
}

async fn a_request_without_an_answer_ends_at_its_timeout(bus: &Bus) {
    let _silent = listen(bus, "svc.silent", None).await;
    let (start, timeout) = (Instant::now(), Duration::from_millis(100));
    assert_eq!(bus.request(call("svc.silent", "", timeout)).await.unwrap_err(), BusError::Timeout);
    assert!(start.elapsed() >= timeout, "{:?}", start.elapsed());
    let forever = tokio::time::timeout(timeout, bus.request(call("svc.silent", "", Duration::MAX))).await;
    assert!(forever.is_err(), "a request without an end of its own waits");
    assert_eq!(bus.figures().pending, 0);
}

async fn a_late_reply_hits_nobody(bus: &Bus) {
    let mut requests = listen(bus, "svc.slow", None).await;
    let first = bus.request(call("svc.slow", "1", Duration::from_millis(50))).await;
    assert_eq!(first.unwrap_err(), BusError::Timeout);
    let late = next(&mut requests).await.unwrap().unwrap();
    let strays = bus.figures().strays;
    let second = async {
        let request = next(&mut requests).await.unwrap().unwrap();
        bus.publish(reply(late.reply.unwrap(), "late")).await.unwrap();
        bus.publish(reply(request.reply.unwrap(), "in time")).await.unwrap();
    };
    let (answer, ()) = tokio::join!(bus.request(call("svc.slow", "2", PATIENCE)), second);
    assert_eq!(answer.unwrap().payload, "in time");
    assert_eq!(bus.figures().strays, strays + 1);
}

/// With each answer the worker repeats earlier ones: of the call before, and of about as many calls ago as subjects
/// rest. Calls with a proof, whose subjects are used again, and calls without one take turns.
async fn a_worker_that_replies_twice_never_answers_another_request(bus: &Bus) {
    let mut earlier = std::collections::VecDeque::new();
    worker(bus, "svc.twice", move |delivery| {
        let answer = reply(delivery.reply.unwrap(), delivery.payload);
        let mut all: Vec<Message> = [0, 1, 500, 511, 512, 513, 514]
            .iter()
            .filter_map(|ago| earlier.len().checked_sub(ago + 1).map(|index| Message::clone(&earlier[index])))
            .collect();
        all.push(answer.clone());
        all.push(answer.clone());
        earlier.push_back(answer);
        if earlier.len() > 600 {
            earlier.pop_front();
        }
        all
    })
    .await;
    for number in 0..4_000u32 {
        let payload = number.to_string();
        let is_mine = |reply: &Reply| reply.payload == payload.as_bytes();
        let mut request = call("svc.twice", payload.clone(), PATIENCE);
        // Subjects rest for 512 calls: 5 divides no such distance, so that both kinds follow each other on a subject.
        if number % 5 != 0 {
            request.proof = Some(&is_mine);
        }
        let answer = bus.request(request).await.unwrap();
        assert_eq!(answer.payload, payload, "call {number} got the answer of another");
    }
    assert_eq!(bus.figures().pending, 0);
}

async fn replies_that_prove_nothing_are_told_at_the_timeout(bus: &Bus) {
    worker(bus, "svc.other", |delivery| {
        let to = delivery.reply.unwrap();
        vec![reply(to.clone(), "no"), reply(to, "neither")]
    })
    .await;
    let request = Request { proof: Some(&|_| false), ..call("svc.other", "", Duration::from_millis(300)) };
    assert_eq!(bus.request(request).await.unwrap_err(), BusError::Unproven(2));
    assert_eq!(bus.figures().pending, 0);
}

async fn a_worker_that_floods_a_call_with_replies_harms_no_other(bus: &Bus) {
    worker(bus, "svc.flood", |delivery| {
        let to = delivery.reply.unwrap();
        (0..10_000).map(|_| reply(to.clone(), "again")).collect()
    })
    .await;
    worker(bus, "svc.echo", |delivery| vec![reply(delivery.reply.unwrap(), delivery.payload)]).await;
    assert_eq!(bus.request(call("svc.flood", "", PATIENCE)).await.unwrap().payload, "again");
    for number in 0..100u32 {
        let payload = number.to_string();
        let answer = bus.request(call("svc.echo", payload.clone(), PATIENCE)).await.unwrap();
        assert_eq!(answer.payload, payload);
    }
    assert_eq!(bus.figures().pending, 0);
}

async fn ten_thousand_calls_without_a_reply_leave_nothing(bus: &Bus) {
    let _silent = listen(bus, "svc.silent", None).await;
    let calls = (0..10_000).map(|_| bus.request(call("svc.silent", "", Duration::from_millis(500))));
    for result in join_all(calls).await {
        assert_eq!(result.unwrap_err(), BusError::Timeout);
    }
    assert_eq!(bus.figures().pending, 0);
}

async fn calls_given_up_leave_nothing(bus: &Bus) {
    let mut requests = listen(bus, "svc.slow", None).await;
    for _ in 0..100 {
        let given_up = tokio::time::timeout(Duration::from_millis(1), bus.request(call("svc.slow", "", PATIENCE)));
        assert!(given_up.await.is_err());
    }
    assert_eq!(bus.figures().pending, 0);
    // Their answers come now, and hit nobody.
    worker(bus, "svc.echo", |delivery| vec![reply(delivery.reply.unwrap(), delivery.payload)]).await;
    bus.publish(message("svc.slow", "last")).await.unwrap();
    while let Some(Ok(Delivery { reply: Some(to), .. })) = next(&mut requests).await {
        bus.publish(reply(to, "too late")).await.unwrap();
    }
    assert_eq!(bus.request(call("svc.echo", "mine", PATIENCE)).await.unwrap().payload, "mine");
}

async fn more_calls_than_the_cap_are_refused(bus: &Bus) {
    let _silent = listen(bus, "svc.silent", None).await;
    let mut calls: Vec<_> =
        (0..IN_FLIGHT_MAX).map(|_| Box::pin(bus.request(call("svc.silent", "", PATIENCE)))).collect();
    for call in &mut calls {
        std::future::poll_fn(|context| {
            assert!(call.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }
    assert_eq!(bus.figures().pending, IN_FLIGHT_MAX as u64);
    assert_eq!(bus.request(call("svc.silent", "", PATIENCE)).await.unwrap_err(), BusError::Busy);
    drop(calls);
    assert_eq!(bus.figures().pending, 0);
    assert_eq!(bus.request(call("svc.nobody", "", PATIENCE)).await.unwrap_err(), BusError::NoResponders);
}

async fn a_queue_group_shares_and_others_get_everything(bus: &Bus) {
    let mut members = [listen(bus, "svc.work", Some("q")).await, listen(bus, "svc.*", Some("q")).await];
    let mut other_group = listen(bus, "svc.work", Some("audit")).await;
    let mut alone = listen(bus, "svc.work", None).await;
    const COUNT: usize = 1_000;
    for number in 0..COUNT {
        bus.publish(message("svc.work", number.to_string())).await.unwrap();
    }
    for number in 0..COUNT {
        assert_eq!(next_payload(&mut alone).await, number.to_string());
        assert_eq!(next_payload(&mut other_group).await, number.to_string());
    }
    let mut shares = [0, 0];
    let mut seen = std::collections::HashSet::new();
    while seen.len() < COUNT {
        let [one, two] = &mut members;
        let (index, delivery) = tokio::select! {
            delivery = next(one) => (0, delivery),
            delivery = next(two) => (1, delivery),
        };
        shares[index] += 1;
        assert!(seen.insert(delivery.unwrap().unwrap().payload), "one message, two members");
    }
    assert!(shares.iter().all(|share| *share > COUNT / 4), "{shares:?}");
}

async fn wildcards_take_what_they_should(bus: &Bus) {
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("t.a", &["t.a"], &["t.b", "t.a.b", "t.A"]),
        ("t.*", &["t.a", "t.b", "t.A"], &["t.a.b"]),
        ("t.>", &["t.a", "t.b", "t.a.b", "t.A"], &[]),
        ("t.*.b", &["t.a.b"], &["t.a"]),
        ("*.a.*", &["t.a.b"], &["t.a"]),
    ];
    for (pattern, taken, left) in rows {
        let mut subscription = listen(bus, pattern, None).await;
        for subject in taken.iter().chain(*left) {
            assert_eq!(Pattern::new(*pattern).unwrap().matches(subject), taken.contains(subject));
            bus.publish(message(subject, subject.to_string())).await.unwrap();
        }
        for subject in *taken {
            let delivery = next(&mut subscription).await.unwrap().unwrap();
            assert_eq!((delivery.subject.as_str(), delivery.payload.as_ref()), (*subject, subject.as_bytes()));
        }
        // Messages of one connection arrive in order: behind the drain nothing is on its way.
        bus.flush().await.unwrap();
        subscription.drain();
        assert!(next(&mut subscription).await.is_none(), "`{pattern}` took too much");
    }
}

async fn a_stream_comes_in_order(bus: &Bus) {
    worker(bus, "svc.count", |delivery| {
        let to = delivery.reply.unwrap();
        (0..200).map(|number: u32| reply(to.clone(), number.to_string())).collect()
    })
    .await;
    let mut stream = bus.open_stream(subject("svc.count"), Headers::new(), Bytes::new(), Limits::STREAM).await.unwrap();
    for number in 0..200u32 {
        assert_eq!(next_payload(&mut stream).await, number.to_string());
    }
    assert_eq!(stream.dropped(), 0);
}

async fn a_stream_that_nobody_serves_says_so(bus: &Bus) {
    let mut stream =
        bus.open_stream(subject("svc.nobody"), Headers::new(), Bytes::new(), Limits::STREAM).await.unwrap();
    let delivery = next(&mut stream).await.unwrap().unwrap();
    assert!(delivery.is_no_responders && delivery.payload.is_empty(), "{delivery:?}");
}

async fn a_full_stream_ends_with_overflow_behind_what_came(bus: &Bus) {
    let limits = Limits { messages: 10, ..Limits::STREAM };
    let mut stream = bus.subscribe(&Pattern::new("feed").unwrap(), None, limits).await.unwrap();
    for number in 0..100u32 {
        bus.publish(message("feed", number.to_string())).await.unwrap();
    }
    eventually("the drop is counted", async || bus.figures().dropped > 0).await;
    for number in 0..10u32 {
        assert_eq!(next_payload(&mut stream).await, number.to_string());
    }
    assert_eq!(next(&mut stream).await.unwrap().unwrap_err(), StreamError::Overflow);
    assert!(next(&mut stream).await.is_none());
    assert_eq!(stream.dropped(), 1);
}

async fn a_full_stream_is_full_in_bytes_too(bus: &Bus) {
    let limits = Limits { bytes: 1_000, ..Limits::STREAM };
    let mut stream = bus.subscribe(&Pattern::new("feed").unwrap(), None, limits).await.unwrap();
    for _ in 0..3 {
        bus.publish(message("feed", vec![0; 400])).await.unwrap();
    }
    eventually("the drop is counted", async || bus.figures().dropped > 0).await;
    assert_eq!(next_payload(&mut stream).await.len(), 400);
    assert_eq!(next_payload(&mut stream).await.len(), 400);
    assert_eq!(next(&mut stream).await.unwrap().unwrap_err(), StreamError::Overflow);
}

async fn a_full_subscription_of_a_worker_counts_and_goes_on(bus: &Bus) {
    let limits = Limits { messages: 10, ..Limits::WORKER };
    let mut requests = bus.subscribe(&Pattern::new("svc.work").unwrap(), None, limits).await.unwrap();
    for number in 0..100u32 {
        bus.publish(message("svc.work", number.to_string())).await.unwrap();
    }
    eventually("the drops are counted", async || bus.figures().dropped == 90).await;
    assert_eq!(requests.dropped(), 90);
    for number in 0..10u32 {
        assert_eq!(next_payload(&mut requests).await, number.to_string());
    }
    bus.publish(message("svc.work", "again")).await.unwrap();
    assert_eq!(next_payload(&mut requests).await, "again");
}

async fn dropping_a_stream_ends_its_interest(bus: &Bus) {
    let mut requests = listen(bus, "svc.count", None).await;
    let stream = bus.open_stream(subject("svc.count"), Headers::new(), Bytes::new(), Limits::STREAM).await.unwrap();
    let inbox = next(&mut requests).await.unwrap().unwrap().reply.unwrap();
    drop(stream);
    eventually("nobody listens to the inbox", async || {
        let probe = Request { subject: inbox.clone(), ..call("x", "", Duration::from_millis(200)) };
        bus.request(probe).await.is_err_and(|error| error == BusError::NoResponders)
    })
    .await;
}

async fn a_worker_hears_on_its_control_subject_that_nobody_listens(bus: &Bus) {
    let control = bus.new_inbox(Branch::Control);
    let mut told = bus.subscribe(&control.clone().into(), None, Limits::STREAM).await.unwrap();
    let caller = bus.new_inbox(Branch::Reply);
    let mut chunks = bus.subscribe(&caller.clone().into(), None, Limits::STREAM).await.unwrap();
    bus.flush().await.unwrap();
    let chunk = Message { reply: Some(control.clone()), ..reply(caller.clone(), "chunk") };
    bus.publish(chunk.clone()).await.unwrap();
    // Somebody listens: the caller's own word is the first thing on the control subject.
    assert_eq!(next(&mut chunks).await.unwrap().unwrap().reply, Some(control.clone()));
    bus.publish(reply(control.clone(), "credit")).await.unwrap();
    let credit = next(&mut told).await.unwrap().unwrap();
    assert!(credit.payload == "credit" && !credit.is_no_responders);
    chunks.drain();
    while next(&mut chunks).await.is_some() {}
    drop(chunks);
    bus.flush().await.unwrap();
    bus.publish(chunk).await.unwrap();
    let end = next(&mut told).await.unwrap().unwrap();
    assert!(end.is_no_responders && end.subject == control, "{end:?}");
}

async fn a_drained_subscription_gives_what_came_and_then_ends(bus: &Bus) {
    let mut requests = listen(bus, "svc.work", None).await;
    for number in 0..5u32 {
        bus.publish(message("svc.work", number.to_string())).await.unwrap();
    }
    bus.flush().await.unwrap();
    requests.drain();
    for number in 0..5u32 {
        assert_eq!(next_payload(&mut requests).await, number.to_string());
    }
    assert!(next(&mut requests).await.is_none());
    assert_eq!(bus.request(call("svc.work", "", PATIENCE)).await.unwrap_err(), BusError::NoResponders);
}

async fn what_is_too_large_is_refused_and_the_rest_goes_on(bus: &Bus) {
    let mut all = listen(bus, "svc.work", None).await;
    let max = bus.max_payload();
    let too_large = BusError::TooLarge { size: max + 1, max };
    assert_eq!(bus.publish(message("svc.work", vec![0; max + 1])).await.unwrap_err(), too_large);
    assert_eq!(bus.request(call("svc.work", vec![0; max + 1], PATIENCE)).await.unwrap_err(), too_large);
    let mut headers = Headers::new();
    assert!(headers.push("message-type", "quest.v1.Quest"));
    let room = max - headers.size();
    let with_headers = |size| Message { headers: headers.clone(), ..message("svc.work", vec![0; size]) };
    assert_eq!(bus.publish(with_headers(room + 1)).await.unwrap_err(), too_large);
    bus.publish(with_headers(room)).await.unwrap();
    bus.publish(message("svc.work", vec![0; max])).await.unwrap();
    assert_eq!(next_payload(&mut all).await.len(), room);
    assert_eq!(next_payload(&mut all).await.len(), max);
    assert_eq!(bus.figures().reconnects, 0);
}

async fn a_closed_bus_ends_everything(bus: &Bus) {
    let mut silent = listen(bus, "svc.silent", None).await;
    let closing = async {
        assert!(next(&mut silent).await.unwrap().is_ok());
        bus.close().await;
    };
    let (waiting, ()) = tokio::join!(bus.request(call("svc.silent", "", PATIENCE)), closing);
    assert_eq!(waiting.unwrap_err(), BusError::Closed);
    assert!(next(&mut silent).await.is_none());
    assert_eq!(*bus.status().borrow(), Status::Closed);
    assert_eq!(bus.request(call("svc.silent", "", PATIENCE)).await.unwrap_err(), BusError::Closed);
    assert_eq!(bus.publish(message("svc.silent", "")).await.unwrap_err(), BusError::Closed);
    assert_eq!(bus.flush().await.unwrap_err(), BusError::Closed);
    let pattern = Pattern::new("svc.>").unwrap();
    assert_eq!(bus.subscribe(&pattern, None, Limits::WORKER).await.err(), Some(BusError::Closed));
    assert_eq!(bus.figures().pending, 0);
}

async fn inboxes_have_their_branch_and_never_repeat(bus: &Bus) {
    for (branch, token) in [(Branch::Reply, "r"), (Branch::Control, "c")] {
        let (one, two) = (bus.new_inbox(branch), bus.new_inbox(branch));
        assert_ne!(one, two);
        let tokens: Vec<&str> = one.as_str().split('.').collect();
        assert!(tokens.len() == 4 && tokens[0] == "_INBOX" && tokens[2] == token, "{one}");
    }
}
