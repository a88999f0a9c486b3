//! Which form of an answer a client takes (RFC 9110 §12.5.1). A form that nobody takes is refused before the request
//! does anything.

use http::{HeaderMap, header};

use crate::fault::{Code, Fault, Reason};

/// The two forms of an answer that is no stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReplyForm {
    /// JSON.
    Json,
    /// The reply's own bytes.
    Protobuf,
}

impl ReplyForm {
    /// The form that a client asks for.
    pub(super) fn of(headers: &HeaderMap) -> Result<ReplyForm, Fault> {
        let offers = [
            ("application/json", ReplyForm::Json),
            ("application/x-protobuf", ReplyForm::Protobuf),
            ("application/protobuf", ReplyForm::Protobuf),
        ];
        preferred(headers, &offers)
            .ok_or_else(|| refusal("this answer comes as `application/json` or `application/x-protobuf`"))
    }
}

/// 406, with what there is.
pub(super) fn refusal(text: &'static str) -> Fault {
    Fault::client(Code::InvalidArgument, text).reason(Reason::NotAcceptable)
}

/// The offer that the client likes best: by weight, then by how exactly it is named, then by the order of the offers.
/// The first one where the client does not care, none where it takes none of them.
pub(super) fn preferred<T: Copy>(headers: &HeaderMap, offers: &[(&str, T)]) -> Option<T> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<(&str, f32)> = values.flat_map(|value| value.split(',')).filter_map(range).collect();
    if ranges.is_empty() {
        return offers.first().map(|offer| offer.1);
    }
    let mut best: Option<((f32, u8), T)> = None;
    for (name, form) in offers {
        let matching = ranges.iter().filter_map(|(range, weight)| Some((exactness(range, name)?, *weight)));
        let Some((exactness, weight)) = matching.max_by_key(|found| found.0) else { continue };
        if weight > 0.0 && best.is_none_or(|(rank, _)| (weight, exactness) > rank) {
            best = Some(((weight, exactness), *form));
        }
    }
    best.map(|found| found.1)
}

/// A media range and its weight.
fn range(text: &str) -> Option<(&str, f32)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((name, weight.and_then(|weight| weight.parse().ok()).unwrap_or(1.0)))
}

/// How exactly a range names a type: 2 by its name, 1 by its family, 0 as anything.
fn exactness(range: &str, name: &str) -> Option<u8> {
    if range.eq_ignore_ascii_case(name) {
        return Some(2);
    }
    let family = range.strip_suffix("/*")?;
    if family == "*" {
        return Some(0);
    }
    name.split('/').next().filter(|own| own.eq_ignore_ascii_case(family)).map(|_| 1)
}
