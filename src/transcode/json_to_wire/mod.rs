//! JSON text → protobuf bytes by walking the tables once: no message tree, one output buffer, no allocation a field.
//!
//! ProtoJSON as the protobuf language guide defines it. Members come in any order; the output is a legal encoding, not
//! a canonical one.

mod collections;
mod members;
mod scalars;
mod well_known;

use std::cell::Cell;

pub(super) use collections::map_key_to_wire;
pub(super) use scalars::wrong_value;

use super::claims::{Claims, Verdict};
use super::error::{ErrorKind, Result, TranscodeError};
use super::raw::{self, Cursor};
use super::scan::{self, DEPTH_MAX, expected, skip_space};
use super::table::{Field, FieldId, MessageId, MessageTable, OneofId, Presence, Shape, Tables};
use super::wire::varint_block;

/// What happens to a member that the message does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Unknown {
    /// It is an error.
    #[default]
    Reject,
    /// It is skipped, its syntax checked.
    Ignore,
}

/// Options of the inbound direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct JsonIn {
    /// What happens to unknown members.
    pub unknown: Unknown,
}

/// What the JSON text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// A message.
    Message(MessageId),
    /// The value of one field of a message; the output is an encoding of that message.
    Field(MessageId, FieldId),
}

/// How a body is read; made once a binding.
#[derive(Clone, Debug)]
pub struct BodyPlan {
    /// What the text is.
    pub root: Root,
    /// Options.
    pub options: JsonIn,
    /// Field paths (of the message in `root`) that the body must not set.
    pub claims: Claims,
    /// A top-level member that is no field: taken out of the body and handed back, where it is a string.
    pub lift: Option<Box<str>>,
}

/// The text of the lifted member, where the body has it.
pub type Lifted = Option<String>;

/// The paths of the fields that a body sets, in proto names: what a PATCH puts into its field mask. Lists, maps and
/// well-known types are leaves.
#[derive(Debug, Default)]
pub struct MaskPaths {
    /// The paths, in order of the body.
    pub paths: Vec<String>,
    prefix: String,
}

/// Appends the protobuf encoding of a JSON text.
///
/// `active` says which header-dependent claims hold (bit by header number). Fails with the byte offset, the field
/// path, what was found and what was expected; `out` then holds an unfinished message and is to be thrown away.
pub fn json_to_wire(
    tables: &Tables,
    plan: &BodyPlan,
    active: u32,
    json: &[u8],
    out: &mut Vec<u8>,
    mask: Option<&mut MaskPaths>,
) -> Result<Lifted> {
    let mut padded = PADDED.take();
    raw::pad(json, &mut padded);
    // Most small bodies are ASCII, which a shorter look tells.
    let is_ascii = json.len() <= SMALL_MAX && raw::is_ascii(&padded);
    if !is_ascii && simdutf8::basic::from_utf8(json).is_err() {
        return Err(bad_utf8(json));
    }
    if json.starts_with(b"\xef\xbb\xbf") {
        return Err(TranscodeError::new(ErrorKind::Syntax, 0, "a byte order mark: send the JSON without it"));
    }
    let result = read(tables, plan, active, &padded, out, mask);
    if padded.capacity() <= KEPT_MAX {
        PADDED.set(padded);
    }
    result
}

/// Largest text that is looked at twice before it counts as UTF-8.
const SMALL_MAX: usize = 512;
/// Largest text whose copy is kept for the next one.
const KEPT_MAX: usize = 64 * 1024;

