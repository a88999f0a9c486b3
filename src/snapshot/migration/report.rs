//! What the comparison of a route's two sides has found, in bounded room: counts, the fields that differ most often, the last
//! differences.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::telemetry::ShadowResult;

/// Differing fields that are counted by name.
const FIELDS_MAX: usize = 64;
/// Differences that are remembered, the newest.
const SEEN_MAX: usize = 16;
/// Bytes of an answer that are kept.
const BODY_MAX: usize = 16 * 1024;

/// One difference.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    /// When, in milliseconds since the gateway began.
    pub at_ms: u64,
    /// The gateway's id of the request.
    pub request_id: String,
    /// The fields that differ; `(error)` where one side failed or both did so differently.
    pub fields: Vec<String>,
    /// Answers of old and new as JSON, where they are kept, cut off at 16 KiB.
    pub bodies: Option<(String, String)>,
}

/// What has been found on a route.
#[derive(Debug, Default)]
pub struct Report(Mutex<Found>);

/// What has been found, as it is shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// Comparisons without a difference.
    pub same: u64,
    /// Comparisons with one.
    pub different: u64,
    /// Copies that were not answered.
    pub failed: u64,
    /// Copies that were not sent, or had nothing to be compared with.
    pub dropped: u64,
    /// Differences by field.
    pub fields: BTreeMap<String, u64>,
    /// Differences in further fields.
    pub other_fields: u64,
    /// The last differences, the newest last.
    pub last: VecDeque<Seen>,
}

impl Report {
    /// Counts a copy without a difference.
    pub fn count(&self, result: ShadowResult) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            ShadowResult::Same => found.same += 1,
            ShadowResult::Different => found.different += 1,
            ShadowResult::Failed => found.failed += 1,
            ShadowResult::Dropped => found.dropped += 1,
        }
    }

    /// Counts a difference, and remembers it.
    pub fn differs(&self, at: Duration, request_id: &str, fields: Vec<String>, bodies: Option<(String, String)>) {
        self.count(ShadowResult::Different);
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for field in &fields {
            let is_room = found.fields.len() < FIELDS_MAX;
            match found.fields.get_mut(field) {
                Some(count) => *count += 1,
                None if is_room => drop(found.fields.insert(field.clone(), 1)),
                None => found.other_fields += 1,
            }
        }
        if found.last.len() >= SEEN_MAX {
            found.last.pop_front();
        }
        let bodies = bodies.map(|(old, new)| (cut_off(old), cut_off(new)));
        found.last.push_back(Seen { at_ms: at.as_millis() as u64, request_id: request_id.to_owned(), fields, bodies });
    }

    /// What has been found so far.
    pub fn found(&self) -> Found {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn cut_off(mut text: String) -> String {
    if text.len() > BODY_MAX {
        let end = (0..=BODY_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_keeps_a_bounded_part_of_what_it_counts() {
        let report = Report::default();
        for number in 0..100 {
            let bodies = Some(("é".repeat(BODY_MAX), String::new()));
            report.differs(
                Duration::from_secs(number),
                &number.to_string(),
                vec![format!("f{number}"), "f1".into()],
                bodies,
            );
        }
        let found = report.found();
        assert_eq!((found.different, found.fields.len(), found.other_fields), (100, FIELDS_MAX, 36));
        assert_eq!(found.fields["f1"], 101);
        assert_eq!(
            (found.last.len(), found.last[0].at_ms, found.last[15].request_id.as_str()),
            (SEEN_MAX, 84_000, "99")
        );
        assert!(found.last.iter().all(|seen| seen.bodies.as_ref().unwrap().0.len() <= BODY_MAX));
    }
}
