//! Sessions made and ended.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::messages::{Create, Created, GetSettings, GotSettings, Revoke, Revoked, SessionInfo};
use super::token::{self, Seal};
use super::{Auth, Entry, Session, by_hash, by_user, key};
use crate::fault::Fault;
use crate::services::checks::{admin, id, invalid, out_of_range, owner, required, texts};
use crate::services::notices::notice;
use crate::store::Keys;
use crate::worker::records::{Change, Current, Document, EventId, Notice};
use crate::worker::{Context, Failed};

/// Seconds that a session lives where the request does not say, and at most.
const TTL_DEFAULT_S: i32 = 86_400;
const TTL_MAX_S: i32 = 2_592_000;
/// Most bytes of a session's data.
const DATA_MAX: usize = 16 * 1024;
/// Keys of a session's data that give rights.
const RIGHTS: [&str; 2] = ["role", "tenant_id"];
/// How long a session waits for the user's content levels.
const LEVELS_WAIT: Duration = Duration::from_secs(1);

/// A reply as it is kept for repeats.
#[derive(Serialize, Deserialize)]
struct Kept {
    sealed_token: String,
    expires_at_ms: i64,
}

impl Auth {
    pub(super) async fn create(self: Arc<Self>, context: Context, request: Create) -> Result<Created, Failed<Created>> {
        let settings = self.settings.now();
        admin(&context, settings.auth.enforce)?;
        let tenant_id = check(&context, &request)?;
        let key = context.idempotency_key();
        let Some(secret) = settings.auth.seal_key.as_ref().filter(|_| !key.is_empty()) else {
            if !key.is_empty() {
                context.label("idempotent", "false");
            }
            let token = token::new()?;
            let expires_at_ms = self.open(&context, &request, &tenant_id, &token).await?;
            return Ok(Created { session_token: token, expires_at_ms });
        };
        let about = super::key(&[context.tenant(), key]);
        let seal = Seal::new(secret.text(), &about)?;
        let new = seal.close(&token::new()?)?;
        let kept = self.repeats.once_prepared(
            &context,
            || new,
            async |sealed_token: String| {
                let token = seal.open(&sealed_token)?;
                let expires_at_ms = self.open(&context, &request, &tenant_id, &token).await?;
                Ok(Kept { sealed_token, expires_at_ms })
            },
        );
        let kept = kept.await.map_err(|failed| failed.fault)?;
        Ok(Created { session_token: seal.open(&kept.sealed_token)?, expires_at_ms: kept.expires_at_ms })
    }

    /// Stores the session of a token, and gives the time at which it ends.
    async fn open(&self, context: &Context, request: &Create, tenant_id: &str, token: &str) -> Result<i64, Fault> {
        let mut session_data = request.session_data.clone();
        if !tenant_id.is_empty() {
            session_data.insert("tenant_id".to_owned(), tenant_id.to_owned());
        }
        session_data.extend(self.levels(context, tenant_id, &request.user_id).await);
        let token_hash = token::hash(token);
        let session_id = token::session_id(&token_hash).to_owned();
        let ttl_s = if request.ttl_seconds == 0 { TTL_DEFAULT_S } else { request.ttl_seconds };
        let ends = |now_ms: i64| now_ms + i64::from(ttl_s) * 1_000;
        // The user's list comes first: a session that it does not name could never be listed or pushed out.
        let named = by_user(tenant_id, &request.user_id, &session_id);
        let name = |current: &Current<Entry>| {
            let entry = Entry::OfUser { token_hash: token_hash.clone(), created_at_ms: current.now_ms };
            Ok(Change::put(entry, ()).expires_at_ms(ends(current.now_ms)))
        };
        let own = context.for_tenant(context.tenant());
        self.sessions.change(&own, &named, name).await.map_err(|failed| failed.fault)?;
        let make = |current: &Current<Entry>| {
            let (created_at_ms, expires_at_ms) = (current.now_ms, ends(current.now_ms));
            let session = Session {
                session_id: session_id.clone(),
                user_id: request.user_id.clone(),
                tenant_id: tenant_id.to_owned(),
                session_data: session_data.clone(),
                created_at_ms,
                last_seen_ms: created_at_ms,
                expires_at_ms,
                revoked_at_ms: 0,
            };
            let audit = audit(context, "created", &session)?;
            Ok(Change::put(Entry::Session(session), expires_at_ms).expires_at_ms(expires_at_ms).event(audit))
        };
        let made = self.sessions.change(context, &by_hash(&token_hash), make).await;
        let expires_at_ms = made.map_err(|failed| failed.fault)?.reply;
        self.push_out(context, tenant_id, &request.user_id).await?;
        Ok(expires_at_ms)
    }

    /// Revokes the oldest sessions of a user who has too many.
    async fn push_out(&self, context: &Context, tenant_id: &str, user_id: &str) -> Result<(), Fault> {
        let mut sessions: Vec<(i64, String)> = self
            .of_user(context, tenant_id, user_id)
            .await?
            .into_iter()
            .map(|(token_hash, created_at_ms)| (created_at_ms, token_hash))
            .collect();
        sessions.sort_unstable();
        let too_many = sessions.len().saturating_sub(self.settings.now().auth.max_sessions);
        let own = context.for_tenant(context.tenant());
        for (_, token_hash) in sessions.iter().take(too_many) {
            self.end(&own, token_hash).await?;
        }
        Ok(())
    }