thread_local! {
    /// The padded copy of the last text: its memory, not its content, is what the next one wants.
    static PADDED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

fn read(
    tables: &Tables,
    plan: &BodyPlan,
    active: u32,
    padded: &[u8],
    out: &mut Vec<u8>,
    mask: Option<&mut MaskPaths>,
) -> Result<Lifted> {
    let mut reader = Reader {
        tables,
        cursor: Cursor::new(padded),
        out,
        unknown: plan.options.unknown,
        active,
        depth: 0,
        text: Vec::new(),
        mask,
        lift: plan.lift.as_deref(),
        lifted: None,
    };
    skip_space(&mut reader.cursor);
    match plan.root {
        Root::Message(message) => reader.message(message, &plan.claims)?,
        Root::Field(message, field) => reader.body_field(message, field, &plan.claims)?,
    }
    skip_space(&mut reader.cursor);
    if reader.cursor.at() != reader.cursor.end() {
        return expected(&reader.cursor, "the end of the body");
    }
    Ok(reader.lifted)
}

/// Appends one field of `message` from the JSON form of its value: an element where the field is a list.
pub(super) fn value_to_wire(
    tables: &Tables,
    message: MessageId,
    field: FieldId,
    json: &[u8],
    out: &mut Vec<u8>,
) -> Result<()> {
    let mut padded = Vec::new();
    raw::pad(json, &mut padded);
    let mut reader = Reader {
        tables,
        cursor: Cursor::new(&padded),
        out,
        unknown: Unknown::Reject,
        active: 0,
        depth: 0,
        text: Vec::new(),
        mask: None,
        lift: None,
        lifted: None,
    };
    skip_space(&mut reader.cursor);
    let field = tables.message(message).field(field);
    if field.spec.is_packed {
        // The tag says that a length follows: one element is a packed list of one.
        reader.tag(field);
        let at = reader.begin();
        reader.bare(field.spec.kind)?;
        reader.end(at);
    } else {
        reader.element(field, &NOTHING)?;
    }
    skip_space(&mut reader.cursor);
    if reader.cursor.at() == reader.cursor.end() { Ok(()) } else { expected(&reader.cursor, "the end of the value") }
}

#[cold]
fn bad_utf8(json: &[u8]) -> TranscodeError {
    let offset = simdutf8::compat::from_utf8(json).err().map_or(0, |error| error.valid_up_to());
    TranscodeError::new(ErrorKind::Syntax, offset, "the body is not UTF-8")
}

static NOTHING: Claims = Claims::new();

/// One walk over one text.
struct Reader<'t, 'c, 'o> {
    tables: &'t Tables,
    cursor: Cursor<'c>,
    out: &'o mut Vec<u8>,
    unknown: Unknown,
    active: u32,
    /// Messages, objects and arrays around the cursor.
    depth: u32,
    /// Scratch for texts with escapes.
    text: Vec<u8>,
    mask: Option<&'o mut MaskPaths>,
    lift: Option<&'t str>,
    lifted: Lifted,
}

/// Which fields and oneofs of one message have been set; the first 64 of each without allocating.
#[derive(Default)]
struct Seen {
    fields: u64,
    oneofs: u64,
    /// A bit for each of those from 64 on: fields at even places, oneofs at odd ones.
    more: Vec<u64>,
}

impl Seen {
    #[inline(always)]
    fn insert(bits: &mut u64, index: u16) -> bool {
        let bit = 1 << index;
        let is_new = *bits & bit == 0;
        *bits |= bit;
        is_new
    }

    #[cold]
    fn insert_more(&mut self, place: usize) -> bool {
        if self.more.len() <= place / 64 {
            self.more.resize(place / 64 + 1, 0);
        }
        Seen::insert(&mut self.more[place / 64], (place % 64) as u16)
    }

    #[inline(always)]
    fn field(&mut self, id: FieldId) -> bool {
        if id.0 < 64 { Seen::insert(&mut self.fields, id.0) } else { self.insert_more(2 * usize::from(id.0)) }
    }

    #[inline(always)]
    fn oneof(&mut self, id: OneofId) -> bool {
        if id.0 < 64 { Seen::insert(&mut self.oneofs, id.0) } else { self.insert_more(2 * usize::from(id.0) + 1) }
    }

    fn has_field(&self, id: FieldId) -> bool {
        let place = 2 * usize::from(id.0);
        let is_more = || self.more.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1);
        if id.0 < 64 { self.fields >> id.0 & 1 == 1 } else { is_more() }
    }
}

impl<'t> Reader<'t, '_, '_> {
    /// The value of one field as a whole body: `{"name": …}` without its braces.
    fn body_field(&mut self, message: MessageId, id: FieldId, claims: &Claims) -> Result<()> {
        let table = self.tables.message(message);
        let field = table.field(id);
        self.depth = 1;
        let below = match claims.verdict(id, field.spec.oneof, self.active) {
            Verdict::Partly(below) => below,
            _ => &NOTHING,
        };
        // A mask's paths count from the resource that the body is (AIP-134), so its own field is no part of them.
        if self.is_branch(field) { self.single(field, true, below) } else { self.field(field, below) }
            .map_err(|error| error.inside(field.spec.name.as_str()))
    }

