//! Who calls: the bearer token of a request (RFC 6750), checked by the method that the table names. What it says is
//! believed for a moment. Tokens are neither logged nor kept, but for the time of a stream that was opened with one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

use super::Edge;
use super::inbound::Inbound;
use crate::bus::{BusError, Headers, Request};
use crate::envelope::Verified;
use crate::fault::{Code, Fault, Reason};
use crate::snapshot::{Credential, Route};
use crate::telemetry::trace::Span;

/// How long a valid token is believed: with the time of a check, a revoked one is refused within five seconds.
const BELIEVED: Duration = Duration::from_secs(4);
/// Shortest pause between two checks of a stream's token.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a check.
const CHECK_MAX: Duration = Duration::from_secs(5);
/// How long a stream goes on while its token cannot be checked.
const UNCHECKED_MAX: Duration = Duration::from_secs(30);
/// Longest token in bytes.
const TOKEN_MAX: usize = 4096;
/// Most tokens that are believed at a time; those above it are checked at each request.
const TOKENS_MAX: usize = 32_768;

/// A caller whose credential is valid.
pub(super) struct Caller {
    pub(super) verified: Arc<Verified>,
    believed_until: Instant,
    credential: Arc<Credential>,
    token: Box<str>,
}

/// The caller of a request; `None` where it shows no credential and needs none. Refused are a missing one that is
/// needed and one that is not valid.
pub(super) async fn caller(
    edge: &Edge,
    route: &Route,
    inbound: &Inbound,
    deadline: Instant,
) -> Result<Option<Caller>, Fault> {
    let Some(auth) = &route.policies.auth else { return Ok(None) };
    let Some(token) = bearer(&inbound.head.headers)? else {
        let text = "this route needs a credential: send `Authorization: Bearer TOKEN`";
        let missing = Fault::client(Code::Unauthenticated, text).reason(Reason::CredentialMissing);
        return if auth.is_required { Err(missing) } else { Ok(None) };
    };
    let left = deadline.saturating_duration_since(Instant::now());
    // On the heap: most requests come without, and their futures need no room for it.
    let found = Box::pin(check(edge, &auth.credential, token, Some(inbound), left)).await?;
    let Believed { verified, until } = found;
    Ok(Some(Caller { verified, believed_until: until, credential: auth.credential.clone(), token: token.into() }))
}

/// The headers that say who calls, for schemas whose messages cannot.
pub(super) fn tell(caller: &Verified, headers: &mut Headers) {
    let rows =
        [("Tidegate-User", &caller.user), ("Tidegate-Tenant", &caller.tenant), ("Tidegate-Roles", &caller.roles)];
    for (name, value) in rows.into_iter().filter(|row| !row.1.is_empty()) {
        headers.push(name, value);
    }
}

/// Returns once the caller's credential is revoked or has expired, or has been out of sight for too long.
pub(super) async fn until_revoked(edge: Arc<Edge>, caller: Caller) {
    let (mut next, mut seen) = (caller.believed_until, Instant::now());
    loop {
        tokio::time::sleep_until(next.max(Instant::now() + PAUSE).into()).await;
        match check(&edge, &caller.credential, &caller.token, None, CHECK_MAX).await {
            Ok(found) => (next, seen) = (found.until, Instant::now()),
            Err(fault) if fault.why() == Reason::CredentialInvalid => return,
            Err(_) if seen.elapsed() >= UNCHECKED_MAX || time_left(&caller.verified).is_zero() => return,
            Err(fault) => tracing::debug!(%fault, "the credential of an open stream cannot be checked"),
        }
    }
}

/// The token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).and_then(|text| text.split_once(' '));
    let token = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    token.filter(|token| is_token(token)).map(Some).ok_or_else(invalid)
}

/// `b64token` of RFC 6750 §2.1.
fn is_token(token: &str) -> bool {
    let text = token.trim_end_matches('=');
    let is_clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
    !text.is_empty() && is_clean && token.len() <= TOKEN_MAX
}

fn invalid() -> Fault {
    let text = "the credential is not valid: it is malformed, unknown, expired or revoked";
    Fault::client(Code::Unauthenticated, text).reason(Reason::CredentialInvalid)
}

/// Whose a token is: as it was found a moment ago, or as the method says now.
async fn check(
    edge: &Edge,
    credential: &Credential,
    token: &str,
    inbound: Option<&Inbound>,
    left: Duration,
) -> Result<Believed, Fault> {
    let key = key_of(credential, token);
    let asked = Instant::now();
    if let Some(found) = edge.tokens.find(&key, asked) {
        return Ok(found);
    }
    let verified = ask(edge, credential, token, inbound, left.min(CHECK_MAX)).await?.ok_or_else(invalid)?;
    // The answer may be as old as the question.
    let until = asked + BELIEVED.min(time_left(&verified));
    let found = Believed { verified: Arc::new(verified), until };
    edge.tokens.keep(key, &found, asked);
    Ok(found)
}

