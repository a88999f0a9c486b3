//! House styles as written → as declared to `envelope`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;

use super::manifest::{At, ContextRow, ErrorRow, LabelsRow, Manifest, SourceRow, StyleRow};
use super::policy::Reader;
use crate::envelope::{ChunkStyle, ContextStyle, ErrorForm, InBandError, LabelsStyle, Source, Style};

/// Most labels from a client where the style does not say.
const LABELS_MAX: usize = 32;

/// All styles by name, the built-in ones included.
pub(super) fn styles(manifest: &Manifest, reader: &mut Reader) -> BTreeMap<String, Arc<Style>> {
    let mut styles: BTreeMap<String, Arc<Style>> =
        Style::built_in().into_iter().map(|style| (style.name.clone(), Arc::new(style))).collect();
    for (name, row) in &manifest.styles {
        if styles.contains_key(name) {
            reader.problem(row.place, format!("the style `{name}` is built in: choose another name"));
            continue;
        }
        styles.insert(name.clone(), Arc::new(style(name, row, reader)));
    }
    styles
}

fn style(name: &str, row: &At<StyleRow>, reader: &mut Reader) -> Style {
    let headers = if row.value.status { ErrorForm::Status } else { ErrorForm::Headers };
    Style {
        name: name.to_owned(),
        context: row.value.context.as_ref().map(|context| context_style(context, row.place, reader)),
        error: row.value.error.as_ref().map_or(headers, |error| ErrorForm::InBand(in_band(error, row.place, reader))),
        chunk: ChunkStyle {
            index: row.value.chunk.index.clone(),
            last: row.value.chunk.last.clone(),
            id: row.value.chunk.id.clone(),
            stream_when: row.value.chunk.stream_when.clone(),
        },
    }
}

fn in_band(row: &ErrorRow, place: (usize, usize), reader: &mut Reader) -> InBandError {
    for (code, status) in &row.codes {
        if !(400..=599).contains(status) {
            reader.problem(place, format!("`codes`: `{code}` has status {status}: expected 400 to 599"));
        }
    }
    InBandError {
        field: row.field.clone(),
        code: row.code.clone(),
        message: row.message.clone(),
        details: row.details.clone(),
        copies_rest: row.copy_rest_into_details,
        codes: row.codes.iter().map(|(code, status)| (code.clone(), *status)).collect(),
    }
}

fn context_style(row: &ContextRow, place: (usize, usize), reader: &mut Reader) -> ContextStyle {
    let mut fields = Vec::new();
    for (name, rows) in &row.fill {
        let sources = rows.iter().filter_map(|row| source(row, name, place, reader)).collect();
        fields.push((name.clone(), sources));
    }
    let labels = row.labels.as_ref().map(|labels| labels_style(labels, place, reader));
    ContextStyle { field: row.field.clone(), fields, labels }
}

fn labels_style(row: &LabelsRow, place: (usize, usize), reader: &mut Reader) -> LabelsStyle {
    LabelsStyle {
        field: row.field.clone(),
        header_prefix: row.header_prefix.clone(),
        max: row.max.unwrap_or(LABELS_MAX),
        reserved: row.reserved.clone(),
        set: row
            .set
            .iter()
            .filter_map(|(name, row)| {
                // A bare word that is no source is the constant itself: `set: { origin: edge }`.
                let source = match row {
                    SourceRow::Word(word) => word_source(word).unwrap_or_else(|| Source::Value(word.clone())),
                    SourceRow::Map(_) => source(row, name, place, reader)?,
                };
                Some((name.clone(), source))
            })
            .collect(),
    }
}

fn word_source(word: &str) -> Option<Source> {
    match word {
        "generated" => Some(Source::Generated),
        "traceparent" => Some(Source::Traceparent),
        "now" => Some(Source::Now),
        "caller.user" => Some(Source::CallerUser),
        "caller.tenant" => Some(Source::CallerTenant),
        "caller.role" => Some(Source::CallerRole),
        _ => None,
    }
}

fn source(row: &SourceRow, field: &str, place: (usize, usize), reader: &mut Reader) -> Option<Source> {
    let map = match row {
        SourceRow::Word(word) => {
            let found = word_source(word);
            if found.is_none() {
                let known = "`generated`, `traceparent`, `now`, `caller.user`, `caller.tenant`, `caller.role`";
                reader.problem(place, format!("`{field}`: `{word}` is no source: expected one of {known}, or a map"));
            }
            return found;
        }
        SourceRow::Map(map) => map,
    };
    match (&map.header, &map.value, &map.body_member) {
        (Some(header), None, None) => {
            let name = HeaderName::from_bytes(header.to_ascii_lowercase().as_bytes());
            if name.is_err() {
                reader.problem(place, format!("`{field}`: `{header}` is no header name"));
            }
            if map.not_in.as_ref().is_some_and(|list| list != "services") {
                reader.problem(place, format!("`{field}`: `not_in` knows only `services`"));
            }
            let not_in_services = map.not_in.is_some();
            Some(Source::Header { name: name.ok()?, not_in_services, is_trusted: map.trusted })
        }
        (None, Some(value), None) => Some(Source::Value(value.clone())),
        (None, None, Some(member)) => Some(Source::BodyMember(member.clone())),
        _ => {
            reader.problem(place, format!("`{field}`: a source has exactly one of `header`, `value`, `body_member`"));
            None
        }
    }
}
