//! Fields of messages that only the schema knows: texts out of a request, documents in and out of their stored form.

use std::cell::RefCell;

use bytes::Bytes;
use serde_json::Value;

use crate::fault::{Code, Fault};
use crate::schema::operation::{Choice, DocumentKind, From, Into, ScalarAt, Token, Updated};
use crate::store::key_token;
use crate::transcode::table::{Kind, WireType};
use crate::transcode::wire::{WireReader, each_message, put_bytes, put_number, put_varint, scalar_text};
use crate::transcode::{
    BodyPlan, Claims, Defaults, Enums, JsonIn, JsonOut, Names, Root, Scratch, TranscodeError, Unknown, json_to_wire,
    number_order, wire_to_json,
};
use crate::worker::Context;
use crate::worker::records::Document;

/// Longest token of a key in bytes.
const TOKEN_MAX: usize = 128;

/// How documents are stored.
const STORED: JsonOut = JsonOut { names: Names::Proto, defaults: Defaults::Omit, enums: Enums::Name };

/// A request and its context.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) context: &'a Context,
    pub(super) payload: &'a Bytes,
}

impl Found<'_> {
    /// A field's text; nothing where it is absent.
    pub(super) fn text(&self, at: &ScalarAt) -> Option<String> {
        text_of(self.payload, at)
    }

    /// A field's number; 0 where it is absent.
    pub(super) fn number(&self, at: Option<&ScalarAt>) -> u64 {
        // A negative number is no version of anything: a condition on it is never met.
        at.and_then(|at| self.text(at)).map_or(0, |text| text.parse().unwrap_or(u64::MAX))
    }

    /// The key whose fields the request has; INVALID_ARGUMENT where it has those of none.
    pub(super) fn chosen<'c>(&self, choice: &'c Choice) -> Result<&'c [Token], Fault> {
        let has = |token: &Token| token.field().is_none_or(|at| self.text(at).is_some());
        if let Some(key) = choice.keys.iter().find(|key| key.iter().all(has)) {
            return Ok(key);
        }
        if let [only] = choice.keys.as_slice() {
            // Which of its fields is missing is said where it is read.
            return Ok(only);
        }
        let last = |key: &Vec<Token>| key.iter().rev().find_map(Token::field).map(|at| at.name.clone());
        let names: Vec<String> = choice.keys.iter().filter_map(last).collect();
        Err(Fault::client(Code::InvalidArgument, format!("{} is required", names.join(" or ")))
            .detail("field", choice.lacks.as_str())
            .detail("reason", "required"))
    }

    /// The tokens of a key or subject.
    pub(super) fn tokens(&self, tokens: &[Token]) -> Result<Vec<String>, Fault> {
        tokens
            .iter()
            .map(|token| match token {
                Token::Literal(text) => Ok(text.clone()),
                Token::Field(at) => self.token(at),
                Token::Dotted(at) => self.dotted(at),
            })
            .collect()
    }

    /// A subject or pattern.
    pub(super) fn subject(&self, tokens: &[Token]) -> Result<String, Fault> {
        let texts = self.tokens(tokens)?;
        let token = |(token, text): (&Token, String)| match token {
            Token::Literal(_) => text,
            Token::Field(_) => key_token(&text),
            Token::Dotted(_) => text.split('.').map(key_token).collect::<Vec<_>>().join("."),
        };
        Ok(tokens.iter().zip(texts).map(token).collect::<Vec<_>>().join("."))
    }

    /// Tokens joined by dots, as a field has them.
    fn dotted(&self, at: &ScalarAt) -> Result<String, Fault> {
        let text = self.token(at)?;
        if text.split('.').any(str::is_empty) {
            return Err(Fault::client(
                Code::InvalidArgument,
                format!("{} must be tokens joined by single dots", at.name),
            )
            .detail("field", &*at.name)
            .detail("reason", "bad_format"));
        }
        Ok(text)
    }

    fn token(&self, at: &ScalarAt) -> Result<String, Fault> {
        let text = self.text(at).unwrap_or_default();
        let refused = |reason: &'static str, message: String| {
            Err(Fault::client(Code::InvalidArgument, message).detail("field", &*at.name).detail("reason", reason))
        };
        let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>');
        if text.is_empty() {
            refused("required", format!("{} is required", at.name))
        } else if text.len() > TOKEN_MAX || text.contains(is_bad) {
            let text = format!("{} must have 1 to {TOKEN_MAX} bytes, without white space, `*` or `>`", at.name);
            refused("bad_id", text)
        } else {
            Ok(text)
        }
    }

    /// The document of a request, without what the worker writes itself.
    pub(super) fn document(&self, kind: &DocumentKind, from: &From) -> Result<Vec<u8>, Fault> {
        let mut wire = Vec::new();
        match from {
            From::Field(number) => each_message(self.payload, *number, |content| {
                wire.extend_from_slice(content);
                Ok(())
            })
            .map_err(|error| malformed(&error))?,
            From::SameNames(pairs) => {
                let context = self.context.method().envelope.context.as_ref().map(|plan| plan.number);
                let kept = |number: u32| pairs.iter().find(|pair| pair.0 == number).map(|pair| pair.1);
                copy(self.payload, &mut wire, |number| kept(number).filter(|_| context != Some(number)))?;
            }
        }
        without_ours(kind, &wire)
    }
}

