//! Keys: tokens joined by dots, whatever the ids in them contain.

use std::fmt::Write as _;

use super::StoreError;

/// Longest key in bytes.
pub const KEY_MAX: usize = 1_024;

/// Which keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// This one.
    One(String),
    /// Those that begin with these tokens.
    Under(String),
    /// All.
    All,
}

impl Keys {
    /// True where the key is one of these.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Keys::One(one) => one == key,
            Keys::Under(tokens) => key.strip_prefix(tokens.as_str()).is_some_and(|rest| rest.starts_with('.')),
            Keys::All => true,
        }
    }

    pub(super) fn check(&self) -> Result<(), StoreError> {
        match self {
            Keys::One(key) | Keys::Under(key) => check(key),
            Keys::All => Ok(()),
        }
    }
}

/// A name that lives as long as the process: of a bucket or log that the schema declares. There are a few dozen at most,
/// each made once a start.
pub fn interned(name: &str) -> &'static str {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    match names.get(name) {
        Some(known) => known,
        None => {
            let name: &'static str = String::from(name).leak();
            names.insert(name);
            name
        }
    }
}

/// A key of these tokens; an empty one is written as `_`.
pub fn key<T: AsRef<str>>(tokens: &[T]) -> String {
    let mut key = String::new();
    for (index, token) in tokens.iter().enumerate() {
        if index > 0 {
            key.push('.');
        }
        push_token(token.as_ref(), &mut key);
    }
    key
}

/// An id as one token: bytes outside of `[A-Za-z0-9_-]` become `=` and two upper-case hex digits.
pub fn key_token(id: &str) -> String {
    let mut token = String::with_capacity(id.len());
    push_token(id, &mut token);
    token
}

fn push_token(id: &str, out: &mut String) {
    if id.is_empty() {
        out.push('_');
    }
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "={byte:02X}");
        }
    }
}

/// Refuses what is no key: only our own code makes keys, so this is a guard against wildcards and empty tokens.
pub(super) fn check(key: &str) -> Result<(), StoreError> {
    let is_clean = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=');
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_clean);
    if key.len() <= KEY_MAX && key.split('.').all(is_token) {
        Ok(())
    } else {
        Err(StoreError::BadKey(key.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stay_one_token() {
        assert_eq!(key_token("a.b/c d"), "a=2Eb=2Fc=20d");
        assert_eq!(key_token("größe*>"), "gr=C3=B6=C3=9Fe=2A=3E");
        assert_eq!(key(&["", "player", "p.1"]), "_.player.p=2E1");
    }

    #[test]
    fn tokens_not_letters_decide_what_is_under_a_prefix() {
        let keys = Keys::Under("t.player".to_owned());
        assert!(keys.contains("t.player.p1"));
        assert!(!keys.contains("t.player") && !keys.contains("t.players.p1"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for bad in ["", "a..b", ".a", "a.", "a b", "a.*", ">", "ä"] {
            assert_eq!(check(bad), Err(StoreError::BadKey(bad.to_owned())));
        }
        assert!(check(&"x".repeat(KEY_MAX + 1)).is_err());
        assert_eq!(check("_lease.GAME_EVENTS"), Ok(()));
    }
}
