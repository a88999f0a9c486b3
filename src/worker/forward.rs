//! Requests passed on as somebody else encoded them: everything in them is kept, but who calls is whoever calls us.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::context::is_repeat_key;
use super::peer::{Behalf, PeerCall, unencoded};
use crate::envelope::{ContextPlan, ContextWriter, Source};
use crate::fault::Fault;
use crate::snapshot::Streaming;
use crate::transcode::table::WireType;
use crate::transcode::wire::{WireReader, put_bytes};
use crate::transcode::{TranscodeError, check, number_order};

/// What came back for a request that was passed on.
pub struct Forwarded {
    /// The reply's bytes as they came.
    pub payload: Bytes,
    /// `service@instance` that answered, where it says so.
    pub instance: Option<String>,
    /// The reply's error, where it is one.
    pub fault: Option<Fault>,
}

impl PeerCall<'_> {
    /// Checks that bytes decode as the request.
    pub fn check(&self, fields: &[u8]) -> Result<(), TranscodeError> {
        check(&self.method.tables, self.method.request, fields)
    }

    /// True where the request would be answered by a stream.
    pub fn streams(&self, fields: &[u8]) -> bool {
        match self.method.streaming {
            Streaming::Unary => false,
            Streaming::Server => true,
            Streaming::OnRequest => self.method.envelope.wants_stream(fields),
        }
    }

    /// Passes an encoded request on and brings the reply back as it is. Of the request's own context everything is kept
    /// but request, trace, user, tenant and reserved labels, which are the caller's; what it leaves empty is filled.
    ///
    /// Fails where no reply comes. No breaker stands before it: who passes requests on judges health for itself.
    pub async fn forward(mut self, fields: &[u8]) -> Result<Forwarded, Fault> {
        self.is_guarded = false;
        let payload = self.forwarded(fields).map_err(|error| unencoded(error.to_string()))?;
        let reply = self.send(payload.into()).await?;
        let opened = self.open(&reply);
        let instance = reply.headers.get("Tidegate-Instance").map(str::to_owned);
        Ok(Forwarded { payload: reply.payload, instance, fault: opened.err() })
    }

    fn forwarded(&mut self, fields: &[u8]) -> Result<Vec<u8>, TranscodeError> {
        let method = self.method.clone();
        let Some(plan) = &method.envelope.context else { return Ok(fields.to_vec()) };
        let (mut own, mut payload, mut reader) =
            (Vec::new(), Vec::with_capacity(fields.len() + 256), WireReader::new(fields));
        loop {
            let from = reader.at();
            let Some(record) = reader.record()? else { break };
            if record.number == plan.number && record.wire_type == WireType::Length {
                own.extend_from_slice(&fields[record.from..record.to]);
            } else {
                payload.extend_from_slice(&fields[from..reader.at()]);
            }
        }
        let (kept, named) = self.kept(plan, &own)?;
        let mut content = self.filled(plan, &named);
        content.extend_from_slice(&kept);
        number_order(&mut content, 0)?;
        put_bytes(plan.number, &content, &mut payload);
        number_order(&mut payload, 0)?;
        Ok(payload)
    }

    /// What stays of the request's own context, and the numbers of its fields.
    fn kept(&mut self, plan: &ContextPlan, own: &[u8]) -> Result<(Vec<u8>, BTreeSet<u32>), TranscodeError> {
        let (mut kept, mut named, mut reader) = (Vec::new(), BTreeSet::new(), WireReader::new(own));
        loop {
            let from = reader.at();
            let Some(record) = reader.record()? else { break };
            let value = &own[record.from..record.to];
            let labels = plan.labels.as_ref().filter(|labels| labels.number == record.number);
            let field = plan.fields.iter().find(|field| field.number == record.number);
            if field.is_some_and(|field| is_callers(plan, field.number, &field.sources)) {
                continue;
            }
            if labels.is_some_and(|labels| label_name(value).is_none_or(|name| labels.reserved.contains(&name))) {
                continue;
            }
            if field.is_some_and(|field| field.sources.first().is_some_and(is_repeat_key)) {
                // The header says the same key.
                self.key = String::from_utf8_lossy(value).into_owned();
            }
            named.insert(record.number);
            kept.extend_from_slice(&own[from..reader.at()]);
        }
        Ok((kept, named))
    }

    /// The caller's part of the context, and what the request's own leaves empty.
    fn filled(&self, plan: &ContextPlan, named: &BTreeSet<u32>) -> Vec<u8> {
        debug_assert!(self.behalf == Behalf::Caller);
        let (context, caller) = (self.context, self.context.caller());
        let mut whole = Vec::new();
        let mut writer = ContextWriter::new(plan, &mut whole);
        for field in plan.fields.iter().filter(|field| !named.contains(&field.number)) {
            if field.is_time {
                writer.time(field.number, u128::from(context.now_ms().unsigned_abs()) * 1_000_000);
            } else if field.sources.first().is_some_and(is_repeat_key) {
                writer.text(field.number, &self.key);
            } else if field.sources.contains(&Source::CallerTenant) {
                writer.text(field.number, context.tenant());
            } else if plan.request_id == Some(field.number) {
                writer.text(field.number, context.request_id());
            } else {
                writer.text(field.number, caller.text(&field.name));
            }
        }
        if let Some(labels) = &plan.labels {
            for (name, value) in caller.labels.iter().filter(|(name, _)| labels.reserved.contains(name)) {
                writer.label(labels.number, name, value);
            }
        }
        writer.finish();
        let mut reader = WireReader::new(&whole);
        match reader.record() {
            Ok(Some(record)) => whole[record.from..record.to].to_vec(),
            _ => Vec::new(),
        }
    }
}

/// True for what a request cannot say of itself.
fn is_callers(plan: &ContextPlan, number: u32, sources: &[Source]) -> bool {
    let is_it = |source: &Source| matches!(source, Source::CallerUser | Source::CallerTenant | Source::Traceparent);
    plan.request_id == Some(number) || sources.iter().any(is_it)
}

fn label_name(entry: &[u8]) -> Option<String> {
    let mut reader = WireReader::new(entry);
    let mut name = String::new();
    while let Some(record) = reader.record().ok()? {
        if record.number == 1 {
            name = String::from_utf8_lossy(&entry[record.from..record.to]).into_owned();
        }
    }
    Some(name)
}
