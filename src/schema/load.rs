//! Sources and sets → one descriptor pool; every faulty file is reported, each once.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use miette::Diagnostic as _;
use prost::Message as _;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::lower::{Lowered, lower};
use super::{SchemaProblem, SourceFile};
use crate::transcode::wire::WireReader;

/// Largest file.
const FILE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest number of files, those inside of sets included.
const FILES_MAX: usize = 10_000;
/// How the compiler's text on an import cycle begins.
const CYCLE: &str = "import cycle detected";
/// Most fields of one message, its extensions included: the tables count them in 16 bits.
const FIELDS_MAX: usize = 65_000;

/// The protos that every schema can import without having them.
const BUILT_IN: &[(&str, &str)] = &[
    ("google/api/annotations.proto", include_str!("builtin/google/api/annotations.proto")),
    ("google/api/field_behavior.proto", include_str!("builtin/google/api/field_behavior.proto")),
    ("google/api/http.proto", include_str!("builtin/google/api/http.proto")),
    ("google/api/httpbody.proto", include_str!("builtin/google/api/httpbody.proto")),
    ("google/rpc/code.proto", include_str!("builtin/google/rpc/code.proto")),
    ("google/rpc/error_details.proto", include_str!("builtin/google/rpc/error_details.proto")),
    ("google/rpc/status.proto", include_str!("builtin/google/rpc/status.proto")),
    ("tidegate/options.proto", include_str!("builtin/tidegate/options.proto")),
];

/// What the sets bring: their files by name, as bytes, so that extension options survive.
#[derive(Clone, Default)]
struct Sets(Arc<BTreeMap<String, SetFile>>);

struct SetFile {
    /// The set that it stood in.
    set: String,
    /// The descriptor as it stood there.
    given: Vec<u8>,
    /// The descriptor as the pool takes it.
    bytes: Vec<u8>,
}

/// Finds imports: given sources, given sets, built-in ones, protobuf's own.
#[derive(Clone, Default)]
struct Sources(Arc<BTreeMap<String, String>>);

