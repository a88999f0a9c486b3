//! The head of a request, read once: who, what, until when; and its body, under the route's maximum.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method, Version, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::trace::Trace;
use crate::fault::{Code, Fault, Reason};
use crate::route::Content;

/// Longest deadline that a client may ask for, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 300_000;
/// Bytes a second that a body must come with.
const RATE_MIN: f64 = 500.0;
/// Longest client request id that is echoed.
const CLIENT_ID_MAX: usize = 128;

/// A request's head and what follows from it.
pub(super) struct Inbound {
    pub(super) head: Parts,
    /// Address of the client: the peer's, or what a trusted proxy says.
    pub(super) client: IpAddr,
    /// The peer is on the trusted list.
    pub(super) is_trusted: bool,
    /// Our id of this request.
    pub(super) request_id: String,
    pub(super) trace: Trace,
    pub(super) received: Instant,
}

impl Inbound {
    /// Reads a head; nothing in it can fail yet.
    pub(super) fn read(head: Parts, peer: IpAddr, trusted: &[IpAddr]) -> Inbound {
        let is_trusted = trusted.contains(&peer);
        let client = if is_trusted { forwarded(&head.headers, trusted).unwrap_or(peer) } else { peer };
        let trace = Trace::of(&head.headers);
        let request_id = uuid::Uuid::new_v4().hyphenated().to_string();
        Inbound { head, client, is_trusted, request_id, trace, received: Instant::now() }
    }

    /// What the checks of an HTTP/1 head refuse before hyper reads it, and HTTP/2's own rules let through (RFC 9113
    /// §8.3.1).
    pub(super) fn check_http2(&self, fields_max: usize) -> Result<(), Fault> {
        if self.head.version != Version::HTTP_2 {
            return Ok(());
        }
        let refused =
            |reason: Reason, text: &'static str| Err(Fault::client(Code::InvalidArgument, text).reason(reason));
        if self.head.method == Method::CONNECT {
            return Err(Fault::client(Code::Unimplemented, "tunnels and upgrades are not served")
                .reason(Reason::NotImplemented));
        }
        let (host, authority) = (self.head.headers.get(header::HOST), self.head.uri.authority());
        if let (Some(host), Some(authority)) = (host, authority)
            && !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes())
        {
            return refused(Reason::BadRequest, "the Host field names another host than `:authority`");
        }
        if self.head.headers.len() > fields_max {
            return refused(Reason::HeadersTooLarge, "the request's header fields are too many or too large");
        }
        Ok(())
    }

    /// The client's own id of the request, where it sent a clean one.
    pub(super) fn client_request_id(&self) -> Option<&str> {
        let text = self.text("x-request-id")?;
        let is_clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
        (is_clean && (1..=CLIENT_ID_MAX).contains(&text.len())).then_some(text)
    }

    /// A header's text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The route's timeout, shortened by `X-Timeout-Ms`.
    pub(super) fn timeout(&self, route: Duration) -> Result<Duration, Fault> {
        let Some(value) = self.head.headers.get("x-timeout-ms") else { return Ok(route) };
        let wanted = value.to_str().ok().and_then(|text| text.trim().parse::<u64>().ok());
        match wanted.filter(|ms| (1..=TIMEOUT_MS_MAX).contains(ms)) {
            Some(ms) => Ok(route.min(Duration::from_millis(ms))),
            None => {
                let text = format!("header `x-timeout-ms`: expected a whole number from 1 to {TIMEOUT_MS_MAX}");
                Err(Fault::client(Code::InvalidArgument, text).reason(Reason::MalformedParameter))
            }
        }
    }

    /// How the body is to be read.
    pub(super) fn content(&self) -> Result<Content<'_>, Fault> {
        let unsupported =
            |text: String| Fault::client(Code::InvalidArgument, text).reason(Reason::UnsupportedMediaType);
        if let Some(coding) = self.text("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity")) {
            return Err(unsupported(format!("content coding `{coding}`: send the body as it is")));
        }
        let Some(value) = self.head.headers.get(header::CONTENT_TYPE) else { return Ok(Content::Json) };
        let Ok(full) = value.to_str() else { return Err(unsupported("the content type is no plain text".to_owned())) };
        let essence = full.split(';').next().unwrap_or_default().trim();
        if ["application/json", "text/json"].iter().any(|name| essence.eq_ignore_ascii_case(name)) {
            return Ok(Content::Json);
        }
        if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Ok(Content::Form);
        }
        let is_protobuf =
            ["application/x-protobuf", "application/protobuf"].iter().any(|name| essence.eq_ignore_ascii_case(name));
        Ok(if is_protobuf { Content::Protobuf } else { Content::Other(full) })
    }
}

/// The first address from the right that is no trusted proxy.
fn forwarded(headers: &HeaderMap, trusted: &[IpAddr]) -> Option<IpAddr> {
    let list = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = list.flat_map(|text| text.split(',')).collect();
    hops.iter().rev().take(32).map_while(|hop| hop.trim().parse().ok()).find(|hop| !trusted.contains(hop))
}

/// Reads a body of at most `max` bytes. It has `progress` in all and a second more for every [`RATE_MIN`] bytes that
/// have come, but not beyond the request's deadline.
pub(super) async fn read_body(
    mut body: Incoming,
    max: usize,
    progress: Duration,
    deadline: Instant,
) -> Result<Bytes, Fault> {
    let start = Instant::now();
    let too_large = || {
        Fault::client(Code::InvalidArgument, format!("the body is larger than {max} bytes"))
            .reason(Reason::BodyTooLarge)
    };
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    loop {
        let earned = Duration::from_secs_f64((first.len() + rest.len()) as f64 / RATE_MIN);
        let until = deadline.min(start + progress + earned);
        let frame = tokio::time::timeout_at(until.into(), body.frame()).await;
        let frame = frame.map_err(|_| {
            metrics::counter!(crate::telemetry::CONNECTION_LIMITS, "limit" => "body").increment(1);
            Fault::client(Code::DeadlineExceeded, "the body came too slowly").reason(Reason::RequestTimeout)
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            Fault::client(Code::InvalidArgument, "the body broke off")
                .reason(Reason::BadRequest)
                .internal(error.to_string())
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(too_large());
        }
        // Most bodies come in one piece, which needs no copy.
        if first.is_empty() && rest.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&data);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}
