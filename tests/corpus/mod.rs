//! The transcoder's corpus: its schemas and its rows, as the tests of each direction and the fuzz targets read them.
#![allow(dead_code, reason = "each test uses its part")]

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tidegate::schema::{self, SourceFile};
use tidegate::transcode::{JsonIn, Tables, Unknown};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
const SCHEMAS: [&str; 4] = ["kinds.proto", "kinds2.proto", "test_messages_proto3.proto", "test_messages_proto2.proto"];

/// Options of the inbound direction, as rows write them.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct OptionsIn {
    unknown: String,
}

impl OptionsIn {
    pub fn ignores_unknown(&self) -> bool {
        self.unknown == "ignore"
    }

    pub fn json_in(&self) -> JsonIn {
        JsonIn { unknown: if self.ignores_unknown() { Unknown::Ignore } else { Unknown::Reject } }
    }
}

/// A row of `json_to_wire`: a body, and the wire it gives or the whole error text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonRow {
    pub note: String,
    /// Full name.
    pub message: String,
    json: Option<String>,
    /// The body in hexadecimal digits, where it is no text.
    bytes: Option<String>,
    #[serde(default)]
    pub options: OptionsIn,
    /// In hexadecimal digits.
    pub wire: Option<String>,
    pub error: Option<String>,
    /// Why prost-reflect thinks otherwise, where it does.
    pub oracle: Option<String>,
}

impl JsonRow {
    pub fn body(&self) -> Vec<u8> {
        match (&self.json, &self.bytes) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(hex)) => bytes(hex),
            _ => panic!("{}: either `json` or `bytes`", self.note),
        }
    }
}

/// A row of `text_to_wire`: parameters of one query, and the wire they give or the whole error text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRow {
    pub note: String,
    /// Full name.
    pub message: String,
    /// Names and texts, percent-decoded.
    pub query: Vec<(String, String)>,
    #[serde(default)]
    pub options: OptionsIn,
    /// In hexadecimal digits.
    pub wire: Option<String>,
    pub error: Option<String>,
}

/// The tables of the corpus's schemas.
pub fn tables() -> Arc<Tables> {
    let files = SCHEMAS.map(|name| SourceFile {
        name: name.to_owned(),
        bytes: std::fs::read(format!("{FOLDER}/protos/{name}")).expect("a schema"),
    });
    schema::load(&files).expect("the schemas load").tables
}

/// The rows of one folder, in order of files and lines.
pub fn rows<Row: DeserializeOwned>(folder: &str) -> Vec<Row> {
    let files = std::fs::read_dir(format!("{FOLDER}/{folder}")).expect("the corpus");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let mut rows = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(path).expect("text");
        rows.extend(text.lines().map(|line| serde_json::from_str::<Row>(line).expect(line)));
    }
    rows
}

/// The schemas' folder, and their names in it.
pub fn schemas() -> (String, [&'static str; 4]) {
    (format!("{FOLDER}/protos"), SCHEMAS)
}

/// Bytes of hexadecimal digits.
pub fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// Hexadecimal digits of bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
