//! Shares and the rule by which one moves, as written → as run.

use std::time::Duration;

use super::super::build::Builder;
use super::super::manifest::{At, CutoverRow};
use super::super::policy::Reader;
use crate::limits::{CutoverRule, WHOLE};
use crate::written::parse_duration;

/// How long a step is looked at where the file does not say.
const LENGTH: Duration = Duration::from_secs(600);
/// Requests without which a step is not left.
const REQUESTS: u64 = 1_000;
/// Percent of errors that a step may have.
const ERRORS_BELOW: f64 = 0.5;
/// Percent of errors from which it goes back.
const ERRORS_FROM: f64 = 5.0;

impl Reader<'_> {
    /// A share in percent.
    pub(super) fn share(&mut self, share: &At<f64>) -> Option<u32> {
        self.part(share).map(|part| (part * f64::from(WHOLE)).round() as u32)
    }

    /// Percent as a part of 1.
    fn part(&mut self, percent: &At<f64>) -> Option<f64> {
        if (0.0..=100.0).contains(&percent.value) {
            return Some(percent.value / 100.0);
        }
        self.problem(percent.place, format!("expected 0 to 100 percent, found {}", percent.value));
        None
    }

    /// A limit of a cutover; nothing is below 0 percent.
    fn limit(&mut self, percent: Option<&At<f64>>) -> Option<f64> {
        let percent = percent?;
        let part = self.part(percent)?;
        if part == 0.0 {
            self.problem(percent.place, "expected a number above 0: no part is below it");
        }
        Some(part)
    }
}

impl Builder<'_> {
    /// The rule of a cutover; `None` where it makes none, with the problems said.
    pub(super) fn cutover_rule(&mut self, row: &At<CutoverRow>, has_shadow: bool) -> Option<CutoverRule> {
        let CutoverRow { steps, length, requests, errors_below, differences_below, errors_from, differences_from } =
            &row.value;
        let known = self.reader.problems.len();
        let shares: Vec<u32> = steps.iter().filter_map(|step| self.reader.share(step)).collect();
        if shares.first().is_none_or(|first| *first == 0) || shares.windows(2).any(|pair| pair[0] >= pair[1]) {
            let place = steps.first().map_or(row.place, |step| step.place);
            self.reader.problem(place, "`steps`: expected rising shares above 0, such as `[1, 5, 25, 100]`");
        }
        let length = match length {
            None => LENGTH,
            Some(text) => match parse_duration(&text.value).filter(|length| !length.is_zero()) {
                Some(length) => length,
                None => {
                    let text_of = format!("`for`: expected a duration such as `10m`, found `{}`", text.value);
                    self.reader.problem(text.place, text_of);
                    LENGTH
                }
            },
        };
        for differences in [differences_below, differences_from].into_iter().flatten().filter(|_| !has_shadow) {
            self.reader.problem(differences.place, "nothing is compared without `shadow`");
        }
        let rule = CutoverRule {
            steps: shares,
            length,
            requests: requests.as_ref().map_or(REQUESTS, |requests| requests.value.max(1)),
            errors_below: self.reader.limit(errors_below.as_ref()).unwrap_or(ERRORS_BELOW / 100.0),
            differences_below: self.reader.limit(differences_below.as_ref()),
            errors_from: self.reader.limit(errors_from.as_ref()).unwrap_or(ERRORS_FROM / 100.0),
            differences_from: self.reader.limit(differences_from.as_ref()),
        };
        // Below the one it goes on, from the other it goes back: they may not cross.
        let pairs = [
            (Some(rule.errors_below), Some(rule.errors_from), errors_from.as_ref().or(errors_below.as_ref())),
            (rule.differences_below, rule.differences_from, differences_from.as_ref()),
        ];
        for (below, from, place) in pairs {
            if let (Some(below), Some(from), Some(place)) = (below, from, place)
                && from < below
            {
                self.reader.problem(place.place, "it would go back from a part that still counts as good");
            }
        }
        (self.reader.problems.len() == known).then_some(rule)
    }
}
