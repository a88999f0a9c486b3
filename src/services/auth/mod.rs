//! Sessions by opaque token, and rate limits that all replicas share. Checks no passwords: whoever does asks for a
//! session. A token is told once; the store has its hash.

mod limits;
mod messages;
mod reads;
mod sessions;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::VERSION;
use super::notices::records;
use super::settings::LiveSettings;
use crate::fault::Fault;
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::{Records, RecordsConfig};
use crate::worker::{Context, Repeats, Service};
use limits::Filling;

const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let sessions = records(settings, BucketConfig { name: "tg_sessions", ttl: Some(DAY * 30), history: 2 });
    let limits = records(settings, BucketConfig { name: "tg_limits", ttl: Some(limits::KEPT), history: 1 });
    // A bucket that is full again is as good as none.
    let limits = RecordsConfig { keeps_tombstones: false, ..limits };
    let auth = Auth {
        sessions: Records::open(store, sessions).await?,
        limits: Records::open(store, limits).await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
    };
    Ok(Service::new("auth", VERSION)
        .sharing(auth)
        .unary("auth.v1.AuthService/ValidateSession", Auth::validate)
        .unary("auth.v1.AuthService/CreateSession", Auth::create)
        .unary("auth.v1.AuthService/RevokeSession", Auth::revoke)
        .unary("auth.v1.AuthService/CheckRateLimit", Auth::check_rate_limit)
        .unary("auth.v1.AuthService/ListSessions", Auth::list)
        .stream("auth.v1.AuthService/WatchRevocations", Auth::watch)
        .task("sweeper of sessions", Auth::sweep_sessions)
        .task("sweeper of limits", Auth::sweep_limits)
        .done())
}

struct Auth {
    sessions: Records<Entry>,
    limits: Records<Filling>,
    repeats: Repeats,
    settings: LiveSettings,
}

/// What the bucket of sessions holds: sessions by the hash of their token, and for each user which ones there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Entry {
    Session(Session),
    OfUser { token_hash: String, created_at_ms: i64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    session_id: String,
    user_id: String,
    tenant_id: String,
    session_data: BTreeMap<String, String>,
    created_at_ms: i64,
    last_seen_ms: i64,
    expires_at_ms: i64,
    /// 0 while it is live.
    revoked_at_ms: i64,
}

impl Session {
    fn is_live(&self, now_ms: i64) -> bool {
        self.revoked_at_ms == 0 && now_ms < self.expires_at_ms
    }
}

impl Auth {
    async fn sweep_sessions(self: Arc<Self>, context: Context) {
        self.sessions.sweeper(&context).await;
    }

    async fn sweep_limits(self: Arc<Self>, context: Context) {
        self.limits.sweeper(&context).await;
    }
}

/// Key of a session. No tenant stands in front: the look-up is what yields it.
fn by_hash(token_hash: &str) -> String {
    key(&["t", token_hash])
}

/// Key that says that a user has a session.
fn by_user(tenant_id: &str, user_id: &str, session_id: &str) -> String {
    key(&[tenant_id, "u", user_id, session_id])
}
