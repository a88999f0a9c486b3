//! Valid tokens: which ones are believed, until when, and who waits for the end of one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};

use crate::envelope::Verified;
use crate::snapshot::Credential;

/// How long a valid token is believed: with the time of a check, a revoked one is refused within five seconds, also
/// where nobody tells of it.
pub(super) const BELIEVED: Duration = Duration::from_secs(4);
/// Most tokens that are believed at a time; those above it are checked at each request.
const TOKENS_MAX: usize = 32_768;

/// SHA-256 of how a token is checked, and of the token's own hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub(super) fn of(credential: &Credential, token: &str) -> Key {
        Key::of_hash(credential, &Sha256::digest(token).into())
    }

    /// The same by the hash of the token, which is all that a revocation says.
    pub(super) fn of_hash(credential: &Credential, token_hash: &[u8; 32]) -> Key {
        let declared = Sha256::new_with_prefix(&*credential.declaration);
        Key(declared.chain_update([0]).chain_update(token_hash).finalize().into())
    }
}

/// Whose a token is, and until when that is believed.
#[derive(Clone)]
pub(super) struct Believed {
    pub(super) verified: Arc<Verified>,
    pub(super) until: Instant,
}

/// Valid tokens, by their keys.
#[derive(Default)]
pub(super) struct Tokens {
    halves: Mutex<Halves>,
    /// Those that were told to be revoked so far.
    revocations: AtomicU64,
    listeners: Mutex<HashMap<Key, Vec<Arc<Notify>>>>,
    /// A token has been believed: from then on it is worth knowing which ones are revoked.
    is_used: watch::Sender<bool>,
}

/// What is new, and what was new before: nothing is looked through for what is over, as it goes with its half.
#[derive(Default)]
struct Halves {
    new: HashMap<Key, Believed>,
    old: HashMap<Key, Believed>,
    begun: Option<Instant>,
}

impl Tokens {
    pub(super) fn find(&self, key: &Key, now: Instant) -> Option<Believed> {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        halves.new.get(key).or_else(|| halves.old.get(key)).filter(|found| now < found.until).cloned()
    }

    /// Revocations so far, to be noted before a token is asked for.
    pub(super) fn revocations(&self) -> u64 {
        self.revocations.load(Ordering::Acquire)
    }

    /// Keeps what was found, unless a revocation has been told since it was asked for: it may be of this token, and
    /// newer than the answer.
    pub(super) fn keep(&self, key: Key, found: &Believed, now: Instant, revocations: u64) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        if self.revocations() != revocations {
            return;
        }
        let begun = *halves.begun.get_or_insert(now);
        if halves.new.len() >= TOKENS_MAX / 2 || now.saturating_duration_since(begun) >= BELIEVED {
            halves.old = std::mem::take(&mut halves.new);
            halves.begun = Some(now);
        }
        halves.new.insert(key, found.clone());
        self.is_used.send_if_modified(|is_used| !std::mem::replace(is_used, true));
    }

    /// Returns once a token has been believed.
    pub(super) async fn until_used(&self) {
        let _ = self.is_used.subscribe().wait_for(|is_used| *is_used).await;
    }

    /// Believes a token no more, and tells whoever listens.
    pub(super) fn revoke(&self, key: &Key) {
        {
            let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
            self.revocations.fetch_add(1, Ordering::AcqRel);
            halves.new.remove(key);
            halves.old.remove(key);
        }
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        for listener in listeners.get(key).into_iter().flatten() {
            listener.notify_one();
        }
    }

    /// Hears of a token's revocation, until it is dropped.
    pub(super) fn listen(&self, key: Key) -> Listener<'_> {
        let told = Arc::new(Notify::new());
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.entry(key).or_default().push(told.clone());
        Listener { tokens: self, key, told }
    }
}

/// A place among the listeners.
pub(super) struct Listener<'t> {
    tokens: &'t Tokens,
    key: Key,
    told: Arc<Notify>,
}

impl Listener<'_> {
    /// Returns once the token is revoked, also where that was before.
    pub(super) async fn notified(&self) {
        self.told.notified().await;
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut listeners = self.tokens.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = listeners.get_mut(&self.key) {
            all.retain(|told| !Arc::ptr_eq(told, &self.told));
            if all.is_empty() {
                listeners.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn believed(until: Instant) -> Believed {
        Believed { verified: Arc::default(), until }
    }

    #[test]
    fn tokens_are_believed_for_their_time_and_never_more_of_them_than_the_maximum() {
        let (tokens, start) = (Tokens::default(), Instant::now());
        let found = believed(start + BELIEVED);
        tokens.keep(Key([1; 32]), &found, start, 0);
        assert!(tokens.find(&Key([1; 32]), start + BELIEVED / 2).is_some());
        assert!(tokens.find(&Key([1; 32]), start + BELIEVED).is_none());
        for number in 0..2 * TOKENS_MAX {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_le_bytes());
            tokens.keep(Key(key), &found, start, 0);
        }
        let halves = tokens.halves.lock().unwrap();
        assert!(halves.new.len() + halves.old.len() <= TOKENS_MAX);
    }

    #[test]
    fn a_revoked_token_is_believed_no_more_and_an_answer_from_before_is_not_kept() {
        let (tokens, start) = (Tokens::default(), Instant::now());
        let (mine, other) = (Key([1; 32]), Key([2; 32]));
        let asked_before = tokens.revocations();
        for key in [mine, other] {
            tokens.keep(key, &believed(start + BELIEVED), start, asked_before);
        }
        tokens.revoke(&mine);
        assert!(tokens.find(&mine, start).is_none() && tokens.find(&other, start).is_some());
        tokens.keep(mine, &believed(start + BELIEVED), start, asked_before);
        assert!(tokens.find(&mine, start).is_none());
    }

    #[test]
    fn whoever_listens_for_a_token_hears_of_it_alone_and_leaves_nothing_behind() {
        let tokens = Tokens::default();
        let (mine, also_mine, others) =
            (tokens.listen(Key([1; 32])), tokens.listen(Key([1; 32])), tokens.listen(Key([2; 32])));
        tokens.revoke(&Key([1; 32]));
        assert!(mine.notified().now_or_never().is_some() && also_mine.notified().now_or_never().is_some());
        assert!(others.notified().now_or_never().is_none());
        drop((mine, also_mine, others));
        assert!(tokens.listeners.lock().unwrap().is_empty());
    }
}
