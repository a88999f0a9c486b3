//! Percent-decoding (RFC 3986 §2.1) of paths and queries.

use std::borrow::Cow;

/// Why a text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PercentError {
    /// `%` without two hex digits behind it.
    Malformed,
    /// The bytes are no UTF-8.
    NotUtf8,
    /// A control character.
    Control,
}

impl PercentError {
    pub(super) fn text(self) -> &'static str {
        match self {
            PercentError::Malformed => "expected two hex digits behind `%`",
            PercentError::NotUtf8 => "the decoded bytes are not UTF-8",
            PercentError::Control => "control characters cannot stand here",
        }
    }
}

/// Decodes a text. `keeps_slash` leaves `%2F` as it is (captures of several segments, as `google.api.http` says);
/// `plus_is_space` is for queries; `refuses_control` for paths.
pub(super) fn decode(
    text: &str,
    keeps_slash: bool,
    plus_is_space: bool,
    refuses_control: bool,
) -> Result<Cow<'_, str>, PercentError> {
    let needs_work = text.bytes().any(|byte| byte == b'%' || plus_is_space && byte == b'+');
    if !needs_work {
        let has_control = refuses_control && text.bytes().any(|byte| byte < b' ' || byte == 0x7f);
        return if has_control { Err(PercentError::Control) } else { Ok(Cow::Borrowed(text)) };
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = text.get(at + 1..at + 3).filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
                let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok()).ok_or(PercentError::Malformed)?;
                if keeps_slash && byte == b'/' {
                    decoded.extend_from_slice(&bytes[at..at + 3]);
                } else {
                    decoded.push(byte);
                }
                at += 3;
            }
            b'+' if plus_is_space => {
                decoded.push(b' ');
                at += 1;
            }
            byte => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    if refuses_control && decoded.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return Err(PercentError::Control);
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| PercentError::NotUtf8)
}
