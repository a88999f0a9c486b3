//! The head of a request, read once: who, what, until when; and its body, under the route's maximum.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::networks::Networks;
use super::socket::Socket;
use super::trace::Trace;
use crate::fault::{Code, Fault, Reason};
use crate::route::Content;

/// Longest deadline that a client may ask for, in milliseconds.
const TIMEOUT_MS_MAX: u64 = 300_000;
/// Bytes a second that a body must come with.
const RATE_MIN: f64 = 500.0;
/// Longest client request id that is echoed.
const CLIENT_ID_MAX: usize = 128;

/// A client's id of its request, and ours on the answer.
pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static X_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-timeout-ms");
static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// The HTTP/1 connection itself.
    pub(super) socket: Option<Arc<Socket>>,
}

impl Peer {
    /// Somebody without an address, inside of this process: nobody whom a gateway trusts.
    pub(super) fn nobody() -> Peer {
        Peer { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), socket: None }
    }
}

/// A request's head and what follows from it.
pub(super) struct Inbound {
    pub(super) head: Parts,
    /// The HTTP/1 connection that it came on.
    pub(super) socket: Option<Arc<Socket>>,
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
    pub(super) fn read(head: Parts, peer: Peer, trusted: &Networks) -> Inbound {
        let Peer { address, socket } = peer;
        let address = address.to_canonical();
        let is_trusted = trusted.contain(address);
        let client = if is_trusted { forwarded(&head.headers, trusted).unwrap_or(address) } else { address };
        let trace = Trace::of(&head.headers);
        let request_id = uuid::Uuid::new_v4().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).to_owned();
        Inbound { head, socket, client, is_trusted, request_id, trace, received: Instant::now() }
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
        let text = self.text(&X_REQUEST_ID)?;
        let is_clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte));
        (is_clean && (1..=CLIENT_ID_MAX).contains(&text.len())).then_some(text)
    }

    /// A header's text.
    pub(super) fn text(&self, name: &HeaderName) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The route's timeout, shortened by `X-Timeout-Ms`.
    pub(super) fn timeout(&self, route: Duration) -> Result<Duration, Fault> {
        let Some(value) = self.head.headers.get(&X_TIMEOUT_MS) else { return Ok(route) };
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
        if let Some(coding) =
            self.text(&header::CONTENT_ENCODING).filter(|coding| !coding.eq_ignore_ascii_case("identity"))
        {
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

/// The first address from the right that is no trusted proxy. Some proxies write the port as well.
fn forwarded(headers: &HeaderMap, trusted: &Networks) -> Option<IpAddr> {
    let list = headers.get_all(&X_FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = list.flat_map(|text| text.split(',')).collect();
    let address = |hop: &&str| {
        let address = hop.trim().parse().or_else(|_| hop.trim().parse().map(|with_port: SocketAddr| with_port.ip()));
        address.ok().map(|address| address.to_canonical())
    };
    hops.iter().rev().take(32).map_while(address).find(|hop| !trusted.contain(*hop))
}

/// Reads a body of at most `max` bytes. It has `progress` in all, counted from `start`, and a second more for every
/// [`RATE_MIN`] bytes that have come, but not beyond the request's deadline.
pub(super) async fn read_body(
    mut body: Incoming,
    max: usize,
    start: Instant,
    progress: Duration,
    deadline: Instant,
) -> Result<Bytes, Fault> {
    if body.size_hint().lower() > max as u64 {
        return Err(too_large(max));
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while !body.is_end_stream() {
        let earned = Duration::from_secs_f64((first.len() + rest.len()) as f64 / RATE_MIN);
        let until = deadline.min(start + progress + earned);
        let Some(frame) = next_frame(&mut body, until).await? else { break };
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > max {
            return Err(too_large(max));
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

/// The refusal of a body above the route's maximum.
pub(super) fn too_large(max: usize) -> Fault {
    Fault::client(Code::InvalidArgument, format!("the body is larger than {max} bytes")).reason(Reason::BodyTooLarge)
}

/// The next frame, where it comes in time.
async fn next_frame(body: &mut Incoming, until: Instant) -> Result<Option<Frame<Bytes>>, Fault> {
    let mut frame = body.frame();
    // A body that came with its head is there at the second look, as hyper reads it once somebody asks. Only after
    // that a timer is worth its cost.
    let mut looks = 0;
    let early = std::future::poll_fn(|context| match Pin::new(&mut frame).poll(context) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending if looks == 1 => Poll::Ready(None),
        Poll::Pending => {
            looks += 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    });
    let frame = match early.await {
        Some(frame) => frame,
        None => tokio::time::timeout_at(until.into(), frame).await.map_err(|_| {
            metrics::counter!(crate::telemetry::CONNECTION_LIMITS, "limit" => "body").increment(1);
            Fault::client(Code::DeadlineExceeded, "the body came too slowly").reason(Reason::RequestTimeout)
        })?,
    };
    frame.transpose().map_err(|error| {
        Fault::client(Code::InvalidArgument, "the body broke off")
            .reason(Reason::BadRequest)
            .internal(error.to_string())
    })
}
