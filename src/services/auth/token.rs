//! Tokens: random, kept as their hash, and sealed (AES-256-GCM) where a reply with one has to be kept for a repeat.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::fault::{Code, Fault};
use crate::worker::hex;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Hex digits of a token's hash that name its session.
const ID_DIGITS: usize = 16;

/// A new token: `tgs_` and 43 characters.
pub(super) fn new() -> Result<String, Fault> {
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| broken("no random bytes"))?;
    Ok(format!("tgs_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What the store knows a token by: SHA-256, in hex.
pub(super) fn hash(token: &str) -> String {
    hex(&Sha256::digest(token))
}

/// Id of a token's session.
pub(super) fn session_id(token_hash: &str) -> &str {
    token_hash.get(..ID_DIGITS).unwrap_or(token_hash)
}

/// Seals tokens. `about` is told to both sides, so that a sealed token opens for the call only that it was sealed for.
pub(super) struct Seal<'s> {
    key: LessSafeKey,
    about: &'s str,
}

impl<'s> Seal<'s> {
    /// The key is SHA-256 of the secret, which may have any form.
    pub(super) fn new(secret: &str, about: &'s str) -> Result<Seal<'s>, Fault> {
        let key = UnboundKey::new(&AES_256_GCM, &Sha256::digest(secret)).map_err(|_| broken("no key"))?;
        Ok(Seal { key: LessSafeKey::new(key), about })
    }

    pub(super) fn close(&self, token: &str) -> Result<String, Fault> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| broken("no random bytes"))?;
        let mut sealed = token.as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.about), &mut sealed)
            .map_err(|_| broken("the token does not seal"))?;
        Ok(STANDARD.encode([&nonce, sealed.as_slice()].concat()))
    }

    pub(super) fn open(&self, sealed: &str) -> Result<String, Fault> {
        let opened = STANDARD.decode(sealed).ok().and_then(|bytes| {
            let (nonce, mut sealed) = bytes.split_at_checked(NONCE_LEN).map(|(nonce, rest)| (nonce, rest.to_vec()))?;
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let token = self.key.open_in_place(nonce, Aad::from(self.about), &mut sealed).ok()?;
            std::str::from_utf8(token).ok().map(str::to_owned)
        });
        opened.ok_or_else(|| {
            let text = "the token was sealed with another key: ask for a session with a new idempotency key";
            Fault::client(Code::FailedPrecondition, text).detail("reason", "sealed_with_another_key")
        })
    }
}

fn broken(text: &'static str) -> Fault {
    Fault::ours(Code::Internal, "a session token cannot be made").internal(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_the_documented_form_and_differ() {
        let [one, other] = [new().unwrap(), new().unwrap()];
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[..4]), (47, "tgs_"));
        assert_eq!(session_id(&hash("tgs_")).len(), 16);
    }

    #[test]
    fn a_sealed_token_opens_with_its_key_for_its_call_only() {
        let seal = Seal::new("secret", "tenant/key").unwrap();
        let (sealed, again) = (seal.close("tgs_x").unwrap(), seal.close("tgs_x").unwrap());
        assert_ne!(sealed, again);
        assert_eq!(seal.open(&sealed).unwrap(), "tgs_x");
        for other in [Seal::new("other", "tenant/key"), Seal::new("secret", "tenant/other")] {
            assert_eq!(other.unwrap().open(&sealed).unwrap_err().code(), Code::FailedPrecondition);
        }
        assert!(seal.open("").is_err());
    }
}
