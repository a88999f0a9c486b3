//! Headers to and from async-nats, whose own constructors panic on bad text.

use std::str::FromStr as _;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};

use super::super::{BusError, Headers};

/// Our headers as async-nats has them.
pub(super) fn to_nats(headers: &Headers) -> Result<HeaderMap, BusError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter() {
        let bad = |what: String| BusError::Other(format!("header `{name}`: {what}"));
        let key = HeaderName::from_str(name).map_err(|error| bad(error.to_string()))?;
        let value = HeaderValue::from_str(value).map_err(|error| bad(error.to_string()))?;
        map.append(key, value);
    }
    Ok(map)
}

/// Headers that arrived; what is no clean text is left out.
pub(super) fn from_nats(map: &HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(map.len());
    for (name, values) in map.iter() {
        for value in values {
            headers.push(name, value);
        }
    }
    headers
}
