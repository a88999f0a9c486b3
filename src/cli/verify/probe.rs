//! One request sent to a worker, and what came back judged: an answer in time that decodes, no defect of the worker's, and
//! streams in order, within their credit, that stop when told.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::cases::{Case, Expect};
use crate::bus::{Bus, BusError, Delivery, Headers, Limits, Message, Reply, Request, Subject, Subscription};
use crate::envelope::{ErrorPlan, SERVICE_ERROR_CODE, STREAM_BEGUN};
use crate::fault::{Code, Fault};
use crate::snapshot::Method;
use crate::transcode::check;

/// What a worker is given beside the time that it is told. One that has nothing to say, such as a watch behind which
/// nothing changes, says so when its time is over, and on a busy machine that is late.
const MARGIN: Duration = Duration::from_secs(5);
/// Silence after which nothing more is expected of a worker that was told something.
const SILENCE: Duration = Duration::from_millis(300);
/// How long the chunks of a stream are waited for that follow on the first one at once.
const FOLLOWING: Duration = Duration::from_millis(50);
/// Chunks of one stream that are looked at.
const CHUNKS: u64 = 8;

/// How the finding begins that there is no answer.
pub(super) const SILENT: &str = "no answer within";

/// What is broken, in words.
pub(super) type Finding = String;

/// Sends requests to one method.
pub(super) struct Probe<'m> {
    pub(super) bus: &'m Bus,
    pub(super) method: &'m Method,
    pub(super) tenant: &'m str,
    pub(super) roles: &'m str,
    pub(super) timeout: Duration,
}

impl Probe<'_> {
    /// True where somebody takes requests.
    pub(super) async fn is_served(&self, case: &Case) -> bool {
        !matches!(self.request(case).await, Err(BusError::NoResponders))
    }

    /// Tries a case as a request with one reply.
    pub(super) async fn unary(&self, case: &Case) -> Result<(), Finding> {
        let reply = self.request(case).await;
        let fault = self.judge(case, reply)?;
        if case.expect == Expect::Twice && fault.is_none() {
            let repeated = self.request(case).await;
            if let Some(fault) = self.judge(case, repeated)? {
                return Err(format!("the repeat failed: {}: {}", fault.code_name(), fault.message()));
            }
        }
        Ok(())
    }

    fn silent(&self) -> Finding {
        format!("{SILENT} {:?}", self.timeout)
    }

    async fn request(&self, case: &Case) -> Result<Reply, BusError> {
        let subject = self.method.subject.clone();
        let (headers, payload) = (self.headers(case), case.payload.clone().into());
        self.bus.request(Request { subject, headers, payload, timeout: self.timeout + MARGIN, proof: None }).await
    }

    fn headers(&self, case: &Case) -> Headers {
        let mut headers = self.method.request_headers.and_room_for(8);
        headers.push("Tidegate-Call", uuid::Uuid::new_v4().to_string());
        headers.push("Tidegate-Timeout", self.timeout.as_millis().to_string());
        if self.method.envelope.context.is_none() {
            for (name, value) in
                [("Tidegate-User", "verify"), ("Tidegate-Tenant", self.tenant), ("Tidegate-Roles", self.roles)]
            {
                headers.push(name, value);
            }
        }
        if let Some((name, value)) = &case.header {
            headers.set(name, value);
        }
        headers
    }

    /// The worker's error, where it is one that is no defect.
    fn judge(&self, case: &Case, reply: Result<Reply, BusError>) -> Result<Option<Fault>, Finding> {
        let method = self.method;
        let reply = match reply {
            Ok(reply) => reply,
            Err(BusError::Timeout | BusError::Unproven(_)) => {
                return Err(self.silent());
            }
            Err(error) => return Err(format!("the request did not get through: {error}")),
        };
        let is_status = matches!(method.envelope.reply_error, ErrorPlan::Status);
        if !(is_status && reply.headers.get(SERVICE_ERROR_CODE).is_some()) {
            check(&method.tables, method.reply, &reply.payload)
                .map_err(|error| format!("the reply is no `{}`: {error}", method.reply_name))?;
        }
        let opened =
            method.envelope.open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload);
        match opened {
            Err(fault) => of_fault(&fault).map(|()| Some(fault)),
            Ok(()) if case.expect == Expect::Refusal => Err("it was taken as if nothing were wrong".to_owned()),
            Ok(()) => Ok(None),
        }
    }

    /// Tries a case as a stream, up to [`CHUNKS`] chunks of it.
    pub(super) async fn stream(&self, case: &Case) -> Result<(), Finding> {
        let mut stream = self.open(case, "64 1048576").await?;
        let until = Instant::now() + self.timeout + MARGIN;
        let mut result = Ok(());
        while !stream.is_over && stream.expected < CHUNKS {
            // Later chunks come when something happens, if it does.
            let wait = if stream.is_answered() { until.min(Instant::now() + FOLLOWING) } else { until };
            match timeout_at(wait, stream.next()).await {
                Err(_) if !stream.is_answered() => result = Err(self.silent()),
                Err(_) => {}
                Ok(Ok(())) => continue,
                Ok(Err(finding)) => result = Err(finding),
            }
            break;
        }
        stream.tell("Tidegate-Cancel", "client_gone").await;
        match (result, case.expect) {
            (Ok(()), Expect::Refusal) if stream.fault.is_none() => {
                Err("it was taken as if nothing were wrong".to_owned())
            }
            (result, _) => result,
        }
    }

    /// Gives credit for one chunk, and looks whether the worker waits for more; then cancels, and looks whether it stops.
    pub(super) async fn credit_and_cancel(&self, case: &Case) -> Result<(), Finding> {
        let mut stream = self.open(case, "1 1048576").await?;
        let first = timeout(self.timeout + MARGIN, stream.next()).await;
        first.map_err(|_| self.silent())??;
        if stream.is_over || stream.control.is_none() {
            return Ok(());
        }
        if let Ok(next) = timeout(SILENCE, stream.next()).await {
            next?;
            // One that began without a chunk may have sent the one that it has credit for.
            if !stream.is_over && stream.expected > 1 {
                return Err("it sends more chunks than it has credit for".to_owned());
            }
            return Ok(());
        }
        stream.tell("Tidegate-Cancel", "client_gone").await;
        // What was on its way may still come; then there is silence, whatever credit there is.
        while let Ok(late) = timeout(SILENCE, stream.next()).await {
            late?;
        }
        stream.tell("Tidegate-Credit", "64 1048576").await;
        match timeout(SILENCE, stream.next()).await {
            Ok(Ok(())) if !stream.is_over => Err("it goes on after it was cancelled".to_owned()),
            _ => Ok(()),
        }
    }

    async fn open(&self, case: &Case, window: &str) -> Result<Stream<'_>, Finding> {
        let mut headers = self.headers(case);
        headers.push("Tidegate-Window", window);
        let mut payload = case.payload.clone();
        self.method.envelope.ask_for_stream(&mut payload);
        let opened = self.bus.open_stream(self.method.subject.clone(), headers, payload.into(), Limits::STREAM).await;
        let chunks = opened.map_err(|error| format!("the request did not get through: {error}"))?;
        Ok(Stream { probe: self, chunks, control: None, expected: 0, is_begun: false, is_over: false, fault: None })
    }
}

