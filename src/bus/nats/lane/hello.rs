//! From an address to a connection that the server has accepted, and on which the replies are subscribed.

use std::time::Duration;

use async_nats::{ServerAddr, ServerInfo};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::{NatsOptions, identity};
use super::frames::{self, Said};

/// Longest wait for a server's welcome.
const WELCOME_MAX: Duration = Duration::from_secs(5);

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refused {
    /// This server will never do: what it asks for, the lane does not speak.
    Unfit(&'static str),
    /// It may work later.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Failed(error.to_string())
    }
}

/// Connects, and gives the socket with what the server has said behind its welcome.
pub(super) async fn connect(
    options: &NatsOptions,
    address: &ServerAddr,
    replies: &str,
) -> Result<(TcpStream, BytesMut), Refused> {
    if address.is_websocket() || address.tls_required() || options.tls_ca.is_some() || options.tls_identity.is_some() {
        return Err(Refused::Unfit("the connection is encrypted"));
    }
    tokio::time::timeout(WELCOME_MAX, welcome(options, address, replies)).await?
}

async fn welcome(options: &NatsOptions, address: &ServerAddr, replies: &str) -> Result<(TcpStream, BytesMut), Refused> {
    let mut stream = TcpStream::connect((address.host(), address.port())).await?;
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(4 * 1024);
    let Said::Info(info) = next(&mut stream, &mut input).await? else {
        return Err(Refused::Failed("the server does not begin with INFO".to_owned()));
    };
    let info: ServerInfo = serde_json::from_slice(&info)?;
    if info.tls_required {
        return Err(Refused::Unfit("the server asks for TLS"));
    }
    if !info.headers {
        return Err(Refused::Unfit("the server knows no headers"));
    }
    let ours = introduction(options, &info)?;
    stream.write_all(format!("CONNECT {ours}\r\nSUB {replies} 1\r\nPING\r\n").as_bytes()).await?;
    loop {
        match next(&mut stream, &mut input).await? {
            Said::Pong => return Ok((stream, input)),
            Said::Error(text) => return Err(Refused::Failed(text)),
            Said::Ping => stream.write_all(b"PONG\r\n").await?,
            Said::Info(_) | Said::Message { .. } => {}
        }
    }
}

async fn next(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Said<()>, Refused> {
    loop {
        if let Some(said) = frames::take(input, |_| ()).map_err(|malformed| Refused::Failed(malformed.0.to_owned()))? {
            return Ok(said);
        }
        if stream.read_buf(input).await? == 0 {
            return Err(Refused::Failed("the server has closed the connection".to_owned()));
        }
    }
}

/// The CONNECT line's JSON: who we are, and the proof of it.
fn introduction(options: &NatsOptions, info: &ServerInfo) -> Result<serde_json::Value, Refused> {
    let mut ours = json!({
        "verbose": false,
        "pedantic": false,
        "tls_required": false,
        "name": format!("{} requests", options.name),
        "lang": "tidegate",
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": 1,
        "echo": true,
        "headers": true,
        "no_responders": true,
    });
    if let Some(token) = &options.token {
        ours["auth_token"] = token.as_str().into();
    }
    if let Some((user, password)) = &options.password {
        ours["user"] = user.as_str().into();
        ours["pass"] = password.as_str().into();
    }
    if let Some(path) = &options.credentials {
        let auth = identity::signed(path, info.nonce.as_bytes())?;
        ours["jwt"] = auth.jwt.into();
        ours["sig"] = auth.signature.map(|signature| URL_SAFE_NO_PAD.encode(signature)).into();
    }
    Ok(ours)
}
