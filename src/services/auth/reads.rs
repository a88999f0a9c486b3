//! Sessions looked up, listed, and watched as they are revoked.

use std::sync::Arc;

use super::messages::{Item, List, Listed, SessionInfo, Validate, Validated, Watch};
use super::{Auth, Entry, Session, by_hash, token};
use crate::fault::Fault;
use crate::services::checks::{admin, id, required};
use crate::store::Keys;
use crate::worker::records::{Change, Current, RecordSeen};
use crate::worker::{Chunks, Context};

/// How old `last_seen_ms` may become.
const SEEN_MS: i64 = 60_000;

impl Auth {
    /// Any token takes the same way, so that the time says nothing about it.
    pub(super) async fn validate(self: Arc<Self>, context: Context, request: Validate) -> Result<Validated, Fault> {
        if request.session_token.is_empty() {
            return Err(required("session_token"));
        }
        let now_ms = context.now_ms();
        let token_hash = token::hash(&request.session_token);
        let session = self.session(&context, &token_hash).await?;
        let Some(session) = session.filter(|session| session.is_live(now_ms)) else { return Ok(Validated::default()) };
        if now_ms - session.last_seen_ms >= SEEN_MS {
            self.see(&context, &token_hash).await;
        }
        let Session { user_id, session_data, expires_at_ms, .. } = session;
        Ok(Validated { is_valid: true, user_id, session_data, expires_at_ms })
    }

    pub(super) async fn list(self: Arc<Self>, context: Context, request: List) -> Result<Listed, Fault> {
        admin(&context, self.settings.now().auth.enforce)?;
        id("user_id", &request.user_id)?;
        let mut sessions = Vec::new();
        for (token_hash, _) in self.of_user(&context, context.tenant(), &request.user_id).await? {
            let session = self.session(&context, &token_hash).await?;
            sessions.extend(session.filter(|session| session.is_live(context.now_ms())).map(info));
        }
        sessions.sort_by(|a, b| (a.created_at_ms, &a.session_id).cmp(&(b.created_at_ms, &b.session_id)));
        Ok(Listed { sessions })
    }

    pub(super) async fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        admin(&context, self.settings.now().auth.enforce)?;
        let mut watch = self.sessions.watch(Keys::Under("t".to_owned()), Some(request.after_revision)).await?;
        if watch.is_reset() {
            context.label("reset", "true");
        }
        loop {
            let seen = tokio::select! {
                seen = watch.next(&context) => seen?,
                _ = context.until_cancelled() => return Ok(()),
            };
            let RecordSeen::Change { key, document: Some(document), revision, .. } = seen else { continue };
            if let Entry::Session(session) = document.value
                && session.revoked_at_ms > 0
            {
                let token_hash = key.trim_start_matches("t.").to_owned();
                chunks.send(&Item { revision, token_hash, user_id: session.user_id }).await?;
            }
        }
    }

    async fn session(&self, context: &Context, token_hash: &str) -> Result<Option<Session>, Fault> {
        let found = self.sessions.get(context, &by_hash(token_hash)).await?;
        Ok(found.and_then(|document| match document.value {
            Entry::Session(session) => Some(session),
            Entry::OfUser { .. } => None,
        }))
    }

    /// Notes that a session is in use. A session is no less valid where that cannot be noted.
    async fn see(&self, context: &Context, token_hash: &str) {
        let rule = |current: &Current<Entry>| match &current.value {
            Some(Entry::Session(session))
                if session.is_live(current.now_ms) && current.now_ms - session.last_seen_ms >= SEEN_MS =>
            {
                let session = Session { last_seen_ms: current.now_ms, ..session.clone() };
                let expires_at_ms = session.expires_at_ms;
                Ok(Change::put(Entry::Session(session), ()).expires_at_ms(expires_at_ms))
            }
            _ => Ok(Change::nothing(())),
        };
        let own = context.for_tenant(context.tenant());
        if let Err(failed) = self.sessions.change(&own, &by_hash(token_hash), rule).await {
            tracing::warn!(fault = %failed.fault, "the use of a session is not noted");
        }
    }
}

/// A session as it is shown.
pub(super) fn info(session: Session) -> SessionInfo {
    SessionInfo {
        session_id: session.session_id,
        created_at_ms: session.created_at_ms,
        last_seen_ms: session.last_seen_ms,
        expires_at_ms: session.expires_at_ms,
        session_data: session.session_data,
    }
}
