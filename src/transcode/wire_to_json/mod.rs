//! Protobuf bytes → JSON text by walking the tables: no message tree, one output buffer.
//!
//! Two ways through one message. The hopeful one prints record by record while field numbers rise, as nearly every
//! encoder writes them. The first disorder anywhere starts the whole message anew on the careful way, which indexes
//! the records of each message, sorts them and merges what belongs together: O(n log n), and never twice.

mod careful;
mod fields;
mod hopeful;
mod maps;
mod well_known;

use super::error::{ErrorKind, Result, TranscodeError};
use super::scan::{DEPTH_MAX, too_deep};
use super::table::{FieldId, MessageId, MessageTable, OneofId, Presence, Tables};
use super::wire::{Record, WireReader};

/// Which member names are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Names {
    /// `lowerCamel`, or what `json_name` says.
    #[default]
    Camel,
    /// As in the .proto.
    Proto,
}

/// Whether absent fields without presence are printed with their zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Defaults {
    /// They are left out.
    #[default]
    Omit,
    /// They are printed.
    Print,
}

/// How enum values are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Enums {
    /// By name; by number where none has it.
    #[default]
    Name,
    /// By number.
    Number,
}

/// Options of the outbound direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct JsonOut {
    /// Member names.
    pub names: Names,
    /// Absent fields.
    pub defaults: Defaults,
    /// Enum values.
    pub enums: Enums,
}

/// Memory that the careful way reuses from message to message.
#[derive(Debug, Default)]
pub struct Scratch {
    records: Vec<Record>,
    entries: Vec<maps::Entry>,
}

/// Appends the JSON form of a message.
///
/// Fails with the byte offset and the field path where the bytes are no legal encoding, hold an unprintable time or
/// text, or nest too deeply; `out` is then as long as before.
pub fn wire_to_json(
    tables: &Tables,
    message: MessageId,
    options: &JsonOut,
    wire: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Result<()> {
    twice(tables, options, wire, scratch, out, |printer| printer.message(message, Source::whole(wire)))
}

/// Appends the JSON form of one field's value, as `response_body` wants it: its default form where it is absent.
pub fn field_to_json(
    tables: &Tables,
    message: MessageId,
    field: FieldId,
    options: &JsonOut,
    wire: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Result<()> {
    twice(tables, options, wire, scratch, out, |printer| {
        printer.is_careful = true;
        printer.one_field(message, field, Source::whole(wire))
    })
}

/// Prints hopefully, and once more carefully where that meets disorder.
fn twice(
    tables: &Tables,
    options: &JsonOut,
    wire: &[u8],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
    print: impl Fn(&mut Printer) -> std::result::Result<(), Stop>,
) -> Result<()> {
    let start = out.len();
    scratch.records.clear();
    scratch.entries.clear();
    let mut printer = Printer { tables, options: *options, wire, scratch, out, depth: 0, is_careful: false };
    let mut result = print(&mut printer);
    if matches!(result, Err(Stop::Disorder)) {
        printer.out.truncate(start);
        printer.depth = 0;
        printer.is_careful = true;
        printer.scratch.records.clear();
        printer.scratch.entries.clear();
        result = print(&mut printer);
    }
    match result {
        Ok(()) => Ok(()),
        Err(stop) => {
            out.truncate(start);
            Err(match stop {
                Stop::Error(error) => error,
                Stop::Disorder => TranscodeError::new(ErrorKind::Wire, 0, "records in an order that does not end"),
            })
        }
    }
}

/// Why printing stopped.
enum Stop {
    /// The bytes are wrong.
    Error(TranscodeError),
    /// The hopeful way met records out of order, or twice.
    Disorder,
}

impl From<TranscodeError> for Stop {
    fn from(error: TranscodeError) -> Stop {
        Stop::Error(error)
    }
}

type Step<T> = std::result::Result<T, Stop>;

/// Where a message's bytes are: in one piece, or in several records that merge.
#[derive(Clone, Copy)]
enum Source {
    /// From one offset to another.
    One(usize, usize),
    /// The values of the scratch's records from one index to another.
    Many(usize, usize),
}

impl Source {
    fn whole(wire: &[u8]) -> Source {
        Source::One(0, wire.len())
    }
}

/// One walk over one reply.
struct Printer<'a> {
    tables: &'a Tables,
    options: JsonOut,
    wire: &'a [u8],
    scratch: &'a mut Scratch,
    out: &'a mut Vec<u8>,
    depth: u32,
    is_careful: bool,
}

impl<'a> Printer<'a> {
    /// A message's JSON form.
    #[inline(always)]
    fn message(&mut self, id: MessageId, source: Source) -> Step<()> {
        let table = self.tables.message(id);
        if self.depth >= DEPTH_MAX {
            return Err(too_deep(self.start_of(source), DEPTH_MAX).into());
        }
        self.depth += 1;
        if table.shape == super::spec::Shape::Plain {
            self.plain(table, source)?;
        } else {
            self.well_known(table, source)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn plain(&mut self, table: &'a MessageTable, source: Source) -> Step<()> {
        let brace = self.out.len();
        self.members(table, source)?;
        self.close(brace, b'{', b'}');
        Ok(())
    }

    /// The members, each with a comma before it, the first one's to be turned into the brace.
    #[inline(always)]
    fn members(&mut self, table: &'a MessageTable, source: Source) -> Step<()> {
        match source {
            Source::One(from, to) if !self.is_careful => self.hopeful_members(table, from, to),
            _ => self.careful_members(table, source),
        }
    }

    /// Turns the comma at `at` into the opening bracket, or writes one where nothing stands there.
    #[inline(always)]
    fn close(&mut self, at: usize, open: u8, close: u8) {
        match self.out.get_mut(at) {
            Some(comma) => *comma = open,
            None => self.out.push(open),
        }
        self.out.push(close);
    }

    fn start_of(&self, source: Source) -> usize {
        match source {
            Source::One(from, _) => from,
            Source::Many(first, _) => self.scratch.records.get(first).map_or(0, |record| record.from),
        }
    }

    /// Calls `visit` with a reader for each piece of a message.
    fn each_piece(&self, source: Source, mut visit: impl FnMut(WireReader<'a>) -> Result<()>) -> Result<()> {
        match source {
            Source::One(from, to) => visit(WireReader::part(self.wire, from, to)),
            Source::Many(first, last) => self.scratch.records[first..last]
                .iter()
                .try_for_each(|record| visit(WireReader::part(self.wire, record.from, record.to))),
        }
    }

    /// The zeros of the absent fields without presence from `first` up to `until`.
    fn print_defaults(&mut self, table: &'a MessageTable, first: usize, until: usize) {
        for field in table.fields.iter().take(until).skip(first) {
            if field.spec.presence == Presence::Implicit {
                self.key(field);
                self.default_value(field);
            }
        }
    }
}

/// Which oneofs have a member already; more than 64 of them count as seen, which only costs the careful way.
#[derive(Default)]
struct Oneofs(u64);

impl Oneofs {
    #[inline(always)]
    fn insert(&mut self, id: OneofId) -> bool {
        let bit = 1u64.checked_shl(u32::from(id.0)).unwrap_or(0);
        let is_new = bit != 0 && self.0 & bit == 0;
        self.0 |= bit;
        is_new
    }
}
