//! The rows of the store on disk, table by table: one to write for each change of memory, all of a bucket, log or
//! consumer to read when it is opened.

use bytes::Bytes;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};

use super::super::super::StoreError;
use super::super::bucket::Record;
use super::super::log::Kept;
use super::NotOurs;
use crate::bus::{Headers, Message, Subject};

/// Of the rows below; another one is refused.
pub(super) const FORMAT: u64 = 1;
/// Bucket and revision: key, value (nothing where it was deleted), milliseconds since 1970.
type RecordColumns = (&'static str, Option<&'static [u8]>, i64);
const RECORDS: TableDefinition<(&str, u64), RecordColumns> = TableDefinition::new("records");
/// Log and position: subject, header lines, payload, milliseconds since 1970.
type EventColumns = (&'static str, &'static [u8], &'static [u8], i64);
const EVENTS: TableDefinition<(&str, u64), EventColumns> = TableDefinition::new("events");
/// Log and position: the id that is remembered, and since when.
const IDS: TableDefinition<(&str, u64), (&str, i64)> = TableDefinition::new("ids");
/// Bucket or log: the newest number that it has ever given, so that none is given twice.
const NEWEST_REVISIONS: TableDefinition<&str, u64> = TableDefinition::new("newest revisions");
const NEWEST_POSITIONS: TableDefinition<&str, u64> = TableDefinition::new("newest positions");
/// Log and consumer: position up to which events have been given out.
const TOLD: TableDefinition<(&str, &str), u64> = TableDefinition::new("told");
/// Log, consumer and position of an unanswered event: how often it was given out, and when it comes again.
const UNANSWERED: TableDefinition<(&str, &str, u64), (u32, i64)> = TableDefinition::new("unanswered");
/// `format`.
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");

/// A row to write; to remove where it has nothing in it.
pub(in super::super) enum Row {
    Record { bucket: &'static str, revision: u64, record: Option<Record> },
    Event { log: &'static str, sequence: u64, event: Option<Kept> },
    Id { log: &'static str, sequence: u64, id: Option<(String, i64)> },
    Told { log: &'static str, consumer: &'static str, sequence: u64 },
    Unanswered { log: &'static str, consumer: &'static str, sequence: u64, row: Option<(u32, i64)> },
}

/// A bucket as it was left.
pub(in super::super) struct SavedBucket {
    pub(in super::super) newest: u64,
    pub(in super::super) records: Vec<(u64, Record)>,
}

/// A log as it was left.
pub(in super::super) struct SavedLog {
    pub(in super::super) newest: u64,
    pub(in super::super) events: Vec<(u64, Kept)>,
    /// Position, id, and since when it is remembered.
    pub(in super::super) ids: Vec<(u64, String, i64)>,
}

/// A consumer as it was left.
pub(in super::super) struct SavedConsumer {
    pub(in super::super) told: u64,
    /// Position, how often it was given out, and when it comes again.
    pub(in super::super) unanswered: Vec<(u64, u32, i64)>,
}

impl Row {
    pub(super) fn size(&self) -> usize {
        const OWN: usize = size_of::<Row>();
        OWN + match self {
            Row::Record { record, .. } => record.as_ref().map_or(0, Record::size),
            Row::Event { event, .. } => event.as_ref().map_or(0, Kept::size),
            Row::Id { id, .. } => id.as_ref().map_or(0, |(id, _)| id.len()),
            Row::Told { .. } | Row::Unanswered { .. } => 0,
        }
    }
}

pub(super) fn bucket(database: &Database, name: &str) -> Result<SavedBucket, StoreError> {
    let read = || -> Result<SavedBucket, redb::Error> {
        let transaction = database.begin_read()?;
        let newest = transaction.open_table(NEWEST_REVISIONS)?.get(name)?.map_or(0, |row| row.value());
        let mut records = Vec::new();
        for row in transaction.open_table(RECORDS)?.range((name, 0)..=(name, u64::MAX))? {
            let (at, columns) = row?;
            let (key, value, created_ms) = columns.value();
            let value = value.map(Bytes::copy_from_slice);
            records.push((at.value().1, Record::new(key.into(), value, created_ms)));
        }
        Ok(SavedBucket { newest, records })
    };
    read().map_err(|error| unreadable(&error))
}

pub(super) fn log(database: &Database, name: &str) -> Result<SavedLog, StoreError> {
    let read = || -> Result<SavedLog, redb::Error> {
        let transaction = database.begin_read()?;
        let newest = transaction.open_table(NEWEST_POSITIONS)?.get(name)?.map_or(0, |row| row.value());
        let (mut events, mut ids) = (Vec::new(), Vec::new());
        for row in transaction.open_table(EVENTS)?.range((name, 0)..=(name, u64::MAX))? {
            let (at, columns) = row?;
            let (subject, headers, payload, created_ms) = columns.value();
            let message = Message {
                subject: Subject::trusted(subject.to_owned()),
                reply: None,
                headers: Headers::arrived(headers.into()),
                payload: Bytes::copy_from_slice(payload),
            };
            events.push((at.value().1, Kept::new(message, created_ms)));
        }
        for row in transaction.open_table(IDS)?.range((name, 0)..=(name, u64::MAX))? {
            let (at, columns) = row?;
            let (id, since_ms) = columns.value();
            ids.push((at.value().1, id.to_owned(), since_ms));
        }
        Ok(SavedLog { newest, events, ids })
    };
    read().map_err(|error| unreadable(&error))
}

pub(super) fn consumer(database: &Database, log: &str, name: &str) -> Result<SavedConsumer, StoreError> {
    let read = || -> Result<SavedConsumer, redb::Error> {
        let transaction = database.begin_read()?;
        let told = transaction.open_table(TOLD)?.get((log, name))?.map_or(0, |row| row.value());
        let mut unanswered = Vec::new();
        for row in transaction.open_table(UNANSWERED)?.range((log, name, 0)..=(log, name, u64::MAX))? {
            let (at, columns) = row?;
            let (deliveries, due_ms) = columns.value();
            unanswered.push((at.value().2, deliveries, due_ms));
        }
        Ok(SavedConsumer { told, unanswered })
    };
    read().map_err(|error| unreadable(&error))
}

pub(super) fn commit(database: &Database, rows: &[Row]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    write(&transaction, rows)?;
    Ok(transaction.commit()?)
}

fn write(transaction: &WriteTransaction, rows: &[Row]) -> Result<(), redb::Error> {
    let mut records = transaction.open_table(RECORDS)?;
    let mut events = transaction.open_table(EVENTS)?;
    let mut ids = transaction.open_table(IDS)?;
    let mut newest_revisions = transaction.open_table(NEWEST_REVISIONS)?;
    let mut newest_positions = transaction.open_table(NEWEST_POSITIONS)?;
    let mut told = transaction.open_table(TOLD)?;
    let mut unanswered = transaction.open_table(UNANSWERED)?;
    for row in rows {
        match row {
            Row::Record { bucket, revision, record: Some(record) } => {
                let columns = (&*record.key, record.value.as_deref(), record.created_ms);
                records.insert((*bucket, *revision), columns)?;
                newest_revisions.insert(*bucket, *revision)?;
            }
            Row::Record { bucket, revision, record: None } => drop(records.remove((*bucket, *revision))?),
            Row::Event { log, sequence, event: Some(event) } => {
                let message = &event.message;
                let headers = message.headers.lines();
                let columns = (message.subject.as_str(), headers, &message.payload[..], event.created_ms);
                events.insert((*log, *sequence), columns)?;
                newest_positions.insert(*log, *sequence)?;
            }
            Row::Event { log, sequence, event: None } => drop(events.remove((*log, *sequence))?),
            Row::Id { log, sequence, id: Some((id, since_ms)) } => {
                ids.insert((*log, *sequence), (id.as_str(), *since_ms))?;
            }
            Row::Id { log, sequence, id: None } => drop(ids.remove((*log, *sequence))?),
            Row::Told { log, consumer, sequence } => drop(told.insert((*log, *consumer), *sequence)?),
            Row::Unanswered { log, consumer, sequence, row: Some(row) } => {
                unanswered.insert((*log, *consumer, *sequence), *row)?;
            }
            Row::Unanswered { log, consumer, sequence, row: None } => {
                unanswered.remove((*log, *consumer, *sequence))?;
            }
        }
    }
    Ok(())
}

/// Makes the tables of a new database; refuses one that is not ours.
pub(super) fn prepare(database: &Database) -> Result<(), NotOurs> {
    let transaction = database.begin_write()?;
    let is_new = transaction.list_tables()?.next().is_none();
    let found = {
        let mut about = transaction.open_table(ABOUT)?;
        if is_new {
            about.insert("format", FORMAT)?;
        }
        about.get("format")?.map_or(0, |format| format.value())
    };
    if found != FORMAT {
        return Err(NotOurs::Format(found));
    }
    // Makes the tables: to read one that nobody has made is an error.
    write(&transaction, &[])?;
    Ok(transaction.commit()?)
}

fn unreadable(error: &redb::Error) -> StoreError {
    StoreError::Unavailable(format!("the disk cannot be read: {error}"))
}
