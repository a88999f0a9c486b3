//! Copies of requests for the side that does not serve, as written → as run.

use std::sync::Arc;
use std::time::Duration;

use super::super::build::{Builder, NewRoute};
use super::super::manifest::{At, ShadowRow};
use super::super::policy::Reader;
use super::{Migration, Report, Side};
use crate::limits::{Slots, WHOLE};
use crate::transcode::Sameness;

/// Longest wait for the answer to a copy where the file does not say.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// Copies on their way at once where the file does not say.
const CALLS: usize = 16;

/// Copies for the side that does not serve.
#[derive(Debug)]
pub struct Shadow {
    /// The side that gets copies; `None` is whichever does not serve.
    pub to: Option<Side>,
    /// The share of requests that are copied, of [`WHOLE`].
    pub share: u32,
    /// Copies on their way.
    pub slots: Arc<Slots>,
    /// Longest wait for the answer to one.
    pub timeout: Duration,
    /// What counts as the same.
    pub sameness: Sameness,
    /// The report keeps answers that differ.
    pub keeps_bodies: bool,
    /// What was found; kept between generations while the same is compared.
    pub report: Arc<Report>,
}

impl Builder<'_> {
    /// The shadow of a route: `None` where it is wrong, with the problems said; `Some(None)` where the route has none,
    /// because it changes something and shares the row with others that do not.
    pub(super) fn shadow(
        &mut self,
        new: &NewRoute<'_>,
        row: &At<ShadowRow>,
        is_own: bool,
        before: Option<&Migration>,
    ) -> Option<Option<Shadow>> {
        let known = self.reader.problems.len();
        let ShadowRow { to, percent, calls, timeout, tolerance, writes, bodies, .. } = &row.value;
        let is_safe = new.method.is_read || *writes;
        if !is_safe && is_own {
            let text = format!("`{}` may change something: its copies need `writes: true`", new.method.name);
            self.reader.problem(row.place, text);
        }
        let choices = [("new", Some(Side::New)), ("old", Some(Side::Old)), ("both", None)];
        let to = to.as_ref().and_then(|to| self.reader.choice(to, &choices)?);
        let share = percent.as_ref().map_or(Some(WHOLE), |percent| self.reader.share(percent));
        if let (Some(0), Some(percent)) = (share, percent) {
            self.reader.problem(percent.place, "expected a number above 0: leave `shadow` out to copy nothing");
        }
        let max = calls.as_ref().map_or(CALLS, |calls| calls.value);
        if let Some(calls) = calls.as_ref().filter(|calls| calls.value == 0) {
            self.reader.problem(calls.place, "expected a number above 0");
        }
        let routes = Reader::pick(&new.levels, |level| level.timeout.as_ref()).cloned();
        let routes = routes.map_or(TIMEOUT_MAX, |text| self.reader.duration(&text));
        let timeout = timeout.as_ref().map_or(routes.min(TIMEOUT_MAX), |text| self.reader.duration(text));
        let tolerance = tolerance.as_ref().map_or(0.0, |tolerance| {
            if !(0.0..1.0).contains(&tolerance.value) {
                let text = format!("expected a part from 0 to below 1, found {}", tolerance.value);
                self.reader.problem(tolerance.place, text);
            }
            tolerance.value
        });
        let sameness = self.sameness(new, &row.value, tolerance);
        if self.reader.problems.len() > known {
            return None;
        }
        if !is_safe {
            return Some(None);
        }
        let before = before.and_then(|before| before.shadow.as_ref());
        let slots = before.map(|before| before.slots.clone()).filter(|slots| slots.max() == max);
        let report = before.filter(|before| before.sameness == sameness && before.keeps_bodies == *bodies);
        Some(Some(Shadow {
            to,
            share: share?,
            slots: slots.unwrap_or_else(|| Slots::new(max)),
            timeout,
            sameness,
            keeps_bodies: *bodies,
            report: report.map(|before| before.report.clone()).unwrap_or_default(),
        }))
    }

    fn sameness(&mut self, new: &NewRoute<'_>, row: &ShadowRow, tolerance: f64) -> Sameness {
        let mut sameness = Sameness { tolerance, ..Sameness::default() };
        for (rows, is_order) in [(&row.ignore, false), (&row.unordered, true)] {
            for row in rows {
                match Sameness::path(&self.schema.tables, new.method.reply, &row.value) {
                    Ok((_, false)) if is_order => {
                        self.reader.problem(row.place, format!("`{}` is no list: it has no order", row.value));
                    }
                    Ok((path, _)) if is_order => sameness.unordered.push(path),
                    Ok((path, _)) => sameness.ignored.push(path),
                    Err(text) => self.reader.problem(row.place, text),
                }
            }
        }
        sameness
    }
}
