//! JSON and URL text → wire, row by row: `corpus/json_to_wire/*.jsonl` and `corpus/text_to_wire/*.jsonl` say what every
//! body and every query gives, to the byte, or the whole error text. prost-reflect says whether a body's row is right.

#[path = "corpus/mod.rs"]
mod corpus;

use corpus::{JsonRow, QueryRow, bytes, hex};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage};
use tidegate::transcode::{
    BodyPlan, Claims, JsonOut, QueryBinder, Root, Scratch, Tables, check, json_to_wire, wire_to_json,
};

/// What stands in the output already stays.
const BEFORE: &[u8] = b"before";

/// The wire of a body in hexadecimal digits, or the error text.
fn json_outcome(tables: &Tables, row: &JsonRow) -> Result<String, String> {
    let root = Root::Message(tables.message_id(&row.message).expect(&row.message));
    let plan = BodyPlan { root, options: row.options.json_in(), claims: Claims::new(), lift: None };
    let mut out = BEFORE.to_vec();
    json_to_wire(tables, &plan, 0, &row.body(), &mut out, None).map_err(|error| error.to_string())?;
    Ok(hex(out.strip_prefix(BEFORE).expect("what stood there")))
}

/// The wire of a query in hexadecimal digits, or the error text.
fn query_outcome(tables: &Tables, row: &QueryRow) -> Result<String, String> {
    let (message, claims) = (tables.message_id(&row.message).expect(&row.message), Claims::new());
    let mut binder = QueryBinder::new(tables, message, &claims, 0, row.options.ignores_unknown());
    let mut out = BEFORE.to_vec();
    for (name, text) in &row.query {
        binder.bind(name, text, &mut out).map_err(|error| error.to_string())?;
    }
    Ok(hex(out.strip_prefix(BEFORE).expect("what stood there")))
}

fn expected(wire: Option<&String>, error: Option<&String>) -> Result<String, String> {
    match (wire, error) {
        (Some(wire), None) => Ok(wire.clone()),
        (None, Some(error)) => Err(error.clone()),
        _ => panic!("either `wire` or `error`"),
    }
}

