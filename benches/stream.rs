//! Memory of an open event stream and CPU of an event, at a thousand streams and at ten thousand: a gateway process on a
//! real nats-server, a worker that sends each stream its chunks, and as many HTTP/1.1 connections that read them.
//!
//! The gateway runs alone on core 0; clients, worker and nats-server share core 1.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use prost::Message as _;
use tidegate_floor::bench::Tick;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::process::{Program, gateway_arguments, pin, raise_open_files};
use crate::support::service::Service;
use crate::support::{self as bench, Goal, Ratio, Report, load};
use crate::system::nats::NatsServer;

const SUBJECT: &str = "svc.bench.v1.ticks";
const ROUTES: &str = include_str!("stream-routes.yaml");
/// Streams that are opened at the same time.
const OPENING: usize = 64;
/// Files of a process besides its streams.
const OTHER_FILES: usize = 64;
/// Longest time for one number of streams.
const PATIENCE: Duration = Duration::from_secs(90);

pub fn run(report: &mut Report) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure_all(report));
}

async fn measure_all(report: &mut Report) {
    let sizes: &[usize] = if bench::is_measuring() { &[1_000, 10_000] } else { &[20] };
    let files = raise_open_files();
    let nats = NatsServer::start();
    pin(std::process::id(), 1);
    for wanted in sizes {
        let streams = (*wanted).min(files.saturating_sub(OTHER_FILES));
        if streams < *wanted {
            println!(
                "stream: {wanted} streams need more files than this process may open ({files}): `ulimit -n` first"
            );
        }
        let measured = tokio::time::timeout(PATIENCE, measure(report, nats.url(), streams)).await;
        assert!(measured.is_ok(), "{streams} streams: not measured within {PATIENCE:?}");
    }
}

/// One gateway, that many streams.
async fn measure(report: &mut Report, nats: &str, streams: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let (arguments, address) = gateway_arguments(folder.path(), nats, ROUTES);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let gateway = Program::start("gateway", 0, env!("CARGO_BIN_EXE_tidegate"), &arguments);
    let service = Service::start(nats, SUBJECT, serve).await;
    load::wait_for_answer(address, &get(address)).await;
    let mut audience = Audience::new(address);
    // What the first streams set up in the gateway stays for all that follow.
    let early = OPENING.min(streams / 2);
    audience.open(early).await;
    let (before, start) = (gateway.resident(), Instant::now());
    audience.open(streams - early).await;
    let (after, opened) = (gateway.resident(), start.elapsed());
    let rounds = if bench::is_measuring() { (100_000 / streams).clamp(7, bench::PAIRS) } else { 1 };
    let mut micros = Vec::new();
    for _ in 0..rounds {
        let cpu = gateway.cpu();
        service.tell(());
        audience.hear(streams).await;
        micros.push((gateway.cpu() - cpu).as_secs_f64() * 1e6 / streams as f64);
    }
    let mebibytes = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    println!("stream: {streams} open event streams, opened in {opened:.1?}");
    println!("  resident {:.1} MiB with {early} streams, {:.1} MiB with all", mebibytes(before), mebibytes(after));
    let each = after.saturating_sub(before) as f64 / 1024.0 / (streams - early) as f64;
    let memory = Ratio { low: each, median: each, high: each };
    report.quantity(format!("memory a stream, {streams} streams"), "KiB", Goal::None, memory);
    report.quantity(format!("CPU an event, {streams} streams"), "µs", Goal::None, bench::ratio_of(micros));
}

/// Clients that read streams.
struct Audience {
    address: SocketAddr,
    heard: mpsc::UnboundedSender<()>,
    events: mpsc::UnboundedReceiver<()>,
    /// They end with this value.
    readers: JoinSet<()>,
}

impl Audience {
    fn new(address: SocketAddr) -> Audience {
        let (heard, events) = mpsc::unbounded_channel();
        Audience { address, heard, events, readers: JoinSet::new() }
    }

    /// Opens `count` more streams; each has had its first event.
    async fn open(&mut self, count: usize) {
        let address = self.address;
        let mut opening = futures_util::stream::iter(0..count).map(|_| open_stream(address)).buffer_unordered(OPENING);
        while let Some(mut lines) = opening.next().await {
            let heard = self.heard.clone();
            self.readers
                .spawn(async move { while next_event(&mut lines).await.is_some() && heard.send(()).is_ok() {} });
        }
    }

    /// Waits until so many events have come.
    async fn hear(&mut self, mut count: usize) {
        let mut events = Vec::new();
        while count > 0 {
            count -= self.events.recv_many(&mut events, count).await;
        }
    }
}

fn get(address: SocketAddr) -> String {
    format!("GET /v1/topics/news/ticks HTTP/1.1\r\nhost: {address}\r\n\r\n")
}

async fn open_stream(address: SocketAddr) -> BufReader<TcpStream> {
    let mut socket = TcpStream::connect(address).await.expect("the gateway accepts");
    socket.write_all(get(address).as_bytes()).await.expect("the gateway reads");
    let mut lines = BufReader::with_capacity(512, socket);
    let mut status = String::new();
    lines.read_line(&mut status).await.expect("the gateway answers");
    assert!(status.starts_with("HTTP/1.1 200 "), "{status}");
    next_event(&mut lines).await.expect("the first event comes with the head");
    lines
}

/// The next event's data; `None` at the end of the stream.
async fn next_event(lines: &mut BufReader<TcpStream>) -> Option<String> {
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if let Some(data) = line.strip_prefix("data: ") {
            assert!(data.contains("the tide turns"), "{data}");
            return Some(data.to_owned());
        }
    }
}

/// Sends each stream its first chunk at once, and the next one whenever it is told to.
async fn serve(
    client: async_nats::Client,
    mut requests: async_nats::Subscriber,
    mut ticks: mpsc::UnboundedReceiver<()>,
) {
    let (mut streams, mut index) = (Vec::<(async_nats::Subject, u32)>::new(), 0);
    let chunk = |index: u32| {
        let tick = Tick { index, is_final: false, text: format!("the tide turns for the {index}th time") };
        bytes::Bytes::from(tick.encode_to_vec())
    };
    loop {
        tokio::select! {
            request = requests.next() => {
                let Some(inbox) = request.and_then(|request| request.reply) else { return };
                client.publish(inbox.clone(), chunk(0)).await.expect("published");
                streams.push((inbox, index));
            }
            tick = ticks.recv() => {
                if tick.is_none() {
                    return;
                }
                index += 1;
                for (inbox, first) in &streams {
                    client.publish(inbox.clone(), chunk(index - first)).await.expect("published");
                }
            }
        }
    }
}