/// A stream that is being read.
struct Stream<'p> {
    probe: &'p Probe<'p>,
    chunks: Subscription,
    control: Option<Subject>,
    /// Number of the next chunk.
    expected: u64,
    /// The worker has said that it began without a chunk.
    is_begun: bool,
    is_over: bool,
    fault: Option<Fault>,
}

impl Stream<'_> {
    /// The worker has not been silent.
    fn is_answered(&self) -> bool {
        self.is_begun || self.expected > 0
    }

    /// Reads the next chunk, or the word that there is none yet; heartbeats are neither.
    async fn next(&mut self) -> Result<(), Finding> {
        loop {
            match self.chunks.next().await {
                Some(Ok(chunk)) if chunk.is_no_responders => {
                    self.is_over = true;
                    return Ok(());
                }
                Some(Ok(sign)) if sign.headers.get("Stream-Heartbeat").is_some() && sign.payload.is_empty() => {
                    if sign.headers.get(STREAM_BEGUN).is_some() && !self.is_answered() {
                        (self.is_begun, self.control) = (true, sign.reply);
                        return Ok(());
                    }
                }
                Some(Ok(chunk)) => return self.read(chunk),
                _ => return Err("the subscription of the stream ended".to_owned()),
            }
        }
    }

    fn read(&mut self, chunk: Delivery) -> Result<(), Finding> {
        let method = self.probe.method;
        if self.is_over {
            return Err("a chunk came behind the last one".to_owned());
        }
        self.control = chunk.reply.or(self.control.take());
        let is_end = chunk.headers.get("Tidegate-End").is_some();
        // Where the style has an error field, the field decides: the headers' number is of the style's own enum.
        let is_in_band = matches!(method.envelope.chunk.error, ErrorPlan::InBand { .. });
        if !is_in_band
            && chunk.headers.get(SERVICE_ERROR_CODE).is_some()
            && let Err(fault) =
                method.envelope.open_reply(&method.tables, method.chunk, |name| chunk.headers.get(name), &chunk.payload)
        {
            return self.failed(fault);
        }
        check(&method.tables, method.chunk, &chunk.payload)
            .map_err(|error| format!("chunk {} is no `{}`: {error}", self.expected, method.chunk_name))?;
        let opened = method.envelope.open_chunk(&method.tables, method.chunk, &chunk.payload);
        let opened = opened.map_err(|fault| fault.to_string())?;
        let sequence = chunk.headers.get("Tidegate-Seq").and_then(|text| text.parse().ok());
        if let Some(index) = opened.index.or(sequence).filter(|index| *index != self.expected) {
            return Err(format!("chunk {index} came where {} was expected", self.expected));
        }
        self.expected += 1;
        self.is_over = opened.is_last || is_end;
        match opened.fault {
            Some(fault) => self.failed(fault),
            None => Ok(()),
        }
    }

    fn failed(&mut self, fault: Fault) -> Result<(), Finding> {
        self.is_over = true;
        let result = of_fault(&fault);
        self.fault = Some(fault);
        result
    }

    async fn tell(&self, name: &'static str, value: &str) {
        let Some(subject) = self.control.clone() else { return };
        let mut headers = Headers::with_capacity(1);
        headers.push(name, value);
        // A stream that is over has nobody who listens.
        let message = Message { subject, reply: None, headers, payload: bytes::Bytes::new() };
        let _ = self.probe.bus.publish(message).await;
    }
}

/// A worker's error: fine where it says what the caller did, or that it cannot at the moment.
fn of_fault(fault: &Fault) -> Result<(), Finding> {
    let has_panicked = fault.details().iter().any(|row| row.1 == "panicked");
    // A house's own codes have no other name in the standard than UNKNOWN.
    let has_own_name = fault.code_name() != fault.code().name();
    match fault.code() {
        _ if has_panicked => Err(format!("the handler panicked: {}", fault.message())),
        Code::Internal | Code::Unknown | Code::DataLoss if !has_own_name => {
            Err(format!("{}: {}", fault.code_name(), fault.message()))
        }
        _ => Ok(()),
    }
}