/// Asks on the gateway's own account: without a context, as nobody has called yet.
async fn ask(
    edge: &Edge,
    credential: &Credential,
    token: &str,
    inbound: Option<&Inbound>,
    timeout: Duration,
) -> Result<Option<Verified>, Fault> {
    let method = &credential.method;
    let mut span = inbound.map_or(Span::none(), |inbound| inbound.trace.call(method));
    let mut headers = method.request_headers.and_room_for(3);
    headers.push("Tidegate-Timeout", itoa::Buffer::new().format(timeout.as_millis().max(1)));
    match inbound {
        Some(inbound) => {
            headers.push("traceparent", span.traceparent().as_deref().unwrap_or(inbound.trace.parent()));
            headers.push("Tidegate-Call", &inbound.request_id);
        }
        None => drop(headers.push("Tidegate-Call", uuid::Uuid::new_v4().to_string())),
    }
    let payload = credential.plan.request(token).into();
    let request = Request { subject: method.subject.clone(), headers, payload, timeout, proof: None };
    let asked = Instant::now();
    let reply = edge.bus.request(request).await;
    method.metrics.ended(BusError::outcome(&reply), asked.elapsed());
    let reply = reply.map_err(Fault::from).inspect_err(|fault| span.fault(fault));
    let reply = reply.map_err(|fault| unchecked(&fault))?;
    let opened =
        method.envelope.open_reply(&method.tables, method.reply, |name| reply.headers.get(name), &reply.payload);
    let opened = opened.inspect_err(|fault| span.fault(fault));
    match opened.map_err(|fault| (fault.code(), fault)) {
        Ok(()) => Ok(credential.plan.read(&reply.payload)),
        Err((Code::InvalidArgument | Code::NotFound | Code::Unauthenticated | Code::PermissionDenied, _)) => Ok(None),
        Err((_, fault)) => Err(unchecked(&fault)),
    }
}

fn unchecked(fault: &Fault) -> Fault {
    let code = if fault.code() == Code::DeadlineExceeded { fault.code() } else { Code::Unavailable };
    Fault::upstream(code, "the credential cannot be checked at the moment")
        .reason(fault.why())
        .internal(fault.to_string())
}

/// Time until a credential expires.
fn time_left(verified: &Verified) -> Duration {
    let Some(expires_at_ms) = verified.expires_at_ms else { return Duration::MAX };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(expires_at_ms).saturating_sub(now)
}

/// SHA-256 of how a token is checked, and of the token.
type Key = [u8; 32];

fn key_of(credential: &Credential, token: &str) -> Key {
    Sha256::new_with_prefix(&*credential.declaration).chain_update([0]).chain_update(token).finalize().into()
}

/// Whose a token is, and until when that is believed.
#[derive(Clone)]
struct Believed {
    verified: Arc<Verified>,
    until: Instant,
}

/// Valid tokens, by their keys.
#[derive(Default)]
pub(super) struct Tokens(Mutex<Halves>);

/// What is new, and what was new before: nothing is looked through for what is over, as it goes with its half.
#[derive(Default)]
struct Halves {
    new: HashMap<Key, Believed>,
    old: HashMap<Key, Believed>,
    begun: Option<Instant>,
}

impl Tokens {
    fn find(&self, key: &Key, now: Instant) -> Option<Believed> {
        let halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.new.get(key).or_else(|| halves.old.get(key)).filter(|found| now < found.until).cloned()
    }

    fn keep(&self, key: Key, found: &Believed, now: Instant) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *halves.begun.get_or_insert(now);
        if halves.new.len() >= TOKENS_MAX / 2 || now.saturating_duration_since(begun) >= BELIEVED {
            halves.old = std::mem::take(&mut halves.new);
            halves.begun = Some(now);
        }
        halves.new.insert(key, found.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(values: &[&'static str]) -> Result<Option<String>, Reason> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, http::HeaderValue::from_static(value));
        }
        bearer(&headers).map(|token| token.map(str::to_owned)).map_err(|fault| fault.why())
    }

    #[test]
    fn one_header_with_one_token_is_a_credential() {
        let abc = || Ok(Some("abc-._~+/9==".to_owned()));
        assert_eq!(token(&[]), Ok(None));
        for values in [["Bearer abc-._~+/9=="], ["bearer   abc-._~+/9== "]] {
            assert_eq!(token(&values), abc(), "{values:?}");
        }
        for values in [&["Bearer"][..], &["Bearer "], &["Bearer =="], &["Basic abc"], &["Bearer a b"], &["Bearer a,b"]]
        {
            assert_eq!(token(values), Err(Reason::CredentialInvalid), "{values:?}");
        }
        assert_eq!(token(&["Bearer abc", "Bearer abc"]), Err(Reason::CredentialInvalid));
    }

    #[test]
    fn tokens_are_believed_for_their_time_and_never_more_of_them_than_the_maximum() {
        let (tokens, start) = (Tokens::default(), Instant::now());
        let found = |until| Believed { verified: Arc::default(), until: start + until };
        tokens.keep([1; 32], &found(BELIEVED), start);
        assert!(tokens.find(&[1; 32], start + BELIEVED / 2).is_some());
        assert!(tokens.find(&[1; 32], start + BELIEVED).is_none());
        for number in 0..2 * TOKENS_MAX {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            tokens.keep(key, &found(BELIEVED), start);
        }
        let halves = tokens.0.lock().unwrap();
        assert!(halves.new.len() + halves.old.len() <= TOKENS_MAX);
    }
}
