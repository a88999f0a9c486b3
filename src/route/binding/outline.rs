//! What a binding reads of a request, for descriptions of its route. Nothing here touches requests.

use http::HeaderName;

use super::{Binding, BodyRule};
use crate::transcode::{BodyPlan, FieldPath, Tables};

/// The claims that hold for every request: a header's hold only where the request has it.
const ALWAYS: u32 = 0;

/// What a binding reads of the body.
pub enum BodyOutline<'b> {
    /// Nothing.
    None,
    /// JSON or protobuf, as the plan says.
    Message(&'b BodyPlan),
    /// Any bytes of any type.
    Raw,
}

impl Binding {
    /// The fields of the path's variables, in order of the template.
    pub fn path_fields(&self) -> impl Iterator<Item = &FieldPath> {
        self.captures.iter().map(|capture| &capture.path)
    }

    /// What it reads of the body.
    pub fn body_outline(&self) -> BodyOutline<'_> {
        match &self.body {
            BodyRule::None => BodyOutline::None,
            BodyRule::Json(plan) => BodyOutline::Message(plan),
            BodyRule::Raw(_) => BodyOutline::Raw,
        }
    }

    /// The request headers that fill fields.
    pub fn bound_headers(&self) -> impl Iterator<Item = (&HeaderName, &FieldPath)> {
        self.headers.iter().map(|(name, path)| (name, path))
    }

    /// True where a query parameter can set the field.
    pub fn query_takes(&self, tables: &Tables, path: &FieldPath) -> bool {
        !self.is_body_all
            && !self.query_claims.covers(path, ALWAYS)
            && self.query_claims.excluded_by(tables, path, ALWAYS).is_none()
    }

    /// The field mask that the body's fields fill where the request gives none.
    pub fn mask(&self) -> Option<&FieldPath> {
        self.mask.as_ref()
    }
}
