//! What each fuzz target does with its bytes, and what must hold whatever they are. `tests/fuzz_bodies.rs` runs the same
//! over the corpus and over random inputs, so that the targets cannot rot.
#![allow(dead_code, reason = "each target uses one")]

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tidegate::gateway::{self, ConnectionLimits};
use tidegate::route::PathTemplate;
use tidegate::schema::{self, SourceFile};
use tidegate::snapshot::manifest as routes_file;
use tidegate::transcode::{
    BodyPlan, Claims, JsonIn, JsonOut, MessageId, QueryBinder, Root, Scratch, Tables, TranscodeError, Unknown,
    canonical as canonical_bytes, check, from_wire, to_wire,
};

/// The messages that an input's first byte chooses from. The first ones hold no `Any`, whose content `check` does not
/// look into.
pub const MESSAGES: [&str; 16] = [
    "kinds.Singles",
    "kinds.Optionals",
    "kinds.Lists",
    "kinds.MapKeys",
    "kinds.MapValues",
    "kinds.Nested",
    "kinds.Edges",
    "kinds2.Groups",
    "kinds2.Closed",
    "kinds2.Lists",
    "kinds.WellKnown",
    "kinds.WellKnownLists",
    "kinds.WellKnownMaps",
    "kinds.Tree",
    "kinds.Choices",
    "kinds2.Holder",
];
/// How many of them hold no `Any`, no time, mask or `Value`: whatever passes `check` can be printed.
const ALWAYS_PRINTABLE: usize = 10;

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Arc<Tables>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let files = [
            ("kinds.proto", include_str!("../tests/corpus/protos/kinds.proto")),
            ("kinds2.proto", include_str!("../tests/corpus/protos/kinds2.proto")),
        ];
        let files = files.map(|(name, text)| SourceFile { name: name.to_owned(), bytes: text.as_bytes().to_vec() });
        schema::load(&files).expect("the schemas load").tables
    })
}

/// The message that the first byte chooses, its place in the list, whether unknown fields are ignored, and the rest.
fn split(data: &[u8]) -> Option<(MessageId, usize, bool, &[u8])> {
    let (first, rest) = data.split_first()?;
    let place = usize::from(*first) % MESSAGES.len();
    Some((tables().message_id(MESSAGES[place]).expect("a message"), place, first & 0x80 != 0, rest))
}

fn print(id: MessageId, wire: &[u8]) -> Result<String, TranscodeError> {
    let mut text = Vec::new();
    tidegate::transcode::wire_to_json(tables(), id, &JsonOut::default(), wire, &mut Scratch::default(), &mut text)?;
    Ok(String::from_utf8(text).expect("JSON is UTF-8"))
}

fn read(id: MessageId, json: &[u8], unknown: Unknown) -> Result<Vec<u8>, TranscodeError> {
    let plan = BodyPlan { root: Root::Message(id), options: JsonIn { unknown }, claims: Claims::new(), lift: None };
    let mut wire = Vec::new();
    tidegate::transcode::json_to_wire(tables(), &plan, 0, json, &mut wire, None)?;
    Ok(wire)
}

/// What is read is valid, can be printed, and reads and prints as the same again.
pub fn json_to_wire(data: &[u8]) {
    let Some((id, _, ignores, json)) = split(data) else { return };
    let unknown = if ignores { Unknown::Ignore } else { Unknown::Reject };
    match read(id, json, unknown) {
        Ok(wire) => {
            assert_eq!(check(tables(), id, &wire), Ok(()));
            let text = print(id, &wire).expect("what was read can be printed");
            let again = read(id, text.as_bytes(), Unknown::Reject).expect("what was printed can be read");
            assert_eq!(print(id, &again).expect("printed before"), text);
        }
        Err(error) => assert!(error.offset() <= json.len(), "{error}"),
    }
}

