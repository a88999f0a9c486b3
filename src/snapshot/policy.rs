//! Policies as written → as run: levels laid over one another, texts parsed, limits shared with the generation before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::manifest::{At, JsonRow, PolicyRow, RateRow};
use super::problem::{Place, Problem};
use super::{Auth, Credential, ErrorStyle, LimitKey, Migration, Old, Policies, Snapshot, SubjectBreaker};
use crate::limits::{Bucket, Quota, Slots};
use crate::transcode::{Defaults, Enums, JsonIn, JsonOut, Names, Unknown};
use crate::written::parse_duration;

const TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
const STREAM_IDLE: Duration = Duration::from_secs(30);
const BODY_MAX: usize = 1024 * 1024;
const BODY_LIMIT: usize = 64 * 1024 * 1024;

/// Collects problems while values are read.
pub(super) struct Reader<'a> {
    pub(super) file: &'a str,
    pub(super) problems: Vec<Problem>,
    /// The file says how credentials are checked; without a `credential` it says so wrongly.
    pub(super) has_credential: bool,
    pub(super) credential: Option<Arc<Credential>>,
    limits: HashMap<String, (LimitKey, Arc<Bucket>)>,
    slots: HashMap<String, Arc<Slots>>,
    /// Breakers by subject.
    pub(super) breakers: Vec<(String, Arc<SubjectBreaker>)>,
    /// Migrations of the generation before, by route.
    pub(super) migrations: HashMap<String, Arc<Migration>>,
}

