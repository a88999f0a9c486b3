//! Who may use the admin port: a token or a client certificate for everything that shows, changes or calls something;
//! on loopback without either, everybody on this machine, and no page of another site.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, header};
use sha2::{Digest as _, Sha256};

use super::AdminOptions;
use crate::fault::{Code, Fault, Reason};
use crate::gateway::{auth, respond};
use crate::snapshot::ErrorStyle;

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Shortest token in bytes: what is shorter can be guessed.
const TOKEN_MIN: usize = 16;

/// Where the token of the admin port is.
#[derive(Clone, PartialEq, Eq)]
pub enum AdminToken {
    /// Here.
    Text(Box<str>),
    /// In a file that is read at each request, so that a rotated one counts at once.
    File(PathBuf),
}

/// Tokens are not printed.
impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            AdminToken::Text(_) => f.write_str("Text(…)"),
            AdminToken::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl AdminToken {
    /// Reads it once, to see that it can be used.
    ///
    /// Fails where the file cannot be read, and where the token is too short or not one that a header can carry.
    pub fn check(&self) -> Result<(), Fault> {
        self.digest().map(|_| ())
    }

    /// What is compared: digests have one length, and tell nothing of how much of a token was right.
    fn digest(&self) -> Result<[u8; 32], Fault> {
        let text = match self {
            AdminToken::Text(text) => text.clone(),
            AdminToken::File(path) => match std::fs::read_to_string(path) {
                Ok(text) => text.into(),
                Err(error) => {
                    let text = format!("the admin token in `{}` cannot be read: {error}", path.display());
                    return Err(Fault::ours(Code::Unavailable, text));
                }
            },
        };
        let token = text.trim();
        if token.len() < TOKEN_MIN {
            let text = format!("the admin token has {} bytes: it needs at least {TOKEN_MIN}", token.len());
            return Err(Fault::ours(Code::FailedPrecondition, text));
        }
        if !auth::is_token(token) {
            let text =
                "no request can carry the admin token: it may have letters, digits, `-._~+/`, and `=` at its end";
            return Err(Fault::ours(Code::FailedPrecondition, text));
        }
        Ok(Sha256::digest(token).into())
    }
}

/// The rules of one admin port.
pub(super) struct Access {
    token: Option<AdminToken>,
    knows_certificates: bool,
    is_loopback: bool,
}

/// How a connection has shown itself; put beside each request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// A certificate that our authority of clients has signed.
    pub(super) has_certificate: bool,
}

impl Access {
    pub(super) fn new(options: &AdminOptions, is_loopback: bool) -> Access {
        Access {
            token: options.token.clone(),
            knows_certificates: options.tls.as_ref().is_some_and(super::AdminTls::knows_clients),
            is_loopback,
        }
    }

    /// True where nobody can ever come in.
    pub(super) fn refuses_all(&self) -> bool {
        !self.is_loopback && self.token.is_none() && !self.knows_certificates
    }

    /// Refuses what another site makes a browser send: a name that was bent to this machine (DNS rebinding), and
    /// requests across origins. Programs that are no browser send none of these headers.
    fn check_site(&self, method: &Method, headers: &HeaderMap) -> Result<(), Fault> {
        let refused = |text: String| Err(Fault::client(Code::PermissionDenied, text));
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(header::HOST);
        if self.is_loopback && !host.is_some_and(is_loopback_host) {
            let host = host.unwrap_or_default();
            return refused(format!("`Host: {host}` is not this machine: use 127.0.0.1 or localhost"));
        }
        if let Some(origin) = text(header::ORIGIN) {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            if authority.is_none() || authority != host {
                return refused(format!("the page of another site, `{origin}`, cannot use the admin port"));
            }
        }
        // A link from another site may open a page, and no more.
        let is_visit = method == Method::GET && text(HeaderName::from_static("sec-fetch-mode")) == Some("navigate");
        match text(SEC_FETCH_SITE.clone()) {
            None | Some("same-origin" | "none") => Ok(()),
            Some(_) if is_visit => Ok(()),
            Some(site) => refused(format!("a request from another site (`{site}`) cannot use the admin port")),
        }
    }

    /// Refuses who shows no credential, where one is known; and everybody where none is known off loopback.
    fn check_credential(&self, shown: Shown, headers: &HeaderMap) -> Result<(), Fault> {
        if shown.has_certificate && self.knows_certificates {
            return Ok(());
        }
        let Some(token) = &self.token else {
            return match (self.knows_certificates, self.is_loopback) {
                (true, _) => {
                    let text = "the admin port needs a client certificate that its authority has signed";
                    Err(Fault::client(Code::PermissionDenied, text))
                }
                (false, true) => Ok(()),
                (false, false) => {
                    let text = "no credential is configured, and the admin port is not on loopback: start with \
                                TIDEGATE_ADMIN_TOKEN, --admin-token-file or --admin-client-ca";
                    Err(Fault::client(Code::PermissionDenied, text))
                }
            };
        };
        let missing = || {
            let text = "the admin port needs its token: send `Authorization: Bearer TOKEN`";
            Fault::client(Code::Unauthenticated, text).reason(Reason::CredentialMissing)
        };
        let given: [u8; 32] = Sha256::digest(auth::bearer(headers)?.ok_or_else(missing)?).into();
        let expected = token.digest().map_err(|fault| {
            let text = fault.message().to_owned();
            Fault::ours(Code::Unavailable, "the admin token cannot be read").internal(text)
        })?;
        let differing = expected.iter().zip(&given).fold(0, |differing, (a, b)| differing | (a ^ b));
        if differing == 0 {
            return Ok(());
        }
        let text = "this is not the token of the admin port";
        Err(Fault::client(Code::Unauthenticated, text).reason(Reason::CredentialInvalid))
    }
}

/// True for a `Host` that names this machine and nothing that a name server could say otherwise.
fn is_loopback_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Pages: nothing in them is worth a credential, which a browser could not send with a link anyway.
pub(super) async fn page(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    match access.check_site(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(fault) => refusal(&fault),
    }
}

/// Everything that shows, changes or calls something.
pub(super) async fn guarded(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let shown = request.extensions().get::<Shown>().copied().unwrap_or_default();
    let checked = access
        .check_site(request.method(), request.headers())
        .and_then(|()| access.check_credential(shown, request.headers()));
    match checked {
        Ok(()) => next.run(request).await,
        Err(fault) => refusal(&fault),
    }
}

/// A fault as an answer of the admin port.
pub(super) fn refusal(fault: &Fault) -> Response {
    if let Some(internal) = fault.internal_text() {
        tracing::debug!(internal, "admin fault");
    }
    let id = uuid::Uuid::new_v4().hyphenated().to_string();
    let (mut head, body) = respond::fault(fault, ErrorStyle::Problem, None, &id).into_parts();
    head.headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    Response::from_parts(head, Body::new(body))
}

#[cfg(test)]
mod tests;
