//! How the pieces of a stream look on the wire: Server-Sent Events (WHATWG HTML §9.2) or NDJSON. Bytes only; when a
//! piece is sent is not decided here.

use bytes::Bytes;

use super::accept::{preferred, refusal};
use super::inbound::Inbound;
use crate::fault::Fault;

/// Jitter of an EventSource's pause before it comes back, in milliseconds.
const RETRY_MS: std::ops::RangeInclusive<u32> = 1_000..=5_000;

/// The two forms of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `text/event-stream`.
    Sse,
    /// One JSON text a line.
    Ndjson,
}

impl Form {
    /// The form that a client asks for.
    pub(super) fn of(inbound: &Inbound) -> Result<Form, Fault> {
        let offers = [
            ("text/event-stream", Form::Sse),
            ("application/x-ndjson", Form::Ndjson),
            ("application/jsonl", Form::Ndjson),
        ];
        preferred(&inbound.head.headers, &offers)
            .ok_or_else(|| refusal("this answer comes as `text/event-stream` or `application/x-ndjson`"))
    }

    /// The media type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Sse => "text/event-stream",
            Form::Ndjson => "application/x-ndjson",
        }
    }

    /// What comes before anything else: the pause, and a comment that opens the stream through proxies.
    pub(super) fn greeting(self) -> Option<Bytes> {
        (self == Form::Sse).then(|| format!("retry: {}\n\n:keepalive\n\n", fastrand::u32(RETRY_MS)).into())
    }

    /// What fills a silence.
    pub(super) fn keep_alive(self) -> Bytes {
        Bytes::from_static(if self == Form::Sse { b":keepalive\n\n" } else { b"\n" })
    }

    /// One chunk: an unnamed event with its position.
    pub(super) fn chunk(self, id: Option<u64>, json: &[u8]) -> Bytes {
        match (self, id) {
            (Form::Sse, Some(id)) => framed(format!("id: {id}\ndata: ").as_bytes(), json, b"\n\n"),
            (Form::Sse, None) => framed(b"data: ", json, b"\n\n"),
            (Form::Ndjson, _) => framed(b"", json, b"\n"),
        }
    }

    /// The error that ends a stream.
    pub(super) fn error(self, body: &[u8]) -> Bytes {
        match self {
            Form::Sse => framed(b"event: error\ndata: ", body, b"\n\n"),
            Form::Ndjson => framed(b"", body, b"\n"),
        }
    }

    /// The end that we set; the client comes back after a pause of its own.
    pub(super) fn end(self, reason: &str) -> Bytes {
        let text = match self {
            Form::Sse => {
                let retry = fastrand::u32(RETRY_MS);
                format!("retry: {retry}\nevent: end\ndata: {{\"reason\":\"{reason}\"}}\n\n")
            }
            Form::Ndjson => format!("{{\"end\":{{\"reason\":\"{reason}\"}}}}\n"),
        };
        text.into()
    }
}

fn framed(before: &[u8], text: &[u8], after: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(before.len() + text.len() + after.len());
    frame.extend_from_slice(before);
    frame.extend_from_slice(text);
    frame.extend_from_slice(after);
    frame.into()
}
