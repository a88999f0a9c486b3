//! Any endpoint that speaks the OpenAI chat-completions form, asked once: its text as it comes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use serde::{Deserialize, Serialize};

use crate::fault::{Code, Fault};
use crate::services::settings::Provider;

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for a first piece, and for each later one.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest line of a stream, and most bytes read of a refusal.
const LINE_MAX: usize = 256 * 1024;

/// A request, as the endpoint reads it.
#[derive(Clone, Debug, Default, Serialize)]
pub(in crate::services) struct Ask {
    pub model: String,
    pub messages: Vec<Turn>,
    pub stream: bool,
    pub max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

/// One turn of a chat.
#[derive(Clone, Debug, Serialize)]
pub(in crate::services) struct Turn {
    pub role: &'static str,
    pub content: String,
}

/// One event of the endpoint's stream, as far as we read it.
#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

/// A text as it comes.
pub(in crate::services) struct Pieces {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    line: Vec<u8>,
    ready: VecDeque<String>,
    is_over: bool,
    finish_reason: &'static str,
}

/// Connections to all endpoints.
pub(super) fn client() -> Result<reqwest::Client, Fault> {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .read_timeout(PIECE_WAIT_MAX)
        .build()
        .map_err(|error| Fault::ours(Code::Internal, "no HTTP client").internal(error.to_string()))
}

/// Starts a text and waits for its first piece. Fails with UNAVAILABLE where the endpoint cannot, DEADLINE_EXCEEDED
/// where it is silent, and with what it says where it refuses.
pub(super) async fn open(client: &reqwest::Client, provider: &Provider, mut ask: Ask) -> Result<Pieces, Fault> {
    if let Some(name) = provider.models.get(&ask.model) {
        ask.model.clone_from(name);
    }
    let body = serde_json::to_vec(&ask)
        .map_err(|error| Fault::ours(Code::Internal, "the request does not encode").internal(error.to_string()))?;
    let bytes = post(client, provider, "chat/completions", body).await?.bytes_stream().boxed();
    let mut pieces = Pieces { bytes, line: Vec::new(), ready: VecDeque::new(), is_over: false, finish_reason: "stop" };
    pieces.fill().await?;
    Ok(pieces)
}

/// Asks a provider; its answer's head, where the status is 200.
pub(super) async fn post(
    client: &reqwest::Client,
    provider: &Provider,
    path: &str,
    body: Vec<u8>,
) -> Result<reqwest::Response, Fault> {
    let url = format!("{}/{path}", provider.base_url);
    let mut request = client.post(url).header("content-type", "application/json").body(body);
    if let Some(key) = &provider.key {
        request = request.bearer_auth(key.text());
    }
    let answer = request.send().await.map_err(|error| failure(&error))?;
    match answer.status().as_u16() {
        200 => Ok(answer),
        status => Err(refusal(status)),
    }
}

impl Pieces {
    /// A text that is there already.
    pub(super) fn whole(text: String, finish_reason: &'static str) -> Pieces {
        let bytes = futures_util::stream::empty().boxed();
        Pieces { bytes, line: Vec::new(), ready: VecDeque::from([text]), is_over: true, finish_reason }
    }

    /// The next piece; nothing at the end.
    pub(in crate::services) async fn next(&mut self) -> Result<Option<String>, Fault> {
        self.fill().await?;
        Ok(self.ready.pop_front())
    }

    /// Why the text has ended.
    pub(in crate::services) fn finish_reason(&self) -> &'static str {
        self.finish_reason
    }

    /// Reads until there is a piece, or the end.
    async fn fill(&mut self) -> Result<(), Fault> {
        while self.ready.is_empty() && !self.is_over {
            let bytes = match self.bytes.next().await {
                Some(Ok(bytes)) => bytes,
                Some(Err(error)) => return Err(failure(&error)),
                None => return Err(unavailable("the stream broke off")),
            };
            for byte in bytes {
                if byte == b'\n' {
                    let line = std::mem::take(&mut self.line);
                    self.read(&line)?;
                } else if self.line.len() < LINE_MAX {
                    self.line.push(byte);
                } else {
                    return Err(unavailable("a line of its stream is too long"));
                }
            }
        }
        Ok(())
    }

    /// One line of server-sent events; comments and empty lines say nothing.
    fn read(&mut self, line: &[u8]) -> Result<(), Fault> {
        let Some(data) = line.trim_ascii().strip_prefix(b"data:") else { return Ok(()) };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.is_over = true;
            return Ok(());
        }
        let part: Part = serde_json::from_slice(data).map_err(|error| unavailable(error.to_string()))?;
        let Some(choice) = part.choices.into_iter().next() else { return Ok(()) };
        self.ready.extend(choice.delta.content.filter(|text| !text.is_empty()));
        if choice.finish_reason.is_some() {
            self.finish_reason = finish_reason(choice.finish_reason.as_deref());
        }
        Ok(())
    }
}

/// Why a text has ended, in our words.
pub(super) fn finish_reason(said: Option<&str>) -> &'static str {
    match said {
        Some("length") => "length",
        Some("content_filter") => "content_filter",
        _ => "stop",
    }
}

/// What an endpoint's status means to our caller.
pub(super) fn refusal(status: u16) -> Fault {
    match status {
        400 | 422 => Fault::client(Code::InvalidArgument, "the text provider refused the request")
            .detail("reason", "provider")
            .internal(format!("status {status}")),
        429 => Fault::upstream(Code::ResourceExhausted, "the text provider is at its limit")
            .detail("reason", "provider")
            .retry_after(Duration::from_secs(1)),
        _ => unavailable(format!("status {status}")),
    }
}

pub(super) fn silent(text: impl Into<String>) -> Fault {
    Fault::upstream(Code::DeadlineExceeded, "the text provider is silent").detail("reason", "provider").internal(text)
}

pub(super) fn failure(error: &reqwest::Error) -> Fault {
    match error.is_timeout() && !error.is_connect() {
        true => silent(error.to_string()),
        false => unavailable(error.to_string()),
    }
}

pub(super) fn unavailable(text: impl Into<String>) -> Fault {
    Fault::upstream(Code::Unavailable, "the text provider does not answer").detail("reason", "provider").internal(text)
}