fn report(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// A member that is no field and feeds the context, such as an idempotency key: taken out, or refused, never overlooked.
#[test]
fn a_member_that_is_taken_out_of_the_body_is_text() {
    let tables = corpus::tables();
    let root = Root::Message(tables.message_id("kinds.WellKnown").unwrap());
    let lift = Some("key".into());
    let plan = BodyPlan { root, options: Default::default(), claims: Claims::new(), lift };
    for (body, expected) in [
        (r#"{}"#, Ok(None)),
        (r#"{"key":null}"#, Ok(None)),
        (r#"{"key":"a\u0062"}"#, Ok(Some("ab"))),
        (r#"{"key":""}"#, Ok(Some(""))),
        (r#"{"key":5}"#, Err("`key`: expected a string, found a number (byte 7)")),
        (r#"{"key":["a"]}"#, Err("`key`: expected a string, found an array (byte 7)")),
        (r#"{"key":"a","key":"b"}"#, Err("`key`: given twice (byte 11)")),
        (r#"{"fStruct":{"key":5}}"#, Ok(None)),
    ] {
        let outcome = json_to_wire(&tables, &plan, 0, body.as_bytes(), &mut Vec::new(), None);
        let outcome = outcome.map_err(|error| error.to_string());
        assert_eq!(outcome.as_ref().map(Option::as_deref).map_err(String::as_str), expected, "{body}");
    }
}

#[test]
fn every_body_gives_its_wire() {
    let tables = corpus::tables();
    let wrong = corpus::rows::<JsonRow>("json_to_wire").into_iter().filter_map(|row| {
        let (ours, wanted) = (json_outcome(&tables, &row), expected(row.wire.as_ref(), row.error.as_ref()));
        let body = String::from_utf8_lossy(&row.body()).into_owned();
        (ours != wanted)
            .then(|| format!("{}: {} {body}\n  ours   {ours:?}\n  wanted {wanted:?}", row.note, row.message))
    });
    report(&wrong.collect::<Vec<_>>());
}

#[test]
fn every_query_gives_its_wire() {
    let tables = corpus::tables();
    let wrong = corpus::rows::<QueryRow>("text_to_wire").into_iter().filter_map(|row| {
        let (ours, wanted) = (query_outcome(&tables, &row), expected(row.wire.as_ref(), row.error.as_ref()));
        (ours != wanted)
            .then(|| format!("{}: {} {:?}\n  ours   {ours:?}\n  wanted {wanted:?}", row.note, row.message, row.query))
    });
    report(&wrong.collect::<Vec<_>>());
}

/// What travels on has to pass the check that a binary body has to pass, and can be shown again.
#[test]
fn every_wire_is_valid_and_printable() {
    let tables = corpus::tables();
    let bodies = corpus::rows::<JsonRow>("json_to_wire").into_iter().filter_map(|row| Some((row.message, row.wire?)));
    let queries = corpus::rows::<QueryRow>("text_to_wire").into_iter().filter_map(|row| Some((row.message, row.wire?)));
    for (message, wire) in bodies.chain(queries) {
        let id = tables.message_id(&message).expect(&message);
        assert_eq!(check(&tables, id, &bytes(&wire)), Ok(()), "{message} {wire}");
        let mut text = Vec::new();
        let printed = wire_to_json(&tables, id, &JsonOut::default(), &bytes(&wire), &mut Scratch::default(), &mut text);
        assert_eq!(printed, Ok(()), "{message} {wire}");
    }
}

/// What the oracle says of a row: nothing where it agrees.
fn disagreement(pool: &DescriptorPool, row: &JsonRow) -> Option<String> {
    let descriptor = pool.get_message_by_name(&row.message).expect(&row.message);
    let body = row.body();
    let mut reader = serde_json::Deserializer::from_slice(&body);
    let options = DeserializeOptions::new().deny_unknown_fields(!row.options.ignores_unknown());
    let oracle = DynamicMessage::deserialize_with_options(descriptor.clone(), &mut reader, &options)
        .and_then(|message| reader.end().map(|()| message));
    match (&row.wire, oracle) {
        (Some(wire), Ok(theirs)) => {
            let ours = DynamicMessage::decode(descriptor, bytes(wire).as_slice());
            // Numbers that are none are equal to nothing, not even to themselves: their text is.
            let is_equal = ours.as_ref().is_ok_and(|ours| *ours == theirs || ours.to_string() == theirs.to_string());
            (!is_equal).then(|| format!("it reads {theirs} and not {ours:?}"))
        }
        (Some(_), Err(error)) => Some(format!("it refuses: {error}")),
        (None, Ok(theirs)) => Some(format!("it accepts: {theirs}")),
        (None, Err(_)) => None,
    }
}

/// The rows on which prost-reflect thinks otherwise say why; no other row does.
#[test]
fn the_oracle_agrees_or_the_row_says_why_not() {
    let (folder, files) = corpus::schemas();
    let mut compiler = protox::Compiler::new([folder]).expect("the folder");
    compiler.include_imports(true).open_files(files).expect("the schemas compile");
    let pool = compiler.descriptor_pool();
    let wrong = corpus::rows::<JsonRow>("json_to_wire").into_iter().filter_map(|row| {
        let body = String::from_utf8_lossy(&row.body()).into_owned();
        match (disagreement(&pool, &row), &row.oracle) {
            (Some(what), None) => Some(format!("{}: {} {body}: {what}", row.note, row.message)),
            (None, Some(why)) => Some(format!("{}: {} {body}: it agrees, in spite of `{why}`", row.note, row.message)),
            _ => None,
        }
    });
    report(&wrong.collect::<Vec<_>>());
}