/// A document without what the worker writes itself.
pub(super) fn without_ours(kind: &DocumentKind, wire: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut kept = Vec::with_capacity(wire.len());
    let is_ours = |number: u32| {
        kind.version == Some(number)
            || matches!(kind.updated, Some(Updated::Timestamp(own) | Updated::Millis(own)) if own == number)
    };
    copy(wire, &mut kept, |number| (!is_ours(number)).then_some(number))?;
    Ok(kept)
}

/// Copies records, each under the number that it gets.
fn copy(wire: &[u8], out: &mut Vec<u8>, renumber: impl Fn(u32) -> Option<u32>) -> Result<(), Fault> {
    let mut reader = WireReader::new(wire);
    while let Some(record) = reader.record().map_err(|error| malformed(&error))? {
        let Some(number) = renumber(record.number) else { continue };
        put_varint(u64::from(number) << 3 | record.wire_type as u64, out);
        if record.wire_type == WireType::Length {
            put_varint((record.to - record.from) as u64, out);
        }
        out.extend_from_slice(&wire[record.from..record.to]);
        if record.wire_type == WireType::StartGroup {
            put_varint(u64::from(number) << 3 | WireType::EndGroup as u64, out);
        }
    }
    Ok(())
}

/// A scalar's text inside of a message.
pub(in crate::worker) fn text_of(wire: &[u8], at: &ScalarAt) -> Option<String> {
    let mut inside = wire.to_vec();
    for number in &at.through {
        let mut content = Vec::new();
        each_message(&inside, *number, |part| {
            content.extend_from_slice(part);
            Ok(())
        })
        .ok()?;
        inside = content;
    }
    let Some(key) = &at.entry else { return scalar_text(&inside, at.number, at.kind) };
    let mut found = None;
    each_message(&inside, at.number, |entry| {
        if scalar_text(entry, 1, Kind::String).unwrap_or_default() == *key {
            found = scalar_text(entry, 2, at.kind);
        }
        Ok(())
    })
    .ok()?;
    found
}

/// Puts a document where a reply has it.
pub(super) fn place(into: &Into, wire: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    match into {
        Into::Whole => out.extend_from_slice(wire),
        Into::Field(number) => put_bytes(*number, wire, out),
        Into::SameNames(at, pairs) => {
            let there = |number: u32| pairs.iter().find(|pair| pair.0 == number).map(|pair| pair.1);
            match at {
                None => copy(wire, out, there)?,
                Some(number) => {
                    let mut inside = Vec::with_capacity(wire.len());
                    copy(wire, &mut inside, there)?;
                    put_bytes(*number, &inside, out);
                }
            }
        }
    }
    Ok(())
}

/// A document as it is stored: ProtoJSON with proto names, which people and other handlers can read.
pub(super) fn stored(context: &Context, kind: &DocumentKind, wire: &[u8]) -> Result<Value, Fault> {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    let mut json = Vec::with_capacity(wire.len() * 2 + 16);
    SCRATCH
        .with_borrow_mut(|scratch| wire_to_json(context.tables(), kind.message, &STORED, wire, scratch, &mut json))
        .map_err(|error| malformed(&error))?;
    serde_json::from_slice(&json).map_err(|error| unreadable(&error.to_string()))
}

/// A stored document on the wire, with its version and time.
pub(super) fn printed(context: &Context, kind: &DocumentKind, document: &Document<Value>) -> Result<Vec<u8>, Fault> {
    let mut wire = content(context, kind, &document.value)?;
    if let Some(number) = kind.version {
        put_number(number, document.version, &mut wire);
    }
    match kind.updated {
        Some(Updated::Millis(number)) => put_number(number, document.updated_ms as u64, &mut wire),
        Some(Updated::Timestamp(number)) => put_bytes(number, &timestamp(document.updated_ms), &mut wire),
        None => {}
    }
    number_order(&mut wire, 0).map_err(|error| unreadable(&error.to_string()))?;
    Ok(wire)
}

/// A stored document on the wire as it was given.
pub(super) fn content(context: &Context, kind: &DocumentKind, value: &Value) -> Result<Vec<u8>, Fault> {
    let plan = BodyPlan {
        root: Root::Message(kind.message),
        options: JsonIn { unknown: Unknown::Ignore },
        claims: Claims::new(),
        lift: None,
    };
    let json = serde_json::to_vec(value).map_err(|error| unreadable(&error.to_string()))?;
    let mut wire = Vec::with_capacity(json.len());
    json_to_wire(context.tables(), &plan, 0, &json, &mut wire, None).map_err(|error| unreadable(&error.to_string()))?;
    Ok(wire)
}

/// A `google.protobuf.Timestamp`.
fn timestamp(at_ms: i64) -> Vec<u8> {
    let mut time = Vec::with_capacity(12);
    put_number(1, at_ms.div_euclid(1_000) as u64, &mut time);
    let nanos = at_ms.rem_euclid(1_000) as u64 * 1_000_000;
    if nanos > 0 {
        put_number(2, nanos, &mut time);
    }
    time
}

pub(in crate::worker) fn malformed(error: &TranscodeError) -> Fault {
    Fault::client(Code::InvalidArgument, format!("the request does not decode: {error}")).detail("reason", "malformed")
}

pub(super) fn unreadable(text: &str) -> Fault {
    Fault::ours(Code::Internal, "a stored document cannot be read").internal(text.to_owned())
}
