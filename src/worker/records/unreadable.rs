//! Records that cannot be read: somebody else wrote the key, or the struct has changed. Readers of many leave such a one
//! out; here it is said, once for each revision of a key.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::fault::Fault;
use crate::telemetry;

/// Keys that are remembered as said. Beyond them records are counted each time, and not named.
const KEYS_MAX: usize = 1_000;

pub(in crate::worker) struct Unreadable {
    bucket: &'static str,
    counter: metrics::Counter,
    /// The last revision that was said, by key.
    said: Mutex<HashMap<String, u64>>,
}

/// What a record that cannot be read calls for.
#[derive(Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    /// It is new: count and name it.
    All,
    /// It is counted alone.
    Count,
}

impl Unreadable {
    pub(in crate::worker) fn new(bucket: &'static str) -> Unreadable {
        let counter = metrics::counter!(telemetry::RECORDS_UNREADABLE, "bucket" => bucket);
        Unreadable { bucket, counter, said: Mutex::default() }
    }

    /// Says that the record of a key is left out, and why.
    pub(in crate::worker) fn say(&self, key: &str, revision: u64, fault: &Fault) {
        let what = self.with(|said| what(said, key, revision));
        if what != Say::Nothing {
            self.counter.increment(1);
        }
        if what == Say::All {
            tracing::error!(bucket = self.bucket, key, revision, %fault, "lists and watches leave out a record");
        }
    }

    /// A key has been written or deleted since.
    pub(super) fn is_past(&self, key: &str, revision: u64) {
        self.with(|said| {
            if said.get(key).is_some_and(|last| *last < revision) {
                said.remove(key);
            }
        });
    }

    fn with<A>(&self, use_it: impl FnOnce(&mut HashMap<String, u64>) -> A) -> A {
        use_it(&mut self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn what(said: &mut HashMap<String, u64>, key: &str, revision: u64) -> Say {
    let is_full = said.len() >= KEYS_MAX;
    match said.get_mut(key) {
        Some(last) if *last >= revision => Say::Nothing,
        Some(last) => {
            *last = revision;
            Say::All
        }
        None if is_full => Say::Count,
        None => {
            said.insert(key.to_owned(), revision);
            Say::All
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_said_once_and_the_memory_is_bounded() {
        let mut said = HashMap::new();
        assert_eq!(what(&mut said, "k", 5), Say::All);
        assert_eq!(what(&mut said, "k", 5), Say::Nothing);
        assert_eq!(what(&mut said, "k", 4), Say::Nothing, "a list that was behind");
        assert_eq!(what(&mut said, "k", 6), Say::All);
        for number in said.len()..KEYS_MAX {
            assert_eq!(what(&mut said, &format!("k{number}"), 1), Say::All);
        }
        assert_eq!(what(&mut said, "one more", 1), Say::Count);
        assert_eq!(what(&mut said, "one more", 1), Say::Count);
        assert_eq!(what(&mut said, "k", 6), Say::Nothing);
        assert_eq!(said.len(), KEYS_MAX);
    }
}
