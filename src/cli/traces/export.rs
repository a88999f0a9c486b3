//! Spans on their way to a collector (OTLP/HTTP, OTLP specification 1.x): in batches, from a thread of its own, so that
//! neither a slow collector nor an absent one is felt by a request.

use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Settings, refused};
use crate::cli::runtime;
use crate::fault::{Code, Fault};
use crate::telemetry::trace::SpanRecord;
use crate::telemetry::{SPANS_DROPPED, SPANS_EXPORTED, otlp};

/// Tries of a batch, and the pause behind the first one; it doubles.
const TRIES: u32 = 5;
const TRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause that a collector may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);
/// Longest time for what is left at the end of the process.
const LAST_MAX: Duration = Duration::from_secs(3);

/// Sends spans until it is dropped, and then the rest.
pub(in crate::cli) struct Exporter {
    stop: Option<oneshot::Sender<()>>,
    ended: blocking::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Exporter {
    pub(super) fn start(settings: Settings, spans: mpsc::Receiver<SpanRecord>) -> Result<Exporter, Fault> {
        let client = client(&settings)?;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = blocking::channel();
        let sending = Sending { settings, client, spans, is_failing: false };
        let runtime = runtime()?;
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
            runtime.block_on(sending.run(stopped));
            let _ = end.send(());
        });
        let failed = |error: std::io::Error| {
            Fault::ours(Code::Internal, format!("the thread of traces does not start: {error}"))
        };
        Ok(Exporter { stop: Some(stop), ended, thread: Some(thread.map_err(failed)?) })
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.take();
        // A thread that is not done by then is left to the end of the process.
        if self.ended.recv_timeout(LAST_MAX + TRY_PAUSE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn client(settings: &Settings) -> Result<reqwest::Client, Fault> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let Some((name, mut value)) = header else {
            return Err(refused(format!("OTEL_EXPORTER_OTLP_HEADERS: `{name}` is no header with a plain text")));
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let client = reqwest::Client::builder().default_headers(headers).timeout(settings.timeout).build();
    client.map_err(|error| Fault::ours(Code::Internal, format!("no client for traces: {error}")))
}

struct Sending {
    settings: Settings,
    client: reqwest::Client,
    spans: mpsc::Receiver<SpanRecord>,
    /// The collector does not answer, and that has been said.
    is_failing: bool,
}

/// What became of a batch.
enum Sent {
    Taken,
    /// The collector will not take it, whatever we do.
    Refused(String),
    /// It may take it later.
    Later(String, Option<Duration>),
}

impl Sending {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let (max, mut batch) = (self.settings.batch, Vec::new());
        while !self.fill(&mut batch, &mut stopped).await && !self.send(&mut batch, Some(&mut stopped)).await {}
        let rest = async {
            while !batch.is_empty() || !self.spans.is_empty() {
                while batch.len() < max
                    && let Ok(span) = self.spans.try_recv()
                {
                    batch.push(span);
                }
                self.send(&mut batch, None).await;
            }
        };
        let _ = timeout(LAST_MAX, rest).await;
    }

    /// Takes spans until a batch is full, or for as long as the pause behind the first one; true once the process ends.
    async fn fill(&mut self, batch: &mut Vec<SpanRecord>, stopped: &mut oneshot::Receiver<()>) -> bool {
        let (max, pause) = (self.settings.batch, self.settings.pause);
        let mut until = None;
        while batch.len() < max {
            let late = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                taken = self.spans.recv_many(batch, max - batch.len()) => {
                    if taken == 0 {
                        return true;
                    }
                    until.get_or_insert_with(|| Instant::now() + pause);
                }
                () = late => return false,
                _ = &mut *stopped => return true,
            }
        }
        false
    }

    /// Sends a batch, again where that may help; true once the process ends. Without `stopped` there is one try.
    async fn send(&mut self, batch: &mut Vec<SpanRecord>, mut stopped: Option<&mut oneshot::Receiver<()>>) -> bool {
        let count = batch.len() as u64;
        let body = bytes::Bytes::from(otlp::encode(std::mem::take(batch), &self.settings.resource));
        let mut is_over = false;
        for attempt in 0.. {
            let (text, after) = match self.post(body.clone()).await {
                Sent::Taken => {
                    self.is_failing = false;
                    metrics::counter!(SPANS_EXPORTED).increment(count);
                    return is_over;
                }
                Sent::Refused(text) => {
                    self.lost("refused", count, &text);
                    return is_over;
                }
                Sent::Later(text, after) => (text, after),
            };
            let Some(stopped) = stopped.as_mut().filter(|_| attempt + 1 < TRIES && !is_over) else {
                self.lost("unreachable", count, &text);
                return is_over;
            };
            let pause = after.unwrap_or(TRY_PAUSE * 2_u32.pow(attempt)).mul_f64(0.75 + fastrand::f64() / 2.0);
            tokio::select! {
                () = sleep(pause) => {}
                // One more try, and then the rest.
                _ = &mut **stopped => is_over = true,
            }
        }
        is_over
    }

    async fn post(&self, body: bytes::Bytes) -> Sent {
        let answer = match self.client.post(&self.settings.url).body(body).send().await {
            Ok(answer) => answer,
            Err(error) => return Sent::Later(error.without_url().to_string(), None),
        };
        let status = answer.status();
        let after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let after = after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        match status.as_u16() {
            200..=299 => {
                let answer = answer.bytes().await.unwrap_or_default();
                if let Some((refused, text)) = otlp::refused(&answer) {
                    let text: String = text.chars().take(200).collect();
                    metrics::counter!(SPANS_DROPPED, "reason" => "refused").increment(refused.unsigned_abs());
                    tracing::warn!(refused, text, "the collector refused a part of the spans");
                }
                Sent::Taken
            }
            429 | 502 | 503 | 504 => Sent::Later(format!("it answered {status}"), after),
            _ => Sent::Refused(format!("it answered {status}")),
        }
    }

    fn lost(&mut self, reason: &'static str, count: u64, text: &str) {
        metrics::counter!(SPANS_DROPPED, "reason" => reason).increment(count);
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(spans = count, text, "spans are lost: the collector at --otlp does not take them");
        }
    }
}
