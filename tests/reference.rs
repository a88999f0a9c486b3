//! The reference pages say what the code does. Two of them are written by the code: `make reference` writes them anew.

use std::collections::BTreeSet;
use std::path::Path;

use tidegate::gateway::{ConnectionLimits, catalogue};
use tidegate::snapshot::reference;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A page as the code writes it.
fn is_up_to_date(path: &str, written: &str) {
    if std::env::var_os("TIDEGATE_WRITE_REFERENCE").is_some() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(path), written).unwrap();
    }
    assert!(read(path) == written, "{path} is not what the code says: `make reference` writes it anew");
}

#[test]
fn the_error_catalogue_is_up_to_date() {
    is_up_to_date("docs/errors.md", &catalogue::markdown());
}

#[test]
fn the_reference_of_the_routes_file_is_up_to_date() {
    is_up_to_date("docs/routes-reference.md", &reference::markdown());
}

#[test]
fn every_error_that_another_page_names_is_in_the_catalogue() {
    let tokens: BTreeSet<String> = catalogue::ENTRIES.iter().map(catalogue::Entry::token).collect();
    let mut named = 0;
    for row in read("docs/limits.md").lines().filter(|line| line.starts_with("| ")) {
        for cell in row.split('|') {
            let (before, token) = match cell.trim().split_once('`') {
                Some((before, rest)) => (before.trim(), rest.split('`').next().unwrap_or_default()),
                None => continue,
            };
            if before.parse::<u16>().is_ok() {
                let problem = catalogue::ENTRIES.iter().find(|problem| problem.token() == token);
                assert_eq!(problem.map(|problem| problem.status().to_string()).as_deref(), Some(before), "{row}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "only {named} errors found in docs/limits.md");
    for row in
        read("docs/routes.md").lines().skip_while(|line| *line != "## Statuses").filter(|line| line.starts_with("| "))
    {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for token in last.split('`').skip(1).step_by(2).filter(|token| *token != "reason") {
            assert!(tokens.contains(token), "docs/routes.md names `{token}`");
        }
    }
}

/// Where the limits of docs/limits.md stand in the code: name on the page, file, constant.
const CONSTANTS: &[(&str, &str, &str)] = &[
    ("wait for a reply, or for a stream to begin", "snapshot/policy.rs", "TIMEOUT"),
    ("silence of a stream", "snapshot/policy.rs", "STREAM_IDLE"),
    ("body", "snapshot/policy.rs", "BODY_MAX"),
    ("streams open in the process", "snapshot/build.rs", "OPEN_STREAMS"),
    ("labels from a client", "snapshot/styles.rs", "LABELS_MAX"),
    ("bytes of one header line", "gateway/head_check.rs", "LINE_MAX"),
    ("bytes of the target", "gateway/head_check.rs", "TARGET_MAX"),
    ("segments of a path", "route/segments.rs", "SEGMENTS_MAX"),
    ("query parameters", "transcode/text_to_wire.rs", "PARAMETERS_MAX"),
    ("steps of a dotted field path", "transcode/field_path.rs", "SEGMENTS_MAX"),
    ("`X-Timeout-Ms`", "gateway/inbound.rs", "TIMEOUT_MS_MAX"),
    ("bytes of `X-Request-Id`", "gateway/inbound.rs", "CLIENT_ID_MAX"),
    ("bytes of a header for the caller context", "gateway/context.rs", "TEXT_MAX"),
    ("bytes of a label's name", "gateway/context.rs", "LABEL_KEY_MAX"),
    ("bytes of a label's value", "gateway/context.rs", "LABEL_VALUE_MAX"),
    ("bytes of a bearer token", "gateway/auth.rs", "TOKEN_MAX"),
    ("messages inside one another", "transcode/scan.rs", "DEPTH_MAX"),
    ("bytes of a chunk's length line", "gateway/framing.rs", "CHUNK_LINE_MAX"),
    ("bytes of trailers", "gateway/framing.rs", "TRAILERS_MAX"),
    ("bytes of a worker's error text", "envelope/reply.rs", "MESSAGE_MAX"),
    ("requests that wait for a reply", "bus/mod.rs", "IN_FLIGHT_MAX"),
    ("streams of one HTTP/2 connection", "gateway/http2/mod.rs", "STREAMS"),
    ("bytes of an HTTP/2 header list", "gateway/http2/mod.rs", "HEADER_LIST"),
    ("HTTP/2 frames that ask for nothing", "gateway/http2/meter.rs", "ALLOWANCE_MAX"),
    ("chunks that a worker sends ahead", "gateway/credit.rs", "WINDOW_CHUNKS"),
    ("bytes that a worker sends ahead", "gateway/credit.rs", "WINDOW_BYTES"),
    ("doubt about a stream's credential", "gateway/auth.rs", "UNCHECKED_MAX"),
    ("bytes of a routes file", "written/yaml.rs", "FILE_MAX"),
    ("files of a descriptors' folder", "snapshot/sources/files.rs", "FILES_MAX"),
    ("bytes of a descriptor file", "schema/load.rs", "FILE_BYTES_MAX"),
    ("fields of one message", "schema/load.rs", "FIELDS_MAX"),
    ("bytes of a path template", "route/template.rs", "TEMPLATE_MAX"),
    ("headers that a route binds", "route/binding/mod.rs", "HEADERS_MAX"),
    ("addresses with a bucket of their own", "limits/bucket.rs", "KEYS_MAX"),
    ("tokens that are believed", "gateway/tokens.rs", "TOKENS_MAX"),
    ("generations of tables alive", "snapshot/live.rs", "GENERATIONS_MAX"),
];

/// Bounds of the gateway's rooms that no client meets, each with the reason.
const INNER: &[(&str, &str, &str)] = &[
    ("gateway/migrate/http_old.rs", "HOPS_MAX", "an old system that leads back here: docs/migrating.md"),
    ("snapshot/policy.rs", "TIMEOUT_MAX", "named beside `timeout`"),
    ("snapshot/cors.rs", "MAX_AGE_MAX", "named beside `cors` on docs/routes.md; browsers keep it no longer"),
    ("limits/bucket.rs", "SHARD_KEYS_MAX", "a share of `KEYS_MAX`"),
    ("gateway/auth.rs", "CHECK_MAX", "the wait for a credential's check, inside of the request's own deadline"),
    ("gateway/trace.rs", "STATE_MAX", "a longer `tracestate` is not passed on, as W3C allows"),
    ("gateway/openapi/schemas.rs", "ONEOF_MAX", "how much of a oneof the description says"),
    ("gateway/openapi/parameters.rs", "DEPTH_MAX", "how much of a query the description says"),
    ("gateway/openapi/parameters.rs", "QUERY_MAX", "how much of a query the description says"),
    ("transcode/wire.rs", "GROUPS_MAX", "the same as `DEPTH_MAX`, for groups"),
    ("transcode/json_to_wire/scalars.rs", "QUOTED_MAX", "how much of a wrong value an error repeats"),
    ("transcode/json_to_wire/mod.rs", "KEPT_MAX", "memory that is kept between requests"),
    ("transcode/time.rs", "DURATION_SECONDS_MAX", "protobuf's own range"),
    ("transcode/table.rs", "DENSE_NUMBERS_MAX", "how fields are found"),
    ("transcode/shape_check/mod.rs", "WALKS_MAX", "of workers, when they start"),
    ("transcode/shape_check/mod.rs", "PROBLEMS_MAX", "of workers, when they start"),
    ("schema/operation/mod.rs", "HISTORY_MAX", "of workers"),
    ("schema/elements.rs", "COMMENT_MAX", "a longer comment is cut off"),
    ("schema/load.rs", "FILES_MAX", "the same as that of the folder"),
    ("gateway/admin/workers.rs", "INSTANCES_MAX", "how much of the workers the console shows"),
    ("gateway/admin/workers.rs", "TEXT_MAX", "how much of a worker's text the console shows"),
    ("gateway/admin/listener.rs", "CONNECTIONS_MAX", "of the admin port"),
    ("gateway/admin/mod.rs", "BODY_MAX", "of the admin port"),
    ("gateway/admin/mod.rs", "CALLS_MAX", "of the console"),
    ("gateway/admin/schema.rs", "MESSAGES_MAX", "how much of a method the console shows"),
    ("gateway/admin/api.rs", "HEADERS_MAX", "of a request that the console describes"),
    ("gateway/revocations.rs", "SILENCE_MAX", "when the watch of revocations is begun anew"),
    ("gateway/access_log.rs", "LAST_MAX", "the last lines of the access log, at the end of the process"),
    ("gateway/explain/candidates.rs", "NEAREST_MAX", "how much an explanation names"),
    ("snapshot/resilience.rs", "RETRIES_MAX", "named beside `retries`"),
    ("limits/cutover.rs", "MOVES_MAX", "moves of a share that are remembered"),
    ("transcode/compare.rs", "DIFFERENCES_MAX", "how much one comparison names"),
    ("transcode/compare.rs", "UNORDERED_MAX", "how long lists are compared"),
    ("gateway/migrate/http_old.rs", "CONNECT_MAX", "inside of the request's own deadline"),
    ("gateway/migrate/http_old.rs", "ANSWER_MAX", "of an old system's answer"),
    ("snapshot/migration/shadow.rs", "TIMEOUT_MAX", "of copies, for which no client waits"),
    ("snapshot/migration/report.rs", "FIELDS_MAX", "how much a report of copies names"),
    ("snapshot/migration/report.rs", "SEEN_MAX", "differences that a report keeps"),
    ("snapshot/migration/report.rs", "BODY_MAX", "how much of an answer a report keeps"),
    ("snapshot/instances.rs", "REPORT_MAX", "how much of a refusal an instance reports"),
    ("snapshot/sources/workers.rs", "PARTS_MAX", "the wait for a worker's whole schema, outside of any request"),
    ("snapshot/sources/workers.rs", "PART_MAX", "the wait for a worker's schema, outside of any request"),
    ("snapshot/sources/workers.rs", "LOOKS_MISSED_MAX", "when a service has left"),
    ("snapshot/sources/workers.rs", "SET_BYTES_MAX", "of workers that announce themselves"),
    ("snapshot/sources/workers.rs", "SERVICES_MAX", "of workers that announce themselves"),
    ("snapshot/sources/files.rs", "ROUTES_BYTES_MAX", "the same as the parser's own"),
    ("snapshot/sources/files.rs", "DESCRIPTOR_BYTES_MAX", "the same as the loader's own"),
    ("snapshot/sources/files.rs", "DESCRIPTORS_BYTES_MAX", "of a folder's descriptors together"),
    ("transcode/json_to_wire/mod.rs", "SMALL_MAX", "how a text is checked"),
    ("transcode/print.rs", "NUMBER_MAX", "room for a printed number"),
];

/// The value of a constant as the code writes it: whole numbers, products, durations.
fn value(expression: &str) -> Option<(u64, &'static str)> {
    let (inner, unit) = match expression.strip_prefix("Duration::from_").map(|rest| rest.trim_end_matches(')')) {
        Some(rest) => match rest.split_once('(')? {
            ("secs", inner) => (inner, "s"),
            ("millis", inner) => (inner, "ms"),
            _ => return None,
        },
        None => (expression, ""),
    };
    let factors = inner.split('*').map(|factor| factor.trim().replace('_', "").parse::<f64>().ok());
    Some((factors.product::<Option<f64>>()? as u64, unit))
}

fn shown((number, unit): (u64, &str), name: &str) -> String {
    let is_bytes = name.starts_with("bytes") || name == "body";
    match (unit, number) {
        ("s" | "ms", number) => format!("{number} {unit}"),
        (_, number) if is_bytes && number % (1 << 20) == 0 => format!("{} MiB", number >> 20),
        (_, number) if is_bytes && number % (1 << 10) == 0 => format!("{} KiB", number >> 10),
        (_, number) => number.to_string(),
    }
}

/// Names and texts of a file's constants, those of its tests left out.
fn constants(file: &str) -> Vec<(String, String)> {
    let text = read(&format!("src/{file}"));
    let code = text.split("#[cfg(test)]").next().unwrap();
    let rows = code.lines().filter_map(|line| line.trim().trim_start_matches("pub").split_once("const "));
    rows.filter_map(|(before, rest)| {
        let (name, rest) = rest.split_once(": ").filter(|_| before.is_empty() || before.starts_with([' ', '(']))?;
        let (_, expression) = rest.split_once(" = ")?;
        Some((name.to_owned(), expression.trim_end_matches(';').to_owned()))
    })
    .collect()
}

#[test]
fn the_page_of_limits_has_every_limit_of_the_gateway_with_its_default() {
    let page = read("docs/limits.md");
    let on_page = |name: &str| {
        let row = page.lines().find(|line| line.starts_with(&format!("| {name} |")));
        row.unwrap_or_else(|| panic!("docs/limits.md has no row `{name}`")).split('|').nth(2).unwrap().trim().to_owned()
    };
    let mut known: BTreeSet<String> =
        ["rate", "calls in flight on a route", "streams open on a route"].map(str::to_owned).into();
    known.iter().for_each(|name| assert_eq!(on_page(name), "none"));
    for (name, file, constant) in CONSTANTS {
        let rows = constants(file);
        let expression =
            &rows.iter().find(|row| row.0 == *constant).unwrap_or_else(|| panic!("{file}: no {constant}")).1;
        let value = value(expression).unwrap_or_else(|| panic!("{file}: {constant} = {expression}"));
        assert_eq!(on_page(name), shown(value, name), "{name}");
        known.insert((*name).to_owned());
    }
    let limits = ConnectionLimits::default();
    for (name, value) in [
        ("bytes of a head", (limits.head_bytes as u64, "")),
        ("header fields", (limits.headers as u64, "")),
        ("connections", (limits.connections as u64, "")),
        ("from accept to the first byte", (limits.first_byte.as_secs(), "s")),
        ("from the first byte of a head to its end", (limits.head.as_secs(), "s")),
        ("progress of a body", (limits.body_progress.as_secs(), "s")),
        ("pause between two requests", (limits.idle.as_secs(), "s")),
        ("a write that does not move", (limits.write_stall.as_secs(), "s")),
    ] {
        assert_eq!(on_page(name), shown(value, name), "{name}");
        known.insert(name.to_owned());
    }
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| limit ")) {
        let name = line.split('|').nth(1).unwrap().trim();
        assert!(known.contains(name), "docs/limits.md: `{name}` is no limit that this test compares with the code");
    }
}

#[test]
fn no_bound_of_the_gateways_rooms_is_missing_on_the_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders: Vec<_> =
        ["gateway", "transcode", "route", "limits", "snapshot", "schema"].iter().map(|room| root.join(room)).collect();
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if file.ends_with(".rs") {
                let rows = constants(&file).into_iter().filter(|row| row.0.ends_with("_MAX"));
                found.extend(rows.map(|row| (file.clone(), row.0)));
            }
        }
    }
    let listed = CONSTANTS.iter().map(|row| (row.1, row.2)).chain(INNER.iter().map(|row| (row.0, row.1)));
    let listed: BTreeSet<(String, String)> = listed.map(|(file, name)| (file.to_owned(), name.to_owned())).collect();
    let missing: Vec<_> = found.difference(&listed).collect();
    assert!(missing.is_empty(), "neither on docs/limits.md nor inner: {missing:?}");
    let gone: Vec<_> = INNER.iter().filter(|row| !found.contains(&(row.0.to_owned(), row.1.to_owned()))).collect();
    assert!(gone.is_empty(), "listed as inner, but not there: {gone:?}");
}
