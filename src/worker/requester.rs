//! Who asked for work that goes on after its reply: kept with the work, so that its calls are made for them and with no
//! more rights than they have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::context::Context;
use crate::envelope::{Caller, Source};

/// Who asked: tenant, user, trace, and the labels that only the gateway sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    tenant: String,
    user: String,
    roles: String,
    traceparent: String,
    /// Text fields of the context by name.
    texts: BTreeMap<String, String>,
    /// The reserved labels.
    labels: BTreeMap<String, String>,
}

impl Requester {
    /// The tenant; empty is the default tenant.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }
}

impl Context {
    /// Who asked for this call.
    pub fn requester(&self) -> Requester {
        let (caller, plan) = (self.caller(), self.method().envelope.context.as_ref());
        let is_kept = |source: &Source| matches!(source, Source::CallerUser | Source::Traceparent);
        let fields = plan.into_iter().flat_map(|plan| &plan.fields);
        let kept = fields.filter(|field| field.sources.iter().any(is_kept));
        let texts = kept.map(|field| (field.name.clone(), caller.text(&field.name).to_owned())).collect();
        let reserved = plan.and_then(|plan| plan.labels.as_ref()).map(|labels| labels.reserved.as_slice());
        let is_reserved = |name: &String| reserved.unwrap_or_default().contains(name);
        let labels = caller.labels.iter().filter(|(name, _)| is_reserved(name));
        Requester {
            tenant: self.tenant().to_owned(),
            user: self.user().to_owned(),
            roles: self.roles().collect::<Vec<_>>().join(","),
            traceparent: self.header("traceparent").unwrap_or_default().to_owned(),
            texts,
            labels: labels.map(|(name, value)| (name.clone(), value.clone())).collect(),
        }
    }

    /// The service's own work for somebody who asked earlier: a request id of its own, no deadline. Calls to peers are
    /// made for them.
    pub fn for_requester(&self, requester: &Requester) -> Context {
        let Requester { tenant, user, roles, traceparent, texts, labels } = requester;
        let caller = Caller { texts: texts.clone(), labels: labels.clone() };
        let headers = [("Tidegate-User", user), ("Tidegate-Roles", roles), ("traceparent", traceparent)];
        Context::own_for(self.around(), tenant, caller, &headers)
    }
}
