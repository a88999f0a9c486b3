//! The credential that callers show, as written → as run.

use std::sync::Arc;

use super::build::Builder;
use super::manifest::{At, CredentialRow, PolicyRow, RevocationsRow};
use super::{Method, Streaming};
use crate::envelope::{CredentialFields, CredentialPlan, RevocationPlan};

/// How a bearer token is checked.
#[derive(Debug)]
pub struct Credential {
    /// The method that is asked.
    pub method: Arc<Method>,
    /// The fields of its request and reply.
    pub plan: CredentialPlan,
    /// Everything that the declaration says: what was found under another one does not count here.
    pub declaration: Box<str>,
    /// Who tells of tokens that are revoked, where somebody does.
    pub revocations: Option<Revocations>,
}

/// A stream of revoked tokens.
#[derive(Debug)]
pub struct Revocations {
    /// The method that is asked.
    pub method: Arc<Method>,
    /// The fields of its request and chunks.
    pub plan: RevocationPlan,
}

/// How the callers of a route are known.
#[derive(Clone, Debug)]
pub struct Auth {
    /// What they show.
    pub credential: Arc<Credential>,
    /// A request without it is refused.
    pub is_required: bool,
}

impl Builder<'_> {
    /// Resolves the declaration, before any route asks for it.
    pub(super) fn credential(&mut self) {
        let manifest = self.manifest;
        let Some(row) = &manifest.credential else { return };
        self.reader.has_credential = true;
        let CredentialRow { call, token, valid, user, tenant, roles, expires, revocations } = &row.value;
        let Some((method, _)) = self.called_as_routed(call) else { return };
        if method.streaming == Streaming::Server {
            let text = format!("`{}` answers with a stream: a credential is checked by one reply", call.value);
            return self.reader.problem(call.place, text);
        }
        let fields = CredentialFields {
            token: &token.value,
            valid: &valid.value,
            user: &user.value,
            tenant: written(tenant),
            roles: written(roles),
            expires: written(expires),
        };
        let compiled = CredentialPlan::compile(&self.schema.tables, method.request, method.reply, &fields);
        let plan = match compiled {
            Ok(plan) => plan,
            Err(wrong) => {
                for (key, text) in wrong {
                    let place = match key {
                        "token" => Some(token),
                        "valid" => Some(valid),
                        "user" => Some(user),
                        "tenant" => tenant.as_ref(),
                        "roles" => roles.as_ref(),
                        _ => expires.as_ref(),
                    };
                    self.reader.problem(place.map_or(row.place, |field| field.place), text);
                }
                return;
            }
        };
        let declaration = format!("{} {fields:?}", method.name).into();
        let revocations = revocations.as_ref().and_then(|row| self.revocations(&row.value));
        self.reader.credential = Some(Arc::new(Credential { method, plan, declaration, revocations }));
    }

    fn revocations(&mut self, row: &RevocationsRow) -> Option<Revocations> {
        let RevocationsRow { call, token_hash, after } = row;
        let (method, is_stream) = self.called_as_routed(call)?;
        if !is_stream {
            let text = format!("`{}` answers once: revocations are told by a stream", call.value);
            self.reader.problem(call.place, text);
            return None;
        }
        let tables = &self.schema.tables;
        let (hash, behind) = (token_hash.value.as_str(), written(after));
        match RevocationPlan::compile(tables, method.request, method.chunk, hash, behind) {
            Ok(plan) => Some(Revocations { method, plan }),
            Err(wrong) => {
                for (key, text) in wrong {
                    let place = if key == "after" { after.as_ref().unwrap_or(token_hash) } else { token_hash };
                    self.reader.problem(place.place, text);
                }
                None
            }
        }
    }

    /// A method with the policies that its own routes have, and whether it answers with a stream.
    fn called_as_routed(&mut self, call: &At<String>) -> Option<(Arc<Method>, bool)> {
        let manifest = self.manifest;
        let service = call.value.split('/').next().unwrap_or_default();
        let around = manifest
            .annotations
            .iter()
            .filter(|row| row.value.services.iter().any(|wanted| wanted.value == "*" || wanted.value == service));
        let own = manifest.methods.get(&call.value).map(|row| &row.value);
        let levels: Vec<&PolicyRow> =
            own.into_iter().chain(around.map(|row| &row.value.policies)).chain([&manifest.defaults]).collect();
        self.called(call, &levels)
    }
}

fn written(field: &Option<At<String>>) -> Option<&str> {
    field.as_ref().map(|field| field.value.as_str())
}
