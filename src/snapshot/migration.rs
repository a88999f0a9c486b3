//! A route's way from an old system to its workers, as run: where the old side is, and who belongs to which side.

mod cutover;
mod report;
mod shadow;

use std::sync::Arc;

use super::build::{Builder, NewRoute};
use super::manifest::{At, MigrateRow, OldRow};
use super::methods::MethodParts;
use super::policy::Reader;
use super::problem::Place;
use super::{Method, Streaming, SubjectBreaker};
use crate::limits::{Cutover, CutoverRule, WHOLE};
use crate::telemetry::MigrationMetrics;
use crate::transcode::table::Cardinality;
use crate::transcode::{BodyPlan, Claims, FieldPath, JsonIn, MessageId, Root, Tables, Unknown};

pub use report::{Report, Seen};
pub use shadow::Shadow;

/// Which side serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What was there before.
    Old,
    /// The route's own workers.
    New,
}

impl Side {
    /// As people and metrics are told.
    pub fn word(self) -> &'static str {
        match self {
            Side::Old => "old",
            Side::New => "new",
        }
    }
}

/// A route's way from its old system to its workers.
#[derive(Debug)]
pub struct Migration {
    /// What was there before.
    pub old: Old,
    /// What keeps a caller on one side, the first that a request has.
    pub by: Vec<StickyKey>,
    /// The share of the new side; kept between generations while old side, steps and `share` are the same.
    pub cutover: Arc<Cutover>,
    /// When it moves by itself.
    pub rule: Option<CutoverRule>,
    /// Where it begins, as written.
    begins_with: u32,
    /// Copies for the side that does not serve.
    pub shadow: Option<Shadow>,
    /// What happens on both sides.
    pub metrics: MigrationMetrics,
}

/// The old side.
#[derive(Debug)]
pub enum Old {
    /// An HTTP system that takes and gives JSON.
    Http(HttpOld),
    /// Workers on another subject.
    Subject {
        /// The same method there.
        method: Arc<Method>,
        /// The breaker of that subject.
        breaker: Option<Arc<SubjectBreaker>>,
    },
}

/// An old HTTP system.
#[derive(Debug)]
pub struct HttpOld {
    /// Its address; with a path, unless the paths are those of the clients.
    pub url: Box<str>,
    /// The path that a client uses is the old system's, too.
    pub keeps_path: bool,
    /// How its answers are read: what the reply message does not have is passed over.
    pub reply: BodyPlan,
}

impl std::fmt::Display for Old {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Old::Http(old) => f.write_str(&old.url),
            Old::Subject { method, .. } => write!(f, "subject {}", method.subject),
        }
    }
}

/// As people are told: where the old side is, and who is served where.
impl std::fmt::Display for Migration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "old {}, ", self.old)?;
        match &self.rule {
            Some(rule) => {
                let steps: Vec<String> = rule.steps.iter().map(|step| percent(*step)).collect();
                write!(f, "cutover {}", steps.join(", "))?;
            }
            None => write!(f, "share {}", percent(self.begins_with))?,
        }
        match self.shadow.as_ref().map(|shadow| shadow.to) {
            None => Ok(()),
            Some(None) => f.write_str(", shadow both"),
            Some(Some(side)) => write!(f, ", shadow {}", side.word()),
        }
    }
}

/// What keeps a caller on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StickyKey {
    /// The verified user.
    User,
    /// The verified tenant.
    Tenant,
    /// The client's address.
    Client,
    /// A request header.
    Header(http::HeaderName),
    /// A single field of the request message.
    Field(FieldPath),
}

impl Migration {
    /// The side of a caller. The same key is at the same place of the line on every route and every gateway, so a
    /// larger share takes further callers over and gives none back.
    pub fn side_of(&self, key: &[u8]) -> Side {
        if place_of_key(key) < self.cutover.share() { Side::New } else { Side::Old }
    }
}

/// A key's place from 0 to [`WHOLE`]: FNV-1a, then the finaliser of MurmurHash3, so that keys which differ in their last
/// sign only lie apart. Must never change: players would change sides.
fn place_of_key(key: &[u8]) -> u32 {
    let mut hash = key
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    ((hash ^ hash >> 33) % u64::from(WHOLE)) as u32
}

/// A share as people write it: `12.5 %`.
pub fn percent(share: u32) -> String {
    format!("{} %", f64::from(share) / 100.0)
}