    /// The sessions that a user's list names: hash of the token, and when it was made.
    pub(super) async fn of_user(
        &self,
        context: &Context,
        tenant_id: &str,
        user_id: &str,
    ) -> Result<Vec<(String, i64)>, Fault> {
        let named = self.sessions.list(context, &Keys::Under(key(&[tenant_id, "u", user_id]))).await?;
        let named = named.into_iter().filter_map(|(_, Document { value, .. })| match value {
            Entry::OfUser { token_hash, created_at_ms } => Some((token_hash, created_at_ms)),
            Entry::Session(_) => None,
        });
        Ok(named.collect())
    }

    /// The content levels that a user has set, so that a running session keeps them.
    async fn levels(&self, context: &Context, tenant_id: &str, user_id: &str) -> BTreeMap<String, String> {
        let request = GetSettings { player_id: user_id.to_owned(), setting_keys: vec!["content.*".to_owned()] };
        let own = context.for_tenant(tenant_id);
        let asked = match own.peer("settings.v1.SettingsService/GetSettings") {
            Ok(peer) => peer.as_service().timeout(LEVELS_WAIT).ask::<_, GotSettings>(&request).await,
            Err(fault) => Err(fault),
        };
        match asked {
            Ok(got) => got.settings.into_iter().filter(|row| !row.is_default).map(|row| (row.key, row.value)).collect(),
            Err(fault) => {
                // Nobody stays outside because settings are away.
                tracing::warn!(%fault, "a session is made without content levels");
                BTreeMap::new()
            }
        }
    }

    pub(super) async fn revoke(self: Arc<Self>, context: Context, request: Revoke) -> Result<Revoked, Failed<Revoked>> {
        if request.session_token.is_empty() {
            return Err(required("session_token").into());
        }
        let token_hash = token::hash(&request.session_token);
        let write = async { Ok(Revoked { success: self.end(&context, &token_hash).await? }) };
        self.repeats.once(&context, write).await
    }

    /// Ends a session; false where there never was one.
    async fn end(&self, context: &Context, token_hash: &str) -> Result<bool, Fault> {
        let enforces = self.settings.now().auth.enforce;
        let rule = |current: &Current<Entry>| {
            let Some(Entry::Session(session)) = &current.value else {
                return Ok(Change::nothing((current.version > 0, None)));
            };
            owner(context, enforces, "session_token", &session.user_id)?;
            let named = Some((session.tenant_id.clone(), session.user_id.clone()));
            if session.revoked_at_ms > 0 {
                return Ok(Change::nothing((true, named)));
            }
            let session = Session { revoked_at_ms: current.now_ms, ..session.clone() };
            let (audit, expires_at_ms) = (audit(context, "revoked", &session)?, session.expires_at_ms);
            Ok(Change::put(Entry::Session(session), (true, named)).expires_at_ms(expires_at_ms).event(audit))
        };
        let done = self.sessions.change(context, &by_hash(token_hash), rule).await;
        let (is_known, named) = done.map_err(|failed| failed.fault)?.reply;
        if let Some((tenant_id, user_id)) = named {
            let named = by_user(&tenant_id, &user_id, token::session_id(token_hash));
            let own = context.for_tenant(context.tenant());
            let forget = |current: &Current<Entry>| match current.value {
                Some(_) => Ok(Change::delete(())),
                None => Ok(Change::nothing(())),
            };
            self.sessions.change(&own, &named, forget).await.map_err(|failed| failed.fault)?;
        }
        Ok(is_known)
    }
}

/// Everything that is wrong with the request; gives the session's tenant.
fn check(context: &Context, request: &Create) -> Result<String, Fault> {
    id("user_id", &request.user_id)?;
    if RIGHTS.iter().any(|right| request.session_data.contains_key(*right)) {
        // Also where nothing else is enforced: a session with rights outlives that.
        admin(context, true)?;
    }
    texts("session_data", &request.session_data)?;
    if request.session_data.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > DATA_MAX {
        return Err(invalid("session_data", "too_long", format!("session_data has more than {DATA_MAX} bytes")));
    }
    let tenant_id = request.session_data.get("tenant_id").map_or(context.tenant(), String::as_str);
    if !tenant_id.is_empty() {
        id("session_data.tenant_id", tenant_id)?;
        if tenant_id.starts_with('_') {
            return Err(invalid("session_data.tenant_id", "bad_id", "tenant ids do not begin with `_`"));
        }
    }
    if !(0..=TTL_MAX_S).contains(&request.ttl_seconds) {
        return Err(out_of_range("ttl_seconds", 0, TTL_MAX_S));
    }
    Ok(tenant_id.to_owned())
}

/// What is told of a session, without its data and its token.
fn audit(context: &Context, what: &str, session: &Session) -> Result<Notice, Fault> {
    let info = SessionInfo { session_data: BTreeMap::new(), ..super::reads::info(session.clone()) };
    let id = EventId::Text(format!("audit:{}:{what}", session.session_id));
    Ok(notice(context, &format!("audit.auth.{what}"), id, "auth.v1.SessionInfo", &info)?
        .with("session_id", &*session.session_id)
        .with("user_id", &*session.user_id))
}