    /// A message's content; the cursor stands at its JSON form.
    fn message(&mut self, id: MessageId, claims: &Claims) -> Result<()> {
        let table = self.tables.message(id);
        if table.shape != Shape::Plain {
            // The way back counts each of them as a level; an object counts when it is opened.
            if self.depth >= DEPTH_MAX {
                return Err(scan::too_deep(self.cursor.at(), DEPTH_MAX));
            }
            return self.well_known(table);
        }
        self.open(b'{', "an object")?;
        let mut seen = Seen::default();
        self.members(table, claims, &mut seen)?;
        self.depth -= 1;
        if table.has_required { self.check_required(table, &seen) } else { Ok(()) }
    }

    /// Steps into an object or array, under the depth budget.
    #[inline(always)]
    fn open(&mut self, bracket: u8, what: &str) -> Result<()> {
        if self.depth >= DEPTH_MAX {
            return Err(scan::too_deep(self.cursor.at(), DEPTH_MAX));
        }
        if !self.cursor.eat(bracket) {
            return mismatch(&self.cursor, what);
        }
        self.depth += 1;
        skip_space(&mut self.cursor);
        Ok(())
    }

    /// The members of an object up to its closing brace.
    fn members(&mut self, table: &'t MessageTable, claims: &Claims, seen: &mut Seen) -> Result<()> {
        if self.cursor.eat(b'}') {
            return Ok(());
        }
        let mut next = 0;
        loop {
            let at = self.cursor.at();
            match self.key(table, next)? {
                Some(id) => {
                    next = id.0 as usize + 1;
                    let field = table.field(id);
                    self.member(table, id, field, claims, seen, at)
                        .map_err(|error| error.inside(field.spec.name.as_str()))?;
                }
                None => self.unknown_member(table, at)?,
            }
            skip_space(&mut self.cursor);
            if self.cursor.eat(b',') {
                skip_space(&mut self.cursor);
                continue;
            }
            if self.cursor.eat(b'}') {
                return Ok(());
            }
            return expected(&self.cursor, "`,` or `}`");
        }
    }

    #[cold]
    fn check_required(&self, table: &MessageTable, seen: &Seen) -> Result<()> {
        for (index, field) in table.fields.iter().enumerate() {
            if field.spec.presence == Presence::Required && !seen.has_field(FieldId(index as u16)) {
                let text = format!("the required field `{}` is missing", field.spec.name);
                return Err(TranscodeError::new(ErrorKind::Mismatch, self.cursor.at(), text));
            }
        }
        Ok(())
    }

    /// Starts a length-delimited record: one byte is set aside for its length.
    #[inline(always)]
    fn begin(&mut self) -> usize {
        self.out.push(0);
        self.out.len()
    }

    /// Ends the record that began at `at` by writing its length.
    #[inline(always)]
    fn end(&mut self, at: usize) {
        let len = self.out.len() - at;
        if len < 0x80 {
            self.out[at - 1] = len as u8;
        } else {
            self.end_long(at, len);
        }
    }

    /// A length of two bytes or more: what was written moves up.
    #[inline(never)]
    fn end_long(&mut self, at: usize, len: usize) {
        let (block, digits) = varint_block(len as u64);
        let more = digits - 1;
        self.out.extend_from_slice(&[0; 16][..more]);
        self.out.copy_within(at..at + len, at + more);
        self.out[at - 1..at + more].copy_from_slice(&block[..digits]);
    }

    #[inline(always)]
    fn tag(&mut self, field: &Field) {
        let (block, len) = field.tag_block();
        raw::put_short(self.out, block, len);
    }

    #[inline(always)]
    fn varint(&mut self, value: u64) {
        if value < 0x80 {
            self.out.push(value as u8);
        } else {
            let (block, len) = varint_block(value);
            raw::put_short(self.out, &block, len);
        }
    }
}

/// A value of the wrong type at the cursor.
#[cold]
fn mismatch<T>(cursor: &Cursor, what: &str) -> Result<T> {
    let text = format!("expected {what}, found {}", scan::found(cursor));
    Err(TranscodeError::new(ErrorKind::Mismatch, cursor.at(), text))
}
