//! Who we are to the server. A `.creds` file is read at each connect, so that rotated credentials are taken up when the
//! server ends a connection whose user has expired.

use std::path::Path;

use async_nats::{Auth, AuthError, ConnectOptions};

use super::super::BusError;
use super::NatsOptions;

/// Options of a connection as this user; fails where the credentials cannot be read now.
pub(super) fn of(options: &NatsOptions) -> Result<ConnectOptions, BusError> {
    let mut connect = match &options.credentials {
        Some(path) => {
            Credentials::read(path).map_err(BusError::Other)?;
            let path = path.clone();
            ConnectOptions::with_auth_callback(move |nonce| std::future::ready(signed(&path, &nonce)))
        }
        None => ConnectOptions::new(),
    };
    if let Some(token) = &options.token {
        connect = connect.token(token.clone());
    }
    if let Some((user, password)) = &options.password {
        connect = connect.user_and_password(user.clone(), password.clone());
    }
    if let Some(path) = &options.tls_ca {
        connect = connect.add_root_certificates(path.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &options.tls_identity {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(connect)
}

/// The file as it is now, and the server's nonce signed with its key.
pub(super) fn signed(path: &Path, nonce: &[u8]) -> Result<Auth, AuthError> {
    let credentials = Credentials::read(path).map_err(AuthError::new)?;
    let signature = credentials.key.sign(nonce).map_err(AuthError::new)?;
    let mut auth = Auth::new();
    (auth.jwt, auth.signature) = (Some(credentials.jwt), Some(signature));
    Ok(auth)
}

struct Credentials {
    jwt: String,
    key: nkeys::KeyPair,
}

impl Credentials {
    /// The reason in words where there are none.
    fn read(path: &Path) -> Result<Credentials, String> {
        let named = |error: String| format!("credentials `{}`: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        Credentials::parse(&text).map_err(named)
    }

    fn parse(text: &str) -> Result<Credentials, String> {
        let section = |title: &str| {
            let mut lines = text.lines().skip_while(|line| !line.contains(title)).skip(1);
            let line = lines.next().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('-'));
            line.ok_or_else(|| format!("no section `{title}`: expected a .creds file"))
        };
        let (jwt, seed) = (section("BEGIN NATS USER JWT")?, section("BEGIN USER NKEY SEED")?);
        let key = nkeys::KeyPair::from_seed(seed).map_err(|error| format!("the seed is none: {error}"))?;
        Ok(Credentials { jwt: jwt.to_owned(), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_creds_file_is_told_apart() {
        let rows = [
            ("", "no section `BEGIN NATS USER JWT`: expected a .creds file"),
            (
                "-----BEGIN NATS USER JWT-----\n------END NATS USER JWT------\n",
                "no section `BEGIN NATS USER JWT`: expected a .creds file",
            ),
            ("-----BEGIN NATS USER JWT-----\na.b.c\n", "no section `BEGIN USER NKEY SEED`: expected a .creds file"),
        ];
        for (text, error) in rows {
            assert_eq!(Credentials::parse(text).err().as_deref(), Some(error));
        }
        let seed = nkeys::KeyPair::new_user().seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\na.b.c\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        let read = Credentials::parse(&text).ok().unwrap();
        assert_eq!((read.jwt.as_str(), read.key.seed().unwrap()), ("a.b.c", seed));
    }
}
