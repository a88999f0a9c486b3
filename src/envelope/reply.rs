//! Replies and chunks opened at the gateway, and errors written at the worker.

use std::time::Duration;

use bytes::Bytes;

use super::compile::{Envelope, ErrorPlan};
use super::context::put_nonzero;
use super::status;
use crate::fault::{Code, Fault, Reason};
use crate::transcode::table::{Kind, WireType};
use crate::transcode::wire::{WireReader, put_bytes};
use crate::transcode::{MessageId, Tables};

/// Header with the text of a service error (NATS ADR-32).
pub const SERVICE_ERROR: &str = "Nats-Service-Error";
/// Header with the number of a service error (NATS ADR-32).
pub const SERVICE_ERROR_CODE: &str = "Nats-Service-Error-Code";
/// Header of a message without a body that says that a stream has begun, though its first chunk is still to come.
pub const STREAM_BEGUN: &str = "Tidegate-Begun";
/// Longest text that a worker's error may show to a client.
const MESSAGE_MAX: usize = 4_096;

/// A chunk, opened.
#[derive(Debug)]
pub struct Chunk {
    /// Its number, where its type carries one.
    pub index: Option<u64>,
    /// Its resume point, where its type carries one.
    pub id: Option<u64>,
    /// It says that it is the last.
    pub is_last: bool,
    /// It says that the stream failed.
    pub fault: Option<Fault>,
}

fn malformed(error: &crate::transcode::TranscodeError) -> Fault {
    Fault::upstream(Code::Internal, "the worker's reply does not decode")
        .reason(Reason::MalformedReply)
        .internal(error.to_string())
}

impl Envelope {
    /// Finds the worker's error in a reply; `Ok` where it succeeded.
    pub fn open_reply<'h>(
        &self,
        tables: &Tables,
        reply: MessageId,
        header: impl Fn(&str) -> Option<&'h str>,
        payload: &[u8],
    ) -> Result<(), Fault> {
        match find_error(tables, reply, &self.reply_error, &[self.reply_context], payload)? {
            Some(fault) => Err(fault),
            None => header_error(&self.reply_error, header, payload).map_or(Ok(()), Err),
        }
    }

    /// Reads a chunk's place and error.
    pub fn open_chunk(&self, tables: &Tables, message: MessageId, payload: &[u8]) -> Result<Chunk, Fault> {
        let mut chunk = Chunk { index: self.chunk.index.map(|_| 0), id: None, is_last: false, fault: None };
        let mut reader = WireReader::new(payload);
        while let Some(record) = reader.record().map_err(|error| malformed(&error))? {
            let is_number = record.wire_type == WireType::Varint;
            let value = || WireReader::part(payload, record.from, record.to).varint().unwrap_or(0);
            if is_number && Some(record.number) == self.chunk.index {
                chunk.index = Some(value());
            } else if is_number && Some(record.number) == self.chunk.id {
                chunk.id = Some(value());
            } else if is_number && Some(record.number) == self.chunk.last {
                chunk.is_last = value() != 0;
            }
        }
        let places = [self.chunk.context, self.chunk.index, self.chunk.last, self.chunk.id];
        chunk.fault = find_error(tables, message, &self.chunk.error, &places, payload)?;
        chunk.is_last |= chunk.fault.is_some();
        Ok(chunk)
    }
}

/// The error field of a message, as a fault. `others` are the fields that the house style keeps for itself.
fn find_error(
    tables: &Tables,
    message: MessageId,
    plan: &ErrorPlan,
    others: &[Option<u32>],
    payload: &[u8],
) -> Result<Option<Fault>, Fault> {
    let ErrorPlan::InBand { field, code, message: text, details, copies_rest } = plan else { return Ok(None) };
    let (mut number, mut message_text, mut pairs, mut is_present) = (0, String::new(), Vec::new(), false);
    let mut reader = WireReader::new(payload);
    while let Some(record) = reader.record().map_err(|error| malformed(&error))? {
        if record.number != *field || record.wire_type != WireType::Length {
            continue;
        }
        is_present = true;
        let mut inner = WireReader::part(payload, record.from, record.to);
        while let Some(part) = inner.record().map_err(|error| malformed(&error))? {
            let bytes = &payload[part.from..part.to];
            if part.number == code.0 && part.wire_type == WireType::Varint {
                number = WireReader::part(payload, part.from, part.to).varint().unwrap_or(0) as i32;
            } else if part.number == *text {
                message_text = shown(bytes);
            } else if Some(part.number) == *details {
                pairs.extend(pair(bytes));
            }
        }
    }
    if !is_present {
        return Ok(None);
    }
    let name = tables.enumeration(code.1).name_of(number);
    let code = name.and_then(Code::from_name).unwrap_or(Code::Unknown);
    let mut fault = Fault::upstream(code, message_text);
    if let Some(name) = name {
        fault = fault.label(name.into());
    }
    if let Some(wait) = pairs.iter().find(|pair| pair.0 == "retry_after_ms").and_then(|pair| pair.1.parse().ok()) {
        fault = fault.retry_after(Duration::from_millis(wait));
    }
    pairs.sort();
    for (key, value) in pairs {
        fault = fault.detail(key, value);
    }
    if *copies_rest {
        for (key, value) in rest(tables, message, *field, others, payload) {
            fault = fault.detail(key, value);
        }
    }
    Ok(Some(fault))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MESSAGE_MAX)]).into_owned()
}