impl Builder<'_> {
    /// The migration of one route, where a level has one.
    pub(super) fn migration(&mut self, name: &str, new: &NewRoute<'_>) -> Option<Arc<Migration>> {
        if self.is_discovering {
            // What a worker brings has no old system.
            return None;
        }
        let row = new.levels.iter().find_map(|level| level.migrate.as_ref())?;
        let is_own = new.levels.first().is_some_and(|level| level.migrate.is_some());
        let MigrateRow { old, share, by, shadow, cutover } = &row.value;
        if !is_own && old.value.http.is_some() && new.method.streaming == Streaming::Server {
            // A group may hold streams, too, which an old HTTP system does not have.
            return None;
        }
        let before = self.reader.migrations.get(name).cloned();
        let old = self.old_side(new, old);
        let by = self.sticky_keys(new, by);
        let rule = cutover.as_ref().map(|cutover| self.cutover_rule(cutover, shadow.is_some()));
        let begins_with = match (share, &rule) {
            (Some(share), Some(_)) => {
                let text = "`share` stands still, `cutover` moves: a migration has one of the two";
                self.reader.problem(share.place, text);
                None
            }
            (Some(share), None) => self.reader.share(share),
            (None, Some(rule)) => rule.as_ref().and_then(|rule| rule.steps.first().copied()),
            (None, None) => Some(0),
        };
        let shadow = match shadow {
            Some(shadow) => self.shadow(new, shadow, is_own, before.as_deref())?,
            None => None,
        };
        let (old, by, begins_with) = (old?, by?, begins_with?);
        let rule = match rule {
            Some(rule) => Some(rule?),
            None => None,
        };
        let steps = |rule: &Option<CutoverRule>| rule.as_ref().map(|rule| rule.steps.clone());
        let kept = before.filter(|before| {
            let is_same = before.old.to_string() == old.to_string() && before.begins_with == begins_with;
            is_same && steps(&before.rule) == steps(&rule)
        });
        let cutover = kept.map_or_else(|| Arc::new(Cutover::new(begins_with)), |before| before.cutover.clone());
        let metrics = MigrationMetrics::new(name);
        Some(Arc::new(Migration { old, by, cutover, rule, begins_with, shadow, metrics }))
    }

    fn old_side(&mut self, new: &NewRoute<'_>, row: &At<OldRow>) -> Option<Old> {
        match (&row.value.http, &row.value.subject) {
            (Some(http), None) => self.old_http(new, http).map(Old::Http),
            (None, Some(subject)) => self.old_subject(new, subject),
            _ => {
                self.reader.problem(row.place, "`old` has either `http` or `subject`");
                None
            }
        }
    }

    fn old_http(&mut self, new: &NewRoute<'_>, url: &At<String>) -> Option<HttpOld> {
        if new.method.streaming == Streaming::Server {
            let text = format!("`{}` answers with a stream: an old HTTP system answers once", new.method.name);
            self.reader.problem(url.place, text);
            return None;
        }
        let parsed = url.value.parse::<http::Uri>().ok().filter(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some() && uri.query().is_none()
        });
        let Some(parsed) = parsed else {
            let text = format!("expected an address such as `http://10.0.0.7:5000`, found `{}`", url.value);
            self.reader.problem(url.place, text);
            return None;
        };
        let reply = BodyPlan {
            root: Root::Message(new.method.reply),
            options: JsonIn { unknown: Unknown::Ignore },
            claims: Claims::new(),
            lift: None,
        };
        let keeps_path = matches!(parsed.path(), "" | "/");
        let url = if keeps_path { url.value.trim_end_matches('/') } else { &url.value };
        Some(HttpOld { url: url.into(), keeps_path, reply })
    }

    fn old_subject(&mut self, new: &NewRoute<'_>, subject: &At<String>) -> Option<Old> {
        let is = &new.method;
        if is.subject.as_str() == subject.value {
            let text = format!("`{}` is the route's own subject: the old workers need another one", subject.value);
            self.reader.problem(subject.place, text);
            return None;
        }
        let parts = MethodParts {
            name: is.name.to_string(),
            subject: &subject.value,
            queue_group: None,
            request: is.request,
            reply: is.reply,
            chunk: (is.streaming != Streaming::Unary).then_some(is.chunk),
            streaming: is.streaming,
            is_repeatable: is.is_repeatable,
            is_read: is.is_read,
            operation: None,
        };
        let place = Place::new(self.reader.file, subject.place.0, subject.place.1);
        let method = self.compiled(parts, place, &new.levels)?;
        let breaker = Reader::pick(&new.levels, |level| level.breaker.as_ref()).cloned();
        let breaker = breaker.and_then(|row| self.reader.breaker(&subject.value, &row));
        Some(Old::Subject { method, breaker })
    }

    fn sticky_keys(&mut self, new: &NewRoute<'_>, rows: &[At<String>]) -> Option<Vec<StickyKey>> {
        let mut keys: Option<Vec<StickyKey>> = Some(Vec::new());
        for row in rows {
            let key = sticky_key(&self.schema.tables, new.method.request, &row.value);
            match (key, &mut keys) {
                (Ok(key), Some(keys)) => keys.push(key),
                (Ok(_), None) => {}
                (Err(text), _) => {
                    self.reader.problem(row.place, text);
                    keys = None;
                }
            }
        }
        if rows.is_empty() {
            return Some(vec![StickyKey::User]);
        }
        keys
    }
}

fn sticky_key(tables: &Tables, request: MessageId, text: &str) -> Result<StickyKey, String> {
    match text.split_once(':').unwrap_or((text, "")) {
        ("user", "") => Ok(StickyKey::User),
        ("tenant", "") => Ok(StickyKey::Tenant),
        ("client", "") => Ok(StickyKey::Client),
        ("header", name) => http::HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
            .map(StickyKey::Header)
            .map_err(|_| format!("`{name}` is no header name")),
        ("field", path) => {
            let path = FieldPath::resolve(tables, request, path).map_err(|error| format!("`{text}`: {error}"))?;
            let spec = &path.field(tables).spec;
            let is_single = spec.cardinality == Cardinality::Single && path.field(tables).message().is_none();
            match is_single {
                true => Ok(StickyKey::Field(path)),
                false => Err(format!("`{text}`: a caller is known by a single text or number")),
            }
        }
        _ => Err(format!("expected `user`, `tenant`, `client`, `header:NAME` or `field:PATH`, found `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_evenly_along_the_line_and_stay_where_they_are() {
        let places: Vec<u32> = (0..10_000).map(|number| place_of_key(format!("player-{number}").as_bytes())).collect();
        for tenth in 0..10 {
            let count = places.iter().filter(|place| **place / 1_000 == tenth).count();
            assert!((900..1_100).contains(&count), "tenth {tenth}: {count}");
        }
        // Other places would move players from one side to the other, on an update of the gateway.
        assert_eq!([place_of_key(b""), place_of_key(b"p1"), place_of_key(b"p2")], [4342, 9148, 5242]);
    }
}
