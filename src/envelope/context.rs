//! The caller context, written straight into a request's bytes; and what a request says of streaming.

use super::compile::{ContextPlan, Envelope};
use crate::transcode::table::WireType;
use crate::transcode::wire::{WireReader, put_bytes, put_number, put_varint};

/// Writes one context message behind a bound request.
pub struct ContextWriter<'o> {
    number: u32,
    /// Where its content begins in `out`.
    start: usize,
    out: &'o mut Vec<u8>,
}

impl<'o> ContextWriter<'o> {
    /// A writer for a plan's field.
    pub fn new(plan: &ContextPlan, out: &'o mut Vec<u8>) -> ContextWriter<'o> {
        ContextWriter { number: plan.number, start: out.len(), out }
    }

    /// A text field; nothing where it is empty.
    pub fn text(&mut self, number: u32, text: &str) {
        if !text.is_empty() {
            put_bytes(number, text.as_bytes(), self.out);
        }
    }

    /// A time, in nanoseconds since 1970.
    pub fn time(&mut self, number: u32, nanos: u128) {
        let (seconds, nanos) = ((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u64);
        put_head(number, 2 + varint_len(seconds) + varint_len(nanos), self.out);
        put_number(1, seconds, self.out);
        put_number(2, nanos, self.out);
    }

    /// A label.
    pub fn label(&mut self, number: u32, key: &str, value: &str) {
        let len = |text: &str| 1 + varint_len(text.len() as u64) + text.len();
        put_head(number, len(key) + len(value), self.out);
        put_bytes(1, key.as_bytes(), self.out);
        put_bytes(2, value.as_bytes(), self.out);
    }

    /// Puts the message's own head before its content.
    pub fn finish(self) {
        let end = self.out.len();
        put_head(self.number, end - self.start, self.out);
        let head = self.out.len() - end;
        self.out[self.start..].rotate_right(head);
    }
}

/// Tag and length of a field of bytes.
fn put_head(number: u32, len: usize, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | 2, out);
    put_varint(len as u64, out);
}

/// Bytes of a varint.
fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

impl Envelope {
    /// True where the request's bytes ask for a stream.
    pub fn wants_stream(&self, payload: &[u8]) -> bool {
        let Some((path, is_wrapper)) = &self.stream_when else { return false };
        let mut path = path.clone();
        if *is_wrapper {
            path.push(1);
        }
        flag_at(payload, &path).unwrap_or(false)
    }

    /// Appends the flag by which a request asks for a stream: what a server-streaming method's caller sets.
    pub fn ask_for_stream(&self, payload: &mut Vec<u8>) {
        let Some((path, is_wrapper)) = &self.stream_when else { return };
        let Some((leaf, around)) = path.split_last() else { return };
        let mut value = Vec::new();
        if *is_wrapper {
            put_bytes(*leaf, &[0x08, 1], &mut value);
        } else {
            put_number(*leaf, 1, &mut value);
        }
        for number in around.iter().rev() {
            let mut outer = Vec::new();
            put_bytes(*number, &value, &mut outer);
            value = outer;
        }
        payload.extend_from_slice(&value);
    }

    /// True where a reply's context carries this request id. A reply without the field proves nothing.
    pub fn answers(&self, request_id: &str, reply: &[u8]) -> bool {
        let (Some(field), Some(number)) = (self.reply_context, self.context.as_ref().and_then(|c| c.request_id)) else {
            return false;
        };
        let mut reader = WireReader::new(reply);
        while let Ok(Some(record)) = reader.record() {
            if record.number != field || record.wire_type != WireType::Length {
                continue;
            }
            let mut inner = WireReader::part(reply, record.from, record.to);
            while let Ok(Some(part)) = inner.record() {
                if part.number == number {
                    return &reply[part.from..part.to] == request_id.as_bytes();
                }
            }
        }
        false
    }
}

/// The last value of a boolean at a path of field numbers; split messages merge.
fn flag_at(bytes: &[u8], path: &[u32]) -> Option<bool> {
    let (number, rest) = path.split_first()?;
    let mut found = None;
    let mut reader = WireReader::new(bytes);
    while let Ok(Some(record)) = reader.record() {
        if record.number != *number {
            continue;
        }
        let value = &bytes[record.from..record.to];
        if rest.is_empty() {
            found = Some(value.iter().any(|byte| byte & 0x7f != 0));
        } else if let Some(inner) = flag_at(value, rest) {
            found = Some(inner);
        } else if rest.len() == 1 && found.is_none() {
            found = Some(false);
        }
    }
    found
}

/// Appends a varint field; nothing where it is zero.
pub(super) fn put_nonzero(number: u32, value: u64, out: &mut Vec<u8>) {
    if value != 0 {
        put_varint(u64::from(number) << 3, out);
        put_varint(value, out);
    }
}