/// What is printed is JSON that our own reader takes; a valid encoding without times, masks, values and `Any` is printed.
pub fn wire_to_json(data: &[u8]) {
    let Some((id, place, _, wire)) = split(data) else { return };
    let is_valid = check(tables(), id, wire);
    match print(id, wire) {
        Ok(text) => match read(id, text.as_bytes(), Unknown::Reject) {
            Ok(again) => assert_eq!(check(tables(), id, &again), Ok(())),
            // Arrays count on the way in and required fields have to be there; the wire shows neither.
            Err(error) => {
                let error = error.to_string();
                let is_known = error.contains("levels deep") || error.contains("required") || place == 15;
                assert!(is_known, "{text}: {error}");
            }
        },
        Err(error) if place < ALWAYS_PRINTABLE => {
            assert!(is_valid.is_err(), "`check` took what cannot be printed: {error}");
        }
        Err(error) => assert!(error.offset() <= wire.len(), "{error}"),
    }
}

/// Lines of `name=text` as a query: what is bound is valid and can be printed.
pub fn text_to_wire(data: &[u8]) {
    let Some((id, _, ignores, rest)) = split(data) else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let claims = Claims::new();
    let mut binder = QueryBinder::new(tables(), id, &claims, 0, ignores);
    let mut wire = Vec::new();
    for line in text.split('\n') {
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        if binder.bind(name, value, &mut wire).is_err() {
            return;
        }
    }
    assert_eq!(check(tables(), id, &wire), Ok(()));
    print(id, &wire).expect("what was bound can be printed");
}

/// Canonical bytes are their own canonical bytes, and show as what they came from.
pub fn canonical(data: &[u8]) {
    let Some((id, place, _, wire)) = split(data) else { return };
    let Ok(once) = canonical_bytes(tables(), id, None, wire) else { return };
    assert_eq!(canonical_bytes(tables(), id, None, &once), Ok(once.clone()));
    // An `Any` holds bytes of another message, which are not looked into.
    if place < ALWAYS_PRINTABLE
        && let (Ok(before), Ok(after)) = (print(id, wire), print(id, &once))
    {
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        assert_eq!(parse(&after), parse(&before), "{after}\n{before}");
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Leaf {
    number: i32,
    text: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Singles {
    f_int32: i32,
    f_int64: i64,
    f_uint32: u32,
    f_uint64: u64,
    f_sint32: i32,
    f_sint64: i64,
    f_fixed32: u32,
    f_fixed64: u64,
    f_sfixed32: i32,
    f_sfixed64: i64,
    f_float: f32,
    f_double: f64,
    f_bool: bool,
    f_string: String,
    f_bytes: Vec<u8>,
    f_message: Option<Leaf>,
}

/// A handler's struct, written and read again, is the same.
pub fn wire_to_rust(data: &[u8]) {
    let id = tables().message_id("kinds.Singles").expect("Singles");
    let Ok(value) = from_wire::<Singles>(tables(), id, data) else { return };
    let mut wire = Vec::new();
    to_wire(tables(), id, &value, &mut wire).expect("what was read can be written");
    let again: Singles = from_wire(tables(), id, &wire).expect("what was written can be read");
    // As text, for the numbers that are not equal to themselves.
    assert_eq!(format!("{again:?}"), format!("{value:?}"));
}

/// A template's variables lie inside its segments, and a mistake inside the text.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match PathTemplate::parse(text) {
        Ok(template) => {
            for variable in &template.variables {
                assert!(variable.from <= variable.to && variable.to <= template.segments.len(), "{template:?}");
            }
        }
        Err(error) => assert!((1..=text.len() + 1).contains(&error.column), "{error}"),
    }
}

/// A routes file is read, or each of its problems has a place inside it.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let problems = routes_file::parse("routes.yaml", text).err();
    assert!(problems.as_ref().is_none_or(|problems| !problems.is_empty()));
    for problem in problems.into_iter().flatten() {
        assert!(!problem.message.is_empty());
        assert!((1..=text.split(['\n', '\r']).count() + 1).contains(&problem.place.line), "{problem:?}");
    }
}

/// A head is taken, or refused as the client's mistake with a text.
pub fn head(data: &[u8]) {
    if let Err(fault) = gateway::check_head(data, &ConnectionLimits::default()) {
        assert!(!fault.message().is_empty());
    }
}