/// Key and value of a string map's entry.
pub(super) fn pair(bytes: &[u8]) -> Option<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    let mut reader = WireReader::new(bytes);
    while let Some(record) = reader.record().ok()? {
        match record.number {
            1 => key = shown(&bytes[record.from..record.to]),
            2 => value = shown(&bytes[record.from..record.to]),
            _ => {}
        }
    }
    Some((key, value))
}

/// The other single scalar fields that are set, as text by their names.
fn rest(
    tables: &Tables,
    message: MessageId,
    error: u32,
    others: &[Option<u32>],
    payload: &[u8],
) -> Vec<(String, String)> {
    let table = tables.message(message);
    let mut found: Vec<(String, String)> = Vec::new();
    let mut reader = WireReader::new(payload);
    while let Ok(Some(record)) = reader.record() {
        let field = table.field_by_number(record.number).map(|id| table.field(id));
        let Some(field) =
            field.filter(|field| field.spec.number != error && !others.contains(&Some(field.spec.number)))
        else {
            continue;
        };
        let mut value = WireReader::part(payload, record.from, record.to);
        let text = match field.spec.kind {
            Kind::String => shown(&payload[record.from..record.to]),
            Kind::Bool => (value.varint().unwrap_or(0) != 0).to_string(),
            Kind::Uint32 | Kind::Uint64 => value.varint().unwrap_or(0).to_string(),
            Kind::Int32 | Kind::Int64 => (value.varint().unwrap_or(0) as i64).to_string(),
            Kind::Double => f64::from_bits(value.fixed64().unwrap_or(0)).to_string(),
            _ => continue,
        };
        let is_zero = text.is_empty() || text == "0" || text == "false";
        found.retain(|row| row.0 != field.spec.name);
        if !is_zero {
            found.push((field.spec.name.clone(), text));
        }
    }
    found
}

/// An error in the headers of the services protocol.
fn header_error<'h>(plan: &ErrorPlan, header: impl Fn(&str) -> Option<&'h str>, payload: &[u8]) -> Option<Fault> {
    let code = header(SERVICE_ERROR_CODE)?;
    let text = header(SERVICE_ERROR).unwrap_or("the worker answered with an error").to_owned();
    let Ok(number) = code.trim().parse::<i32>() else {
        return Some(
            Fault::upstream(Code::Internal, "the worker's reply does not decode")
                .reason(Reason::MalformedReply)
                .internal(format!("`{SERVICE_ERROR_CODE}: {code}` is no number")),
        );
    };
    if number == 0 {
        return None;
    }
    let fault = match number {
        400..=599 => Fault::upstream(code_of_status(number), text).detail("service_error_code", number.to_string()),
        number => Fault::upstream(Code::from_number(number), text),
    };
    let is_status = matches!(plan, ErrorPlan::Status) && !payload.is_empty();
    if !is_status {
        return Some(fault);
    }
    let fault = status::details(payload).into_iter().fold(fault, |fault, (key, value)| fault.detail(key, value));
    Some(fault.status(Bytes::copy_from_slice(payload)))
}

/// The code that an HTTP status in a service error stands for.
fn code_of_status(status: i32) -> Code {
    match status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::Aborted,
        412 => Code::FailedPrecondition,
        429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        402..=499 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// Appends an error in a plan's form to a reply's bytes: the error field, where the message has one.
pub fn write_error(tables: &Tables, plan: &ErrorPlan, fault: &Fault, out: &mut Vec<u8>) {
    match plan {
        ErrorPlan::InBand { field, code, message, details, .. } => {
            let codes = tables.enumeration(code.1);
            let name = fault.code_name();
            let number = codes.number_of(name.as_bytes()).or_else(|| codes.number_of(kin(fault.code()).as_bytes()));
            let mut content = Vec::new();
            put_nonzero(code.0, number.unwrap_or(0) as u64, &mut content);
            if !fault.message().is_empty() {
                put_bytes(*message, fault.message().as_bytes(), &mut content);
            }
            if let Some(details) = details {
                let mut pairs: Vec<_> = fault.details().iter().collect();
                pairs.sort();
                for (key, value) in pairs {
                    let mut entry = Vec::new();
                    put_bytes(1, key.as_bytes(), &mut entry);
                    put_bytes(2, value.as_bytes(), &mut entry);
                    put_bytes(*details, &entry, &mut content);
                }
            }
            put_bytes(*field, &content, out);
        }
        ErrorPlan::Headers => {}
        ErrorPlan::Status => match fault.rpc_status() {
            Some(status) => out.extend_from_slice(status),
            None => status::write(fault, out),
        },
    }
}

/// The nearest code for enums that lack one of the standard's.
fn kin(code: Code) -> &'static str {
    match code {
        Code::AlreadyExists => "CONFLICT",
        Code::Conflict => "ALREADY_EXISTS",
        Code::Cancelled => "ABORTED",
        Code::DataLoss => "INTERNAL",
        other => other.name(),
    }
}
