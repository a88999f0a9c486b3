//! A TCP proxy that does to a connection what networks do: hold it, in one way or both, cut it, slow it down, slice it,
//! and spoil its bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the bytes of one way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Nothing passes.
    pub is_held: bool,
    /// Bytes of a piece, and the pause behind it.
    pub pieces: Option<(usize, Duration)>,
    /// The first byte of every read is another one.
    pub is_spoilt: bool,
    /// Share of the packets that the network loses. TCP hides the loss and shows the wait: a lost packet is sent again
    /// soon (RFC 8985, tail loss probe), then after a pause that doubles each time (RFC 6298), and what is behind it waits
    /// as well.
    pub lost: f64,
}

/// What TCP puts into a packet, on most ways.
const PACKET: usize = 1_448;
/// When Linux sends a packet again for the first time, and for the second.
const SENT_AGAIN: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(200)];

/// What happens to all connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Towards the server.
    pub up: Way,
    /// Towards the client.
    pub down: Way,
    /// Connections are reset, and new ones too.
    pub is_cut: bool,
    /// Connections older than this are reset.
    pub generation: u64,
}

/// A proxy in front of one server.
pub struct Proxy {
    address: SocketAddr,
    trouble: Arc<watch::Sender<Trouble>>,
}

impl Proxy {
    /// A proxy to `url`, `nats://HOST:PORT`.
    pub async fn start(url: &str) -> Proxy {
        let server = url.trim_start_matches("nats://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trouble = Arc::new(watch::Sender::new(Trouble::default()));
        let known = trouble.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, server.clone(), known.subscribe()));
            }
        });
        Proxy { address, trouble }
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Makes trouble, in place of what there was.
    pub fn set(&self, trouble: Trouble) {
        self.trouble.send_modify(|now| *now = Trouble { generation: now.generation, ..trouble });
    }

    /// Resets what is connected now.
    pub fn reset(&self) {
        self.trouble.send_modify(|now| now.generation += 1);
    }
}

async fn carry(client: TcpStream, server: String, mut trouble: watch::Receiver<Trouble>) {
    let generation = trouble.borrow_and_update().generation;
    // A close of both sockets is then a reset.
    client.set_zero_linger().unwrap();
    client.set_nodelay(true).unwrap();
    let Ok(server) = TcpStream::connect(server).await else { return };
    server.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = pump(from_client, to_server, trouble.clone(), |trouble| trouble.up) => {}
        () = pump(from_server, to_client, trouble.clone(), |trouble| trouble.down) => {}
        _ = trouble.wait_for(|trouble| trouble.is_cut || trouble.generation != generation) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut trouble: watch::Receiver<Trouble>,
    way: impl Fn(&Trouble) -> Way,
) {
    let mut block = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut block).await {
        let Ok(now) = trouble.wait_for(|trouble| !way(trouble).is_held).await.map(|trouble| way(&trouble)) else {
            return;
        };
        if now.is_spoilt {
            block[0] ^= 0x5a;
        }
        let whole = if now.lost > 0.0 { PACKET } else { block.len() };
        let (size, pause) = now.pieces.unwrap_or((whole, Duration::ZERO));
        for piece in block[..read].chunks(size) {
            let [mut until_again, mut then] = SENT_AGAIN;
            while fastrand::f64() < now.lost {
                tokio::time::sleep(until_again).await;
                (until_again, then) = (then, then * 2);
            }
            if to.write_all(piece).await.is_err() {
                return;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }
}