impl<'a> Reader<'a> {
    /// A reader that takes limits over from the generation before, where they are unchanged.
    pub(super) fn new(file: &'a str, previous: Option<&Snapshot>) -> Reader<'a> {
        let (mut limits, mut slots, mut breakers) = (HashMap::new(), HashMap::new(), Vec::new());
        let mut migrations = HashMap::new();
        for route in previous.iter().flat_map(|snapshot| &snapshot.routes) {
            let name = format!("{} {}", route.verb, route.template);
            if let Some(bucket) = &route.policies.bucket {
                limits.insert(name.clone(), bucket.clone());
            }
            if let Some(calls) = &route.policies.call_slots {
                slots.insert(format!("{name} calls"), calls.clone());
            }
            if let Some(streams) = &route.policies.stream_slots {
                slots.insert(format!("{name} streams"), streams.clone());
            }
            if let Some(migration) = &route.migration {
                migrations.insert(name, migration.clone());
            }
            if let Some(breaker) = &route.policies.breaker {
                breakers.push((route.method.subject.as_str().to_owned(), breaker.clone()));
            }
            if let Some(Old::Subject { method, breaker: Some(breaker) }) = route.migration.as_deref().map(|to| &to.old)
            {
                breakers.push((method.subject.as_str().to_owned(), breaker.clone()));
            }
        }
        let (problems, has_credential, credential) = (Vec::new(), false, None);
        Reader { file, problems, has_credential, credential, limits, slots, breakers, migrations }
    }

    pub(super) fn problem(&mut self, place: (usize, usize), text: impl Into<String>) {
        self.problems.push(Problem::new(Place::new(self.file, place.0, place.1), text));
    }

    /// The first level that says something.
    pub(super) fn pick<'p, T>(
        levels: &[&'p PolicyRow],
        get: impl Fn(&'p PolicyRow) -> Option<&'p At<T>>,
    ) -> Option<&'p At<T>> {
        levels.iter().find_map(|level| get(level))
    }

    /// The policies of one route to a subject; `levels` from the route outwards.
    pub(super) fn policies(&mut self, route: &str, subject: &str, levels: &[&PolicyRow]) -> (Policies, JsonIn) {
        let auth = Reader::pick(levels, |level| level.auth.as_ref()).cloned();
        let timeout = Reader::pick(levels, |level| level.timeout.as_ref()).cloned();
        let idle = Reader::pick(levels, |level| level.stream_idle.as_ref()).cloned();
        let body = Reader::pick(levels, |level| level.body_max.as_ref()).cloned();
        let errors = Reader::pick(levels, |level| level.errors.as_ref()).cloned();
        let rate = Reader::pick(levels, |level| level.rate.as_ref()).cloned();
        let calls = Reader::pick(levels, |level| level.calls.as_ref()).cloned();
        let streams = Reader::pick(levels, |level| level.streams.as_ref()).cloned();
        let retries = Reader::pick(levels, |level| level.retries.as_ref()).cloned();
        let breaker = Reader::pick(levels, |level| level.breaker.as_ref()).cloned();
        let cors = Reader::pick(levels, |level| level.cors.as_ref()).cloned();
        let (json_out, json_in) = self.json(levels);
        let policies = Policies {
            auth: auth.and_then(|word| self.auth(&word)),
            timeout: timeout.map_or(TIMEOUT, |text| self.duration(&text)),
            stream_idle: idle.map_or(STREAM_IDLE, |text| self.duration(&text)),
            body_max: body.map_or(BODY_MAX, |text| self.size(&text)),
            bucket: rate.and_then(|rate| self.bucket(route, &rate)),
            call_slots: calls.map(|max| self.slots(&format!("{route} calls"), &max)),
            stream_slots: streams.map(|max| self.slots(&format!("{route} streams"), &max)),
            retries: self.retries(retries.as_ref()),
            breaker: breaker.and_then(|row| self.breaker(subject, &row)),
            cors: cors.and_then(|row| self.cors(&row)),
            json_out,
            error_style: errors.map_or(ErrorStyle::default(), |name| self.error_style(&name)),
        };
        (policies, json_in)
    }

    /// An error style by name.
    pub(super) fn error_style(&mut self, name: &At<String>) -> ErrorStyle {
        self.choice(
            name,
            &[("problem", ErrorStyle::Problem), ("google", ErrorStyle::Google), ("legacy", ErrorStyle::Legacy)],
        )
        .unwrap_or_default()
    }

    fn auth(&mut self, word: &At<String>) -> Option<Auth> {
        let choices = [("none", None), ("optional", Some(false)), ("required", Some(true))];
        let is_required = self.choice(word, &choices)??;
        if !self.has_credential {
            let text = format!("`auth: {}`: nothing says how a token is checked", word.value);
            let place = Place::new(self.file, word.place.0, word.place.1);
            self.problems.push(Problem::new(place, text).hint("declare it at the top, under `credential`"));
        }
        Some(Auth { credential: self.credential.clone()?, is_required })
    }

    pub(super) fn choice<T: Copy>(&mut self, word: &At<String>, choices: &[(&str, T)]) -> Option<T> {
        let found = choices.iter().find(|choice| choice.0 == word.value).map(|choice| choice.1);
        if found.is_none() {
            let names: Vec<String> = choices.iter().map(|choice| format!("`{}`", choice.0)).collect();
            self.problem(word.place, format!("expected {}, found `{}`", names.join(" or "), word.value));
        }
        found
    }

    fn json(&mut self, levels: &[&PolicyRow]) -> (JsonOut, JsonIn) {
        let pick = |get: fn(&JsonRow) -> Option<&At<String>>| {
            levels.iter().filter_map(|level| level.json.as_ref()).find_map(get).cloned()
        };
        let (names, defaults) = (pick(|json| json.names.as_ref()), pick(|json| json.defaults.as_ref()));
        let (enums, unknown) = (pick(|json| json.enums.as_ref()), pick(|json| json.unknown.as_ref()));
        let out = JsonOut {
            names: names
                .and_then(|word| self.choice(&word, &[("camel", Names::Camel), ("proto", Names::Proto)]))
                .unwrap_or_default(),
            defaults: defaults
                .and_then(|word| self.choice(&word, &[("omit", Defaults::Omit), ("print", Defaults::Print)]))
                .unwrap_or_default(),
            enums: enums
                .and_then(|word| self.choice(&word, &[("name", Enums::Name), ("number", Enums::Number)]))
                .unwrap_or_default(),
        };
        let unknown = unknown
            .and_then(|word| self.choice(&word, &[("reject", Unknown::Reject), ("ignore", Unknown::Ignore)]))
            .unwrap_or_default();
        (out, JsonIn { unknown })
    }

    pub(super) fn duration(&mut self, text: &At<String>) -> Duration {
        match parse_duration(&text.value) {
            Some(length) if !length.is_zero() && length <= TIMEOUT_MAX => length,
            Some(_) => {
                self.problem(text.place, format!("`{}` is out of range: expected 1ms to 300s", text.value));
                TIMEOUT
            }
            None => {
                self.problem(
                    text.place,
                    format!("expected a duration such as `500ms` or `30s`, found `{}`", text.value),
                );
                TIMEOUT
            }
        }
    }

    fn size(&mut self, text: &At<String>) -> usize {
        match parse_size(&text.value) {
            Some(size) if (1..=BODY_LIMIT).contains(&size) => size,
            _ => {
                self.problem(
                    text.place,
                    format!("expected a size such as `64KiB` up to `64MiB`, found `{}`", text.value),
                );
                BODY_MAX
            }
        }
    }

    fn bucket(&mut self, route: &str, row: &At<RateRow>) -> Option<(LimitKey, Arc<Bucket>)> {
        let rate = &row.value;
        let key = match rate.key.as_deref() {
            None | Some("route") => LimitKey::Route,
            Some("client") => LimitKey::Client,
            Some(other) => {
                self.problem(row.place, format!("`key`: expected `route` or `client`, found `{other}`"));
                LimitKey::Route
            }
        };
        let Some(per) = parse_duration(&rate.per).filter(|per| !per.is_zero()) else {
            self.problem(row.place, format!("`per`: expected a duration such as `1s`, found `{}`", rate.per));
            return None;
        };
        let quota = Quota { requests: rate.requests, per, burst: rate.burst.unwrap_or(rate.requests) };
        if let Some((known_key, known)) = self.limits.get(route)
            && *known_key == key
            && known.quota() == quota
        {
            return Some((key, known.clone()));
        }
        match Bucket::new(quota) {
            Some(bucket) => Some((key, Arc::new(bucket))),
            None => {
                self.problem(row.place, "`requests` and `burst` must be above 0");
                None
            }
        }
    }

    fn slots(&mut self, name: &str, max: &At<usize>) -> Arc<Slots> {
        if max.value == 0 {
            self.problem(max.place, "expected a number above 0");
        }
        match self.slots.get(name) {
            Some(known) if known.max() == max.value => known.clone(),
            _ => Slots::new(max.value),
        }
    }
}

/// `1024`, `64KiB`, `1MiB`.
fn parse_size(text: &str) -> Option<usize> {
    let unit = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let count: usize = text[..unit].parse().ok()?;
    match &text[unit..] {
        "" | "B" => Some(count),
        "KiB" => count.checked_mul(1024),
        "MiB" => count.checked_mul(1024 * 1024),
        _ => None,
    }
}
