//! Wire → JSON, row by row: `corpus/wire_to_json/*.jsonl` says what every legal or broken wire gives, to the byte.

#[path = "corpus/mod.rs"]
mod corpus;

use corpus::{bytes, tables};
use serde::Deserialize;
use tidegate::transcode::{
    Defaults, Enums, JsonOut, Names, Scratch, Tables, canonical, check, field_to_json, wire_to_json,
};

/// A row of the corpus.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    note: String,
    /// Full name.
    message: String,
    /// In hexadecimal digits.
    wire: String,
    #[serde(default)]
    options: Options,
    /// Only this field's value, as `response_body` wants it.
    field: Option<String>,
    json: Option<String>,
    error: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Options {
    names: String,
    defaults: String,
    enums: String,
}

fn rows() -> Vec<Row> {
    corpus::rows("wire_to_json")
}

/// What the row's wire gives, and what it should.
fn difference(tables: &Tables, row: &Row) -> Option<String> {
    let id = tables.message_id(&row.message).expect(&row.message);
    let options = JsonOut {
        names: if row.options.names == "proto" { Names::Proto } else { Names::Camel },
        defaults: if row.options.defaults == "print" { Defaults::Print } else { Defaults::Omit },
        enums: if row.options.enums == "number" { Enums::Number } else { Enums::Name },
    };
    let wire = bytes(&row.wire);
    // What stands in the output already stays, whatever happens.
    let (mut out, mut scratch) = (b"before".to_vec(), Scratch::default());
    let result = match &row.field {
        Some(name) => {
            let field = tables.message(id).field_by_name(name.as_bytes()).expect(name);
            field_to_json(tables, id, field, &options, &wire, &mut scratch, &mut out)
        }
        None => wire_to_json(tables, id, &options, &wire, &mut scratch, &mut out),
    };
    let text = String::from_utf8(out).expect("JSON is UTF-8");
    let ours = match result {
        Ok(()) => text.strip_prefix("before").expect("what stood there").to_owned(),
        Err(_) if text != "before" => format!("left behind: {text}"),
        Err(error) => error.to_string(),
    };
    let wanted = row.json.as_ref().or(row.error.as_ref()).expect("`json` or `error`");
    (ours != *wanted).then(|| format!("{}: {} {}\n  ours   {ours}\n  wanted {wanted}", row.note, row.message, row.wire))
}

#[test]
fn every_row_of_the_corpus_gives_its_text() {
    let tables = tables();
    let wrong: Vec<String> = rows().iter().filter_map(|row| difference(&tables, row)).collect();
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn canonical_bytes_mean_the_same_and_are_their_own_canonical_bytes() {
    let tables = tables();
    for row in rows().iter().filter(|row| row.json.is_some()) {
        let id = tables.message_id(&row.message).expect(&row.message);
        let once = canonical(&tables, id, None, &bytes(&row.wire)).expect(&row.note);
        assert_eq!(canonical(&tables, id, None, &once).expect(&row.note), once, "{}", row.note);
        assert_eq!(check(&tables, id, &once), Ok(()), "{}", row.note);
        let print = |wire: &[u8]| {
            let mut out = Vec::new();
            wire_to_json(&tables, id, &JsonOut::default(), wire, &mut Scratch::default(), &mut out).expect(&row.note);
            serde_json::from_slice::<serde_json::Value>(&out).expect("JSON")
        };
        assert_eq!(print(&once), print(&bytes(&row.wire)), "{}", row.note);
    }
}

/// Equal messages, written differently: equal bytes.
#[test]
fn canonical_bytes_do_not_depend_on_the_encoding() {
    let tables = tables();
    let rows = [
        ("kinds.MapKeys", "6203 0a016b", "6205 0a016b 1200"),
        ("kinds.MapKeys", "0a00", "0a04 0800 1200"),
        ("kinds.MapKeys", "6203 0a0162 6203 0a0161", "6203 0a0161 6203 0a0162"),
        ("kinds.MapKeys", "6206 0a016b 120131 6206 0a016b 120132", "6206 0a016b 120132"),
        ("kinds.Lists", "0801 0802", "0a020102"),
        ("kinds.Singles", "0800 0887808000", "0807"),
        ("kinds.Singles", "8a010208018a01031201 74", "8a01050801120174"),
        ("kinds.Tree", "2a030a016c 3200 2a00", "2a00"),
    ];
    for (message, one, other) in rows {
        let id = tables.message_id(message).expect(message);
        let canonical = |hex: &str| canonical(&tables, id, None, &bytes(&hex.replace(' ', ""))).expect(hex);
        assert_eq!(canonical(one), canonical(other), "{message}: {one} and {other}");
    }
}

/// Maps of maps whose keys fall at every level: were each level printed twice, fifty levels would never end.
#[test]
fn maps_in_disorder_at_every_level_cost_no_more_than_their_bytes() {
    let tables = tables();
    let id = tables.message_id("kinds.Tree").expect("Tree");
    let mut wire = Vec::new();
    for _ in 0..60 {
        let entry = |key: &[u8], value: &[u8]| {
            let (mut entry, mut record) = (Vec::new(), Vec::new());
            tidegate::transcode::wire::put_bytes(1, key, &mut entry);
            tidegate::transcode::wire::put_bytes(2, value, &mut entry);
            tidegate::transcode::wire::put_bytes(4, &entry, &mut record);
            record
        };
        wire = [entry(b"b", &wire), entry(b"a", b"")].concat();
    }
    let mut out = Vec::new();
    wire_to_json(&tables, id, &JsonOut::default(), &wire, &mut Scratch::default(), &mut out).expect("JSON");
    assert!(out.starts_with(br#"{"named":{"b":{"named":{"b":"#));
}
