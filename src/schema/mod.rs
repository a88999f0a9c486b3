//! Schemas at run time: .proto sources and descriptor sets in, the transcoder's tables and rows of services out.
//!
//! The only room that names prost-reflect and protox; nothing of theirs leaves it.

mod compile;
mod docs;
mod elements;
mod load;
mod lower;
pub mod operation;
mod services;
mod sets;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::transcode::{MessageId, Tables};

pub use docs::{Doc, Docs};
use elements::Elements;
pub use elements::{SchemaPlace, places};
pub use services::{HttpRuleRow, MethodRow, ServiceRow};
pub use sets::sets;

/// A file of a schema: `.proto` source, or a binary `FileDescriptorSet` under any other name.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path below the descriptors' folder, as other files import it.
    pub name: String,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Where files of a schema were read from, by name, for whoever has to find a place in them. What is not here has its name
/// for a path: files that came over a network, and those inside of sets.
pub type Paths = BTreeMap<String, String>;

/// What is wrong with a schema, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaProblem {
    /// Path of the file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in bytes, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub text: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl SchemaProblem {
    fn at(place: &SchemaPlace, text: String) -> SchemaProblem {
        let SchemaPlace { file, line, column } = place.clone();
        SchemaProblem { file, line, column, text, hint: String::new() }
    }

    fn whole(file: &str, text: String) -> SchemaProblem {
        SchemaProblem { file: file.to_owned(), line: 1, column: 1, text, hint: String::new() }
    }
}

/// A schema, loaded.
#[derive(Debug)]
pub struct Schema {
    /// Its messages and enums.
    pub tables: Arc<Tables>,
    /// Its services, in order of files.
    pub services: Vec<ServiceRow>,
    /// What is written about them.
    pub docs: Arc<Docs>,
}

impl Schema {
    /// The message with that full name.
    pub fn message(&self, name: &str) -> Option<MessageId> {
        self.tables.message_id(name)
    }
}

/// Loads sources and sets together. Fails with every problem of every file.
pub fn load(files: &[SourceFile]) -> Result<Schema, Vec<SchemaProblem>> {
    load_from(files, &Paths::new())
}

/// The same for files of these paths.
pub fn load_from(files: &[SourceFile], paths: &Paths) -> Result<Schema, Vec<SchemaProblem>> {
    let (pool, lowered) = load::pool(files).map_err(|mut problems| {
        for problem in &mut problems {
            problem.file = path_of(&problem.file, paths).to_owned();
        }
        problems
    })?;
    let tables = Arc::new(compile::compile(&pool, &lowered));
    let elements = Elements::of(&pool, paths);
    let services = services::rows(&pool, &tables, &elements)?;
    Ok(Schema { tables, services, docs: Arc::new(docs::docs(&pool, &elements)) })
}

fn path_of<'n>(name: &'n str, paths: &'n Paths) -> &'n str {
    paths.get(name).map_or(name, String::as_str)
}
