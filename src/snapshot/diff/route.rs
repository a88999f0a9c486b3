//! Two routes that take the same requests, compared: a row a difference, and what it means to clients.

use super::super::{LimitKey, Route, Streaming};
use super::Detail;
use crate::limits::Slots;
use crate::transcode::{Defaults, Enums, Names, Scratch, wire_to_json};
use crate::written::print_duration;

/// Collects what differs.
struct Differences(Vec<Detail>);

impl Differences {
    /// Notes a difference, where there is one.
    fn text(&mut self, what: &'static str, before: String, after: String, is_breaking: bool, meaning: &str) {
        if before != after {
            self.0.push(Detail { what, before, after, is_breaking, meaning: meaning.to_owned() });
        }
    }
}

/// Everything that differs.
pub(super) fn compare(before: &Route, after: &Route) -> Vec<Detail> {
    let mut differences = Differences(Vec::new());
    destination(before, after, &mut differences);
    migration(before, after, &mut differences);
    types(before, after, &mut differences);
    bindings(before, after, &mut differences);
    identity(before, after, &mut differences);
    limits(before, after, &mut differences);
    origins(before, after, &mut differences);
    forms(before, after, &mut differences);
    differences.0
}

fn destination(before: &Route, after: &Route, differences: &mut Differences) {
    let (was, is) = (&before.method, &after.method);
    let names = |route: &Route| route.method.name.to_string();
    differences.text("call", names(before), names(after), false, "another method answers");
    let meaning = "workers have to listen there before this is in force";
    differences.text("subject", was.subject.to_string(), is.subject.to_string(), false, meaning);
}

fn migration(before: &Route, after: &Route, differences: &mut Differences) {
    let text = |route: &Route| route.migration.as_ref().map_or_else(|| "none".to_owned(), |to| to.to_string());
    differences.text(
        "migrate",
        text(before),
        text(after),
        false,
        "another part of the callers is served by the old side",
    );
}

/// What of another message breaks clients, the comparison of schemas says; so it does for streams and `response_body`.
fn types(before: &Route, after: &Route, differences: &mut Differences) {
    let (was, is) = (&before.method, &after.method);
    let meaning = "the request is another message";
    differences.text("request", was.request_name.to_string(), is.request_name.to_string(), false, meaning);
    let meaning = "the reply is another message";
    differences.text("reply", was.reply_name.to_string(), is.reply_name.to_string(), false, meaning);
    if was.streaming != Streaming::Unary && is.streaming != Streaming::Unary {
        let meaning = "events are another message";
        differences.text("chunk", was.chunk_name.to_string(), is.chunk_name.to_string(), false, meaning);
    }
}

fn bindings(before: &Route, after: &Route, differences: &mut Differences) {
    let (was, is) = (before.binding.fields(&before.method.tables), after.binding.fields(&after.method.tables));
    let meaning = "a variable sets another field";
    differences.text("path", was.path.join(", "), is.path.join(", "), false, meaning);
    let word = |body: &str| if body.is_empty() { "none".to_owned() } else { body.to_owned() };
    differences.text("body", word(&was.body), word(&is.body), true, "the body is another part of the request");
    let headers = |headers: &[(String, String)]| {
        let rows: Vec<String> = headers.iter().map(|(header, field)| format!("{header} → {field}")).collect();
        rows.join(", ")
    };
    let is_kept = was.headers.iter().all(|row| is.headers.contains(row));
    let meaning = if is_kept { "a header sets a field now" } else { "a header that set a field does so no more" };
    differences.text("headers_in", headers(&was.headers), headers(&is.headers), !is_kept, meaning);
    let meaning = "constants of the request are others";
    differences.text("presets", constants(before, &was.presets), constants(after, &is.presets), false, meaning);
    let word = |ignores| if ignores { "ignore" } else { "reject" }.to_owned();
    let meaning = "members and parameters without a field are refused, where they were passed over";
    let meaning = if is.ignores_unknown { "members and parameters without a field are passed over" } else { meaning };
    differences.text("unknown", word(was.ignores_unknown), word(is.ignores_unknown), was.ignores_unknown, meaning);
    let names = |route: &Route| -> Vec<String> {
        let table = route.method.tables.message(route.method.reply);
        route
            .headers_out
            .iter()
            .map(|(field, header)| format!("{} → {header}", table.field(*field).spec.name))
            .collect()
    };
    let (was, is) = (names(before), names(after));
    let is_kept = was.iter().all(|row| is.contains(row));
    let meaning = if is_kept { "the answer has a further header" } else { "the answer lacks a header that it had" };
    differences.text("headers_out", was.join(", "), is.join(", "), !is_kept, meaning);
}

/// Presets as JSON.
fn constants(route: &Route, presets: &[u8]) -> String {
    let (method, options, mut json) = (&route.method, &route.policies.json_out, Vec::new());
    let scratch = &mut Scratch::default();
    match wire_to_json(&method.tables, method.request, options, presets, scratch, &mut json) {
        Ok(()) if !presets.is_empty() => String::from_utf8_lossy(&json).into_owned(),
        _ => "none".to_owned(),
    }
}