impl FileResolver for Sources {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let own = self.0.get(name).map(String::as_str);
        let text = own.or_else(|| BUILT_IN.iter().find(|row| row.0 == name).map(|row| row.1));
        match text {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl FileResolver for Sets {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match self.0.get(name) {
            Some(file) => File::decode_file_descriptor_proto(file.bytes.as_slice()).map_err(protox::Error::new),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The pool of all files, and what lowering noted about those of editions.
pub(super) fn pool(files: &[SourceFile]) -> Result<(DescriptorPool, Lowered), Vec<SchemaProblem>> {
    let mut given = Given::default();
    for file in files {
        if file.bytes.len() > FILE_BYTES_MAX {
            given.problems.push(SchemaProblem::whole(&file.name, format!("larger than {FILE_BYTES_MAX} bytes")));
        } else if file.name.ends_with(".proto") {
            given.read_source(file);
        } else {
            given.read_set(file);
        }
    }
    if given.sources.len() + given.sets.len() > FILES_MAX {
        let text = format!("the schema has more than {FILES_MAX} files");
        given.problems.push(SchemaProblem::whole(files.first().map_or("", |file| &file.name), text));
        return Err(given.problems);
    }
    let Given { sources, sets, lowered, mut problems } = given;
    let (sources, sets) = (Sources(Arc::new(sources)), Sets(Arc::new(sets)));
    let names = names(&sources, &sets, &problems);
    if problems.is_empty() {
        match together(&sources, &sets, &names) {
            Ok(pool) => {
                let problems = too_many_fields(&pool);
                return if problems.is_empty() { Ok((pool, lowered)) } else { Err(problems) };
            }
            Err(problem) => problems.push(problem),
        }
    }
    one_by_one(&sources, &sets, &names, &mut problems);
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Err(problems)
}

/// True for protobuf's own files and ours: they are built in, in the version that this program knows.
pub(super) fn is_built_in(name: &str) -> bool {
    name.starts_with("google/protobuf/") || BUILT_IN.iter().any(|row| row.0 == name)
}

/// The files of all sets as they were given, by name.
pub(super) fn set_files(files: &[SourceFile]) -> BTreeMap<String, Vec<u8>> {
    let mut given = Given::default();
    files.iter().filter(|file| !file.name.ends_with(".proto")).for_each(|file| given.read_set(file));
    given.sets.into_iter().map(|(name, file)| (name, file.given)).collect()
}

/// What is to be compiled: every file that could be read, and the built-in ones.
fn names(sources: &Sources, sets: &Sets, problems: &[SchemaProblem]) -> Vec<String> {
    let broken: HashSet<&str> = problems.iter().map(|problem| problem.file.as_str()).collect();
    let mut names: Vec<String> = sources.0.keys().filter(|name| !broken.contains(name.as_str())).cloned().collect();
    names.extend(sets.0.keys().filter(|name| !sources.0.contains_key(*name)).cloned());
    names.extend(BUILT_IN.iter().map(|row| row.0.to_owned()));
    names
}

/// All files in one pool, or the first problem.
fn together(sources: &Sources, sets: &Sets, names: &[String]) -> Result<DescriptorPool, SchemaProblem> {
    let mut compiler = compiler(sources, sets);
    compiler.include_imports(true).include_source_info(true);
    for name in names {
        compiler.open_file(name).map_err(|error| problem(&error, name, sources))?;
    }
    Ok(compiler.descriptor_pool())
}

/// Files that do not compile alone are reported each; those that import them are not reported again.
fn one_by_one(sources: &Sources, sets: &Sets, names: &[String], problems: &mut Vec<SchemaProblem>) {
    for name in names {
        if let Err(error) = compiler(sources, sets).open_file(name) {
            let problem = problem(&error, name, sources);
            let is_same = |known: &SchemaProblem| known.file == problem.file && known.line == problem.line;
            // A cycle is found again from each of its files.
            let is_cycle = |known: &SchemaProblem| known.text.starts_with(CYCLE) && known.text.contains(&problem.file);
            let is_known = |known: &SchemaProblem| is_same(known) || problem.text.starts_with(CYCLE) && is_cycle(known);
            if !problems.iter().any(is_known) {
                problems.push(problem);
            }
        }
    }
}

fn too_many_fields(pool: &DescriptorPool) -> Vec<SchemaProblem> {
    let too_large = |message: &MessageDescriptor| message.fields().len() + message.extensions().len() > FIELDS_MAX;
    pool.all_messages()
        .filter(too_large)
        .map(|message| {
            let text = format!("`{}` has more than {FIELDS_MAX} fields", message.full_name());
            SchemaProblem::whole(message.parent_file().name(), text)
        })
        .collect()
}

fn compiler(sources: &Sources, sets: &Sets) -> protox::Compiler {
    let mut resolvers = ChainFileResolver::new();
    resolvers.add(sources.clone());
    resolvers.add(sets.clone());
    resolvers.add(GoogleFileResolver::new());
    protox::Compiler::with_file_resolver(resolvers)
}

/// The files as read, before anything is compiled.
#[derive(Default)]
struct Given {
    sources: BTreeMap<String, String>,
    sets: BTreeMap<String, SetFile>,
    lowered: Lowered,
    problems: Vec<SchemaProblem>,
}

impl Given {
    fn problem(&mut self, file: &str, text: String) {
        self.problems.push(SchemaProblem::whole(file, text));
    }

    fn read_source(&mut self, file: &SourceFile) {
        let Ok(text) = std::str::from_utf8(&file.bytes) else {
            return self.problem(&file.name, "not UTF-8 text".to_owned());
        };
        if let Some((line, column)) = edition_statement(text) {
            let text = "editions are read from descriptor sets, not from source".to_owned();
            let hint = format!(
                "make a set: `buf build -o set.binpb`, or `protoc --include_imports -o set.binpb {}`",
                file.name
            );
            return self.problems.push(SchemaProblem { file: file.name.clone(), line, column, text, hint });
        }
        match self.sources.get(&file.name) {
            Some(known) if known != text => {
                self.problem(&file.name, "given twice, with different content".to_owned());
            }
            _ => {
                self.sources.insert(file.name.clone(), text.to_owned());
            }
        }
    }

    fn read_set(&mut self, file: &SourceFile) {
        let set = match FileDescriptorSet::decode(file.bytes.as_slice()) {
            Ok(set) if !set.file.is_empty() => set,
            Ok(_) => return self.problem(&file.name, "a descriptor set without files".to_owned()),
            Err(error) => {
                let text = format!("neither .proto source nor a binary FileDescriptorSet: {error}");
                return self.problem(&file.name, text);
            }
        };
        // The bytes of each file are kept, because decoding drops the extension options.
        let mut reader = WireReader::new(&file.bytes);
        let mut bytes = Vec::new();
        while let Ok(Some(record)) = reader.record() {
            if record.number == 1 {
                bytes.push(&file.bytes[record.from..record.to]);
            }
        }
        for (descriptor, bytes) in set.file.iter().zip(bytes) {
            self.add_set_file(&file.name, descriptor, bytes);
        }
    }

    fn add_set_file(&mut self, set: &str, descriptor: &FileDescriptorProto, given: &[u8]) {
        let name = descriptor.name();
        if is_built_in(name) {
            return;
        }
        match self.sets.get(name) {
            Some(known) if known.given == given => return,
            Some(known) => {
                let text = format!("`{name}` is in `{}`, too, with different content", known.set);
                return self.problem(set, text);
            }
            None => {}
        }
        let bytes = match descriptor.syntax() {
            "" | "proto2" | "proto3" => Ok(given.to_vec()),
            "editions" => lower(given, &mut self.lowered),
            other => Err(format!("its syntax is `{other}`; proto2, proto3 and editions are known")),
        };
        match bytes {
            Ok(bytes) => {
                let file = SetFile { set: set.to_owned(), given: given.to_vec(), bytes };
                self.sets.insert(name.to_owned(), file);
            }
            Err(text) => self.problem(set, format!("`{name}`: {text}")),
        }
    }
}

/// Line and column of a source's `edition = …`, which can only be its first statement.
fn edition_statement(text: &str) -> Option<(usize, usize)> {
    let (mut rest, mut at) = (text, 0);
    loop {
        let trimmed = rest.trim_start_matches('\u{feff}').trim_start();
        at += rest.len() - trimmed.len();
        let skipped = match trimmed.get(..2) {
            Some("//") => trimmed.find('\n').unwrap_or(trimmed.len()),
            Some("/*") => trimmed.find("*/").map_or(trimmed.len(), |end| end + 2),
            _ => break,
        };
        at += skipped;
        rest = &trimmed[skipped..];
    }
    let after = text[at..].strip_prefix("edition")?.trim_start();
    after.starts_with('=').then(|| line_and_column(text, at))
}

/// Both counted from 1, the column in bytes.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (before.iter().filter(|byte| **byte == b'\n').count() + 1, before.len() - start + 1)
}

/// A compiler's error with its place.
fn problem(error: &protox::Error, name: &str, sources: &Sources) -> SchemaProblem {
    let file = error.file().unwrap_or(name).to_owned();
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    let (line, column) = match (offset, sources.0.get(&file)) {
        (Some(offset), Some(text)) => line_and_column(text, offset),
        _ => (1, 1),
    };
    let hint = error.help().map(|help| help.to_string()).unwrap_or_default();
    SchemaProblem { file, line, column, text: error.to_string(), hint }
}
