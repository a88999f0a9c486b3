//! Who calls: the bearer token of a request (RFC 6750), checked by the method that the table names. What it says is
//! believed for a moment, or until it is told to be revoked. Tokens are neither logged nor kept, but for the time of a
//! stream that was opened with one.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, header};

use super::Edge;
use super::inbound::Inbound;
use super::tokens::{BELIEVED, Believed, Key};
use crate::bus::{BusError, Headers, Request};
use crate::envelope::Verified;
use crate::fault::{Code, Fault, Reason};
use crate::snapshot::{Auth, Credential, Route};
use crate::telemetry::trace::Span;

/// Shortest pause between two checks of a stream's token.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest wait for a check.
const CHECK_MAX: Duration = Duration::from_secs(5);
/// How long a stream goes on while its token cannot be checked.
const UNCHECKED_MAX: Duration = Duration::from_secs(30);
/// Longest token in bytes.
const TOKEN_MAX: usize = 4096;

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
    let Some(token) = shown(auth, inbound)? else { return Ok(None) };
    let left = deadline.saturating_duration_since(Instant::now());
    // On the heap: most requests come without, and their futures need no room for it.
    let found = Box::pin(check(edge, &auth.credential, token, Some(inbound), left)).await?;
    let Believed { verified, until } = found;
    Ok(Some(Caller { verified, believed_until: until, credential: auth.credential.clone(), token: token.into() }))
}

/// Refuses a request whose credential needs no look at the token itself: missing where the route needs one, malformed.
pub(super) fn check_shown(route: &Route, inbound: &Inbound) -> Result<(), Fault> {
    route.policies.auth.as_ref().map_or(Ok(()), |auth| shown(auth, inbound).map(|_| ()))
}

/// The token that a request shows; `None` where it shows and needs none.
fn shown<'i>(auth: &Auth, inbound: &'i Inbound) -> Result<Option<&'i str>, Fault> {
    let token = bearer(&inbound.head.headers)?;
    if token.is_none() && auth.is_required {
        let text = "this route needs a credential: send `Authorization: Bearer TOKEN`";
        return Err(Fault::client(Code::Unauthenticated, text).reason(Reason::CredentialMissing));
    }
    Ok(token)
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
    let key = Key::of(&caller.credential, &caller.token);
    let revoked = edge.tokens.listen(key);
    let (mut next, mut seen) = (caller.believed_until, Instant::now());
    if edge.tokens.find(&key, seen).is_none() {
        // It may have been revoked before we listened.
        next = seen;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next.max(Instant::now() + PAUSE).into()) => {}
            () = revoked.notified() => return,
        }
        match check(&edge, &caller.credential, &caller.token, None, CHECK_MAX).await {
            Ok(found) => (next, seen) = (found.until, Instant::now()),
            Err(fault) if fault.why() == Reason::CredentialInvalid => return,
            Err(_) if seen.elapsed() >= UNCHECKED_MAX || time_left(&caller.verified).is_zero() => return,
            Err(fault) => tracing::debug!(%fault, "the credential of an open stream cannot be checked"),
        }
    }
}

/// The token of the one `Authorization` header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none()).and_then(|text| text.split_once(' '));
    let token = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    token.filter(|token| is_token(token)).map(Some).ok_or_else(invalid)
}

/// `b64token` of RFC 6750 §2.1.
pub(super) fn is_token(token: &str) -> bool {
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
    let key = Key::of(credential, token);
    let asked = Instant::now();
    if let Some(found) = edge.tokens.find(&key, asked) {
        return Ok(found);
    }
    let revocations = edge.tokens.revocations();
    let verified = ask(edge, credential, token, inbound, left.min(CHECK_MAX)).await?.ok_or_else(invalid)?;
    // The answer may be as old as the question.
    let until = asked + BELIEVED.min(time_left(&verified));
    let found = Believed { verified: Arc::new(verified), until };
    edge.tokens.keep(key, &found, asked, revocations);
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
}
