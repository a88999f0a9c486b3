//! What a binding binds from where, for people and for comparisons; never on the way of a request.

use std::borrow::Cow;

use super::{Binding, BodyRule, Capture};
use crate::route::percent;
use crate::route::segments::Segments;
use crate::transcode::{FieldPath, Root, Tables};

/// The fields of a request by what sets them; paths in proto names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundFields {
    /// Path variables in order.
    pub path: Vec<String>,
    /// Request header and field.
    pub headers: Vec<(String, String)>,
    /// Constants, encoded as the request message.
    pub presets: Vec<u8>,
    /// `*` for everything else, a field's name, or empty without a body.
    pub body: String,
    /// The body is taken as it is, of any content type.
    pub is_raw_body: bool,
    /// The query may set fields.
    pub takes_query: bool,
    /// Members and parameters without a field are passed over.
    pub ignores_unknown: bool,
}

impl Binding {
    /// What this binding binds.
    pub fn fields(&self, tables: &Tables) -> BoundFields {
        let field_name = |path: &FieldPath| path.name(tables);
        let body = match &self.body {
            BodyRule::None => String::new(),
            BodyRule::Raw(path) => path.as_ref().map_or_else(|| "*".to_owned(), field_name),
            BodyRule::Json(plan) => match plan.root {
                Root::Message(_) => "*".to_owned(),
                Root::Field(message, field) => tables.message(message).field(field).spec.name.clone(),
            },
        };
        BoundFields {
            path: self.captures.iter().map(|capture| field_name(&capture.path)).collect(),
            headers: self.headers.iter().map(|(header, path)| (header.to_string(), field_name(path))).collect(),
            presets: self.presets.clone(),
            body,
            is_raw_body: self.takes_any_content(),
            takes_query: !self.is_body_all,
            ignores_unknown: self.ignores_unknown,
        }
    }

    /// The text that each path variable takes of a path which its template fits: decoded where that is possible.
    pub fn captured<'p>(&self, path: &'p str, segments: &Segments) -> Vec<Cow<'p, str>> {
        let decoded = |capture: &Capture| {
            let text = self.capture_text(path, segments, capture);
            percent::decode(text, capture.is_multi, false, true).unwrap_or(Cow::Borrowed(text))
        };
        self.captures.iter().map(decoded).collect()
    }
}