fn identity(before: &Route, after: &Route, differences: &mut Differences) {
    let word = |route: &Route| match &route.policies.auth {
        None => "none",
        Some(auth) if auth.is_required => "required",
        Some(_) => "optional",
    };
    let (was, is) = (word(before), word(after));
    let (is_breaking, meaning) = match (was, is) {
        (_, "required") => (true, "a request without a credential is refused"),
        ("required", "optional") => (false, "a request without a credential is let through"),
        (_, "none") => (true, "the method is not told who calls any more"),
        _ => (false, "a request with a credential is checked, and refused where it is not valid"),
    };
    differences.text("auth", was.into(), is.into(), is_breaking, meaning);
    let method = |route: &Route| route.policies.auth.as_ref().map(|auth| auth.credential.method.name.to_string());
    if let (Some(was), Some(is)) = (method(before), method(after)) {
        differences.text("credential", was, is, true, "tokens are checked by another method");
    }
}

fn limits(before: &Route, after: &Route, differences: &mut Differences) {
    let (was, is) = (&before.policies, &after.policies);
    let word = |is_lower| if is_lower { "less is allowed than before" } else { "more is allowed than before" };
    let is_lower = is.body_max < was.body_max;
    let bytes = |size: usize| format!("{size} bytes");
    differences.text("body_max", bytes(was.body_max), bytes(is.body_max), is_lower, word(is_lower));
    let is_lower = is.timeout < was.timeout;
    differences.text("timeout", print_duration(was.timeout), print_duration(is.timeout), false, word(is_lower));
    let (long, short) = (print_duration(was.stream_idle), print_duration(is.stream_idle));
    differences.text("stream_idle", long, short, false, word(is.stream_idle < was.stream_idle));
    let rate = |route: &Route| {
        route.policies.bucket.as_ref().map_or_else(
            || "unlimited".to_owned(),
            |(key, bucket)| {
                let quota = bucket.quota();
                let key = if *key == LimitKey::Route { "route" } else { "client" };
                format!("{} per {} a {key}, burst {}", quota.requests, print_duration(quota.per), quota.burst)
            },
        )
    };
    differences.text("rate", rate(before), rate(after), false, "requests above it are refused with 429");
    let slots = |slots: Option<&Slots>| slots.map_or_else(|| "unlimited".to_owned(), |slots| slots.max().to_string());
    let meaning = "calls above it are refused with 429";
    differences.text("calls", slots(was.call_slots.as_deref()), slots(is.call_slots.as_deref()), false, meaning);
    let meaning = "streams above it are refused with 429";
    differences.text("streams", slots(was.stream_slots.as_deref()), slots(is.stream_slots.as_deref()), false, meaning);
    let meaning = "calls that are safe to repeat are repeated so often";
    differences.text("retries", was.retries.to_string(), is.retries.to_string(), false, meaning);
    let breaker = |route: &Route| {
        route.policies.breaker.as_ref().map_or_else(
            || "none".to_owned(),
            |subject| {
                let rule = subject.breaker.rule();
                format!("{} failures, open {}", rule.failures, print_duration(rule.open))
            },
        )
    };
    differences.text(
        "breaker",
        breaker(before),
        breaker(after),
        false,
        "while it is open requests are refused with 503",
    );
}

fn origins(before: &Route, after: &Route, differences: &mut Differences) {
    let word = |route: &Route| route.policies.cors.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
    let (was, is) = (&before.policies.cors, &after.policies.cors);
    let has_fewer = was.as_ref().is_some_and(|was| !is.as_ref().is_some_and(|is| is.covers(was)));
    let meaning = if has_fewer { "pages of some origins are shut out" } else { "pages of these origins may use it" };
    differences.text("cors", word(before), word(after), has_fewer, meaning);
}

fn forms(before: &Route, after: &Route, differences: &mut Differences) {
    let (was, is) = (&before.policies, &after.policies);
    let meaning = "error bodies have another form";
    differences.text("errors", was.error_style.word().into(), is.error_style.word().into(), true, meaning);
    let (out, now) = (&was.json_out, &is.json_out);
    let word = |names: Names| if names == Names::Camel { "camel" } else { "proto" }.to_owned();
    differences.text("json.names", word(out.names), word(now.names), true, "members of answers are named otherwise");
    let word = |defaults: Defaults| if defaults == Defaults::Omit { "omit" } else { "print" }.to_owned();
    let is_omitted = now.defaults == Defaults::Omit;
    let meaning = if is_omitted { "answers lack members that hold defaults" } else { "answers show defaults as well" };
    differences.text("json.defaults", word(out.defaults), word(now.defaults), is_omitted, meaning);
    let word = |enums: Enums| if enums == Enums::Name { "name" } else { "number" }.to_owned();
    differences.text(
        "json.enums",
        word(out.enums),
        word(now.enums),
        true,
        "enum values of answers are written otherwise",
    );
    let (style, other) = (&before.method.envelope.style, &after.method.envelope.style);
    let meaning = "context and errors of the messages follow another house style";
    differences.text("style", style.name.clone(), other.name.clone(), false, meaning);
    if style.name == other.name && style != other {
        let text = |word: &str| format!("{} ({word})", style.name);
        let meaning = "the house style of this name has changed: statuses and context fields may be others";
        differences.text("style", text("as it was"), text("as it is"), style.error != other.error, meaning);
    }
}
