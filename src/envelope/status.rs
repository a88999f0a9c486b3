//! `google.rpc.Status` as the body of a failed reply: details travel as a `google.rpc.ErrorInfo` (AIP-193).

use super::context::put_nonzero;
use super::reply::pair;
use crate::fault::Fault;
use crate::transcode::wire::{WireReader, each_message, put_bytes};

const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
/// Whose reasons these are.
const DOMAIN: &str = "tidegate";

/// Appends a fault as a `google.rpc.Status`.
pub(super) fn write(fault: &Fault, out: &mut Vec<u8>) {
    put_nonzero(1, fault.code().number() as u64, out);
    put_bytes(2, fault.message().as_bytes(), out);
    if fault.details().is_empty() {
        return;
    }
    let mut info = Vec::new();
    if let Some((_, reason)) = fault.details().iter().find(|detail| detail.0 == "reason") {
        put_bytes(1, reason.to_ascii_uppercase().as_bytes(), &mut info);
    }
    put_bytes(2, DOMAIN.as_bytes(), &mut info);
    for (key, value) in fault.details() {
        let mut entry = Vec::new();
        put_bytes(1, key.as_bytes(), &mut entry);
        put_bytes(2, value.as_bytes(), &mut entry);
        put_bytes(3, &entry, &mut info);
    }
    let mut any = Vec::new();
    put_bytes(1, ERROR_INFO.as_bytes(), &mut any);
    put_bytes(2, &info, &mut any);
    put_bytes(3, &any, out);
}

/// The details of a status, where it has some in this form; what does not decode is left out.
pub(super) fn details(status: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let _ = each_message(status, 3, |any| {
        let (mut is_info, mut info) = (false, &[][..]);
        let mut reader = WireReader::new(any);
        while let Some(record) = reader.record()? {
            match record.number {
                1 => is_info = &any[record.from..record.to] == ERROR_INFO.as_bytes(),
                2 => info = &any[record.from..record.to],
                _ => {}
            }
        }
        if is_info {
            each_message(info, 3, |entry| {
                found.extend(pair(entry));
                Ok(())
            })?;
        }
        Ok(())
    });
    found
}
