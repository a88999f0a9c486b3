//! Replies and their headers in the method's house style: context echoed, error in its field or in headers.

use serde::Serialize;

use super::context::Context;
use super::service::Answer;
use crate::bus::Headers;
use crate::envelope::{Caller, ErrorPlan, SERVICE_ERROR, SERVICE_ERROR_CODE, echo_context, write_error};
use crate::fault::{Code, Fault};
use crate::transcode::{MessageId, number_order, to_wire};

/// Largest body of a reply; the rest of a 1 MiB message is for headers.
const REPLY_MAX: usize = 983_040;
/// Longest error text in a header, in characters.
const HEADER_TEXT_MAX: usize = 512;

/// Appends the fields of a reply: what differs between replies, so that the rest stands in the program once.
type Append<'a> = &'a dyn Fn(&mut Vec<u8>) -> Result<(), Fault>;

/// The bytes of a successful reply.
pub(super) fn success<R: Serialize>(context: &Context, value: &R) -> Answer {
    success_with(context, &|out| append(context, context.method().reply, value, out))
}

/// The same for a reply that is encoded already, its context aside.
pub(super) fn success_encoded(context: &Context, reply: &[u8]) -> Answer {
    success_with(context, &|out| append_encoded(reply, out))
}

fn success_with(context: &Context, append: Append<'_>) -> Answer {
    let method = context.method();
    let mut out = Vec::with_capacity(256);
    echo(context, method.envelope.reply_context, &mut out);
    match append(&mut out) {
        Ok(()) if out.len() <= REPLY_MAX => Ok(out),
        Ok(()) => {
            let text = format!("the reply has {} bytes, the bus takes {REPLY_MAX}", out.len());
            let fault = Fault::ours(Code::Internal, "the reply is larger than one bus message").internal(text);
            Err(refusal(context, fault))
        }
        Err(fault) => Err(refusal(context, fault)),
    }
}

/// The bytes of a failed reply, with the fields that it says besides the error.
pub(super) fn failure<R: Serialize>(context: &Context, fault: Fault, reply: Option<&R>) -> (Fault, Vec<u8>) {
    match reply {
        Some(value) => failure_with(context, fault, &|out| append(context, context.method().reply, value, out)),
        None => refusal(context, fault),
    }
}

fn failure_with(context: &Context, fault: Fault, append: Append<'_>) -> (Fault, Vec<u8>) {
    let method = context.method();
    let fault = with_wait(fault);
    let mut out = Vec::with_capacity(256);
    if !matches!(method.envelope.reply_error, ErrorPlan::Status) {
        echo(context, method.envelope.reply_context, &mut out);
        let _ = append(&mut out);
    }
    write_error(&method.tables, &method.envelope.reply_error, &fault, &mut out);
    let _ = number_order(&mut out, 0);
    (fault, out)
}

/// A fault of ours without anything else: a request that was not handled.
pub(super) fn refusal(context: &Context, fault: Fault) -> (Fault, Vec<u8>) {
    failure_with(context, fault, &|_| Ok(()))
}

/// The fault of a request that does not decode: nothing of it is echoed.
pub(super) fn malformed(context: &Context, fault: Fault) -> (Fault, Vec<u8>) {
    let (method, mut out) = (context.method(), Vec::with_capacity(128));
    write_error(&method.tables, &method.envelope.reply_error, &fault, &mut out);
    (fault, out)
}

/// Appends a value in number order behind what `out` holds of the same message.
pub(super) fn append<T: Serialize>(
    context: &Context,
    message: MessageId,
    value: &T,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    to_wire(&context.method().tables, message, value, out).map_err(|error| unencoded(&error))?;
    number_order(out, 0).map_err(|error| unencoded(&error))
}

/// Appends encoded fields in number order behind what `out` holds of the same message.
pub(super) fn append_encoded(fields: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    out.extend_from_slice(fields);
    number_order(out, 0).map_err(|error| unencoded(&error))
}

#[cold]
fn unencoded(error: &dyn std::fmt::Display) -> Fault {
    Fault::ours(Code::Internal, "the reply does not encode").internal(error.to_string())
}

/// Appends the context of a reply or chunk, where its message has one.
pub(super) fn echo(context: &Context, field: Option<u32>, out: &mut Vec<u8>) {
    let Some(field) = field else { return };
    let method = context.method();
    // A request without a context gets one back that says nothing but the time.
    let caller: &Caller = context.caller();
    let now_nanos = u128::from(context.now_ms().unsigned_abs()) * 1_000_000;
    echo_context(&method.envelope, &method.tables, field, caller, &context.labels(), now_nanos, out);
}

/// The headers of every reply and chunk.
pub(super) fn headers(message_type: &str) -> Headers {
    let mut headers = Headers::with_capacity(6);
    headers.push("content-type", "application/x-protobuf");
    headers.push("message-type", message_type);
    headers
}

/// The headers of a unary reply and of a stream's first chunk.
pub(super) fn identify(context: &Context, headers: &mut Headers) {
    headers.push("Tidegate-Instance", context.instance());
    for name in ["Tidegate-Call", "traceparent"] {
        if let Some(value) = context.header(name) {
            headers.push(name, value);
        }
    }
}

/// The headers of the services protocol for a fault (NATS ADR-32).
pub(super) fn error_headers(context: &Context, plan: &ErrorPlan, fault: &Fault, headers: &mut Headers) {
    let own = match plan {
        ErrorPlan::InBand { code, .. } => {
            context.method().tables.enumeration(code.1).number_of(fault.code_name().as_bytes())
        }
        ErrorPlan::Headers | ErrorPlan::Status => None,
    };
    // Zero would read as success.
    let number = own.filter(|number| *number != 0).unwrap_or_else(|| fault.code().number());
    headers.push(SERVICE_ERROR_CODE, number.to_string());
    let text = fault.message().chars().take(HEADER_TEXT_MAX).map(|c| if c.is_control() { ' ' } else { c });
    let text: String = text.collect();
    headers.push(SERVICE_ERROR, text);
}

/// The fault with its pause as a detail, which is how in-band errors carry it.
fn with_wait(fault: Fault) -> Fault {
    match fault.retry() {
        Some(after) if !fault.details().iter().any(|row| row.0 == "retry_after_ms") => {
            fault.detail("retry_after_ms", after.as_millis().to_string())
        }
        _ => fault,
    }
}
