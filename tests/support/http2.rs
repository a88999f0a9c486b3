//! HTTP/2 frames by hand (RFC 9113), for what no client library would send.

use tidegate::gateway::Running;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// SETTINGS_INITIAL_WINDOW_SIZE.
pub const INITIAL_WINDOW: u16 = 4;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn error(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u32).to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header block of literals without an index (RFC 7541 §6.2.2); each part below 127 bytes.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        assert!(name.len() < 127 && value.len() < 127, "lengths are one byte here");
        block.extend_from_slice(&[0, name.len() as u8]);
        block.extend_from_slice(name.as_bytes());
        block.push(value.len() as u8);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// HEADERS of a request that ends with them.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "edge")];
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields))
}

/// HEADERS of a request whose body comes; with DATA where there is one already.
pub fn post(stream: u32, path: &str, body: Option<&str>) -> Vec<u8> {
    let fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "edge")];
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &block(&fields));
    if let Some(body) = body {
        bytes.extend(frame(DATA, END_STREAM, stream, body.as_bytes()));
    }
    bytes
}

/// A RST_STREAM with CANCEL.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

/// A connection whose frames are written by the test.
pub struct Raw {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Raw {
    /// Connects and says hello, with these settings.
    pub async fn connect(running: &Running, settings: &[(u16, u32)]) -> Raw {
        Raw::connect_with(running, settings, None).await
    }

    /// As [`Raw::connect`], with a receive buffer of that many bytes.
    pub async fn connect_with(running: &Running, settings: &[(u16, u32)], receive: Option<u32>) -> Raw {
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(size) = receive {
            socket.set_recv_buffer_size(size).unwrap();
        }
        let socket = socket.connect(running.local_addr).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let mut raw = Raw { socket, received: Vec::new() };
        let rows: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        // The window of the whole connection is never what a test waits for.
        let open = frame(WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
        let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(SETTINGS, 0, 0, &rows), &open].concat();
        raw.send(&hello).await;
        raw
    }

    /// Writes as much as the server takes before it closes.
    pub async fn send(&mut self, bytes: &[u8]) {
        // The server's last words are to be read all the while, or both sides would wait for each other.
        let Raw { socket, received } = self;
        let (mut reader, mut writer) = socket.split();
        let write = async {
            let _ = writer.write_all(bytes).await;
        };
        let mut write = std::pin::pin!(write);
        let work = async {
            loop {
                tokio::select! {
                    biased;
                    () = &mut write => return,
                    read = reader.read_buf(received) => if matches!(read, Ok(0) | Err(_)) { return },
                }
            }
        };
        tokio::time::timeout(super::PATIENCE, work).await.expect("the server reads or closes");
    }

    /// Writes, and reads nothing meanwhile.
    pub async fn send_only(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` once the server has closed.
    pub async fn next(&mut self) -> Option<Frame> {
        let work = async {
            loop {
                if let Some(frame) = self.parsed() {
                    return Some(frame);
                }
                if matches!(self.socket.read_buf(&mut self.received).await, Ok(0) | Err(_)) {
                    return None;
                }
            }
        };
        tokio::time::timeout(super::PATIENCE, work).await.expect("a frame in time")
    }

    fn parsed(&mut self) -> Option<Frame> {
        let head = self.received.get(..9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        if self.received.len() < 9 + len {
            return None;
        }
        let bytes: Vec<u8> = self.received.drain(..9 + len).collect();
        Some(Frame { kind, flags, stream, payload: bytes[9..].to_vec() })
    }

    /// The next frame that is asked for; those before it are dropped.
    pub async fn find(&mut self, what: &str, is_wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            match self.next().await {
                Some(frame) if is_wanted(&frame) => return frame,
                Some(_) => {}
                None => panic!("the server closed before {what}"),
            }
        }
    }

    /// The body of a stream's answer, to its end.
    pub async fn body(&mut self, stream: u32) -> String {
        let mut text = String::new();
        loop {
            let frame = self.find("the answer's end", |frame| frame.stream == stream).await;
            match frame.kind {
                DATA => text.push_str(&frame.text()),
                HEADERS => {}
                _ => panic!("stream {stream} ended with {frame:?} after {text}"),
            }
            if frame.flags & END_STREAM != 0 {
                return text;
            }
        }
    }

    /// The error code of the server's last GOAWAY, once it has closed; `None` where it said nothing.
    pub async fn last_words(&mut self) -> Option<u32> {
        let mut words = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                words = Some(frame.error());
            }
        }
        words
    }
}
