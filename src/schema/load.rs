//! Sources and sets → one descriptor pool; every faulty file is reported, each once.

use std::collections::{BTreeMap, HashSet};

use miette::Diagnostic as _;
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::{SchemaProblem, SourceFile};

/// Largest file.
const FILE_MAX: usize = 32 * 1024 * 1024;

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

/// What a set brings: its files by name, as bytes, so that extension options survive.
#[derive(Clone, Default)]
struct Sets(BTreeMap<String, (String, Vec<u8>)>);

/// Finds imports: given sources, given sets, built-in ones, protobuf's own.
#[derive(Clone)]
struct Sources(BTreeMap<String, String>);

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
            Some((_, bytes)) => File::decode_file_descriptor_proto(bytes.as_slice()).map_err(protox::Error::new),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The pool of all files, and the texts of those that came as source.
pub(super) fn pool(files: &[SourceFile]) -> Result<(DescriptorPool, BTreeMap<String, String>), Vec<SchemaProblem>> {
    let mut problems = Vec::new();
    let (mut sources, mut sets) = (BTreeMap::new(), Sets::default());
    for file in files {
        if file.bytes.len() > FILE_MAX {
            problems.push(SchemaProblem::whole(&file.name, format!("larger than {FILE_MAX} bytes")));
        } else if file.name.ends_with(".proto") {
            read_source(file, &mut sources, &mut problems);
        } else {
            read_set(file, &mut sets, &mut problems);
        }
    }
    let broken: HashSet<String> = problems.iter().map(|problem| problem.file.clone()).collect();
    let mut names: Vec<String> = sources.keys().filter(|name| !broken.contains(*name)).cloned().collect();
    names.extend(sets.0.keys().filter(|name| !sources.contains_key(*name)).cloned());
    names.extend(BUILT_IN.iter().map(|row| row.0.to_owned()));
    // Files that do not compile alone are reported one by one; those that import them are not reported again.
    let mut good = Vec::new();
    for name in names {
        let mut compiler = compiler(&sources, &sets);
        match compiler.open_file(&name) {
            Ok(_) => good.push(name),
            Err(error) => {
                let problem = problem(&error, &name, &sources);
                if !problems.iter().any(|known| known.file == problem.file && known.line == problem.line) {
                    problems.push(problem);
                }
            }
        }
    }
    if !problems.is_empty() {
        problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        return Err(problems);
    }
    let mut compiler = compiler(&sources, &sets);
    compiler.include_imports(true).include_source_info(true);
    for name in &good {
        if let Err(error) = compiler.open_file(name) {
            problems.push(problem(&error, name, &sources));
        }
    }
    if problems.is_empty() { Ok((compiler.descriptor_pool(), sources)) } else { Err(problems) }
}

fn compiler(sources: &BTreeMap<String, String>, sets: &Sets) -> protox::Compiler {
    let mut resolvers = ChainFileResolver::new();
    resolvers.add(Sources(sources.clone()));
    resolvers.add(sets.clone());
    resolvers.add(GoogleFileResolver::new());
    protox::Compiler::with_file_resolver(resolvers)
}

fn read_source(file: &SourceFile, sources: &mut BTreeMap<String, String>, problems: &mut Vec<SchemaProblem>) {
    let Ok(text) = std::str::from_utf8(&file.bytes) else {
        problems.push(SchemaProblem::whole(&file.name, "not UTF-8 text".to_owned()));
        return;
    };
    if let Some((line, text_of_line)) =
        text.lines().enumerate().find(|(_, line)| line.trim_start().starts_with("edition"))
    {
        let column = text_of_line.len() - text_of_line.trim_start().len() + 1;
        problems.push(SchemaProblem {
            file: file.name.clone(),
            line: line + 1,
            column,
            text: "editions are read from descriptor sets, not from source".to_owned(),
            hint: format!("make a set: protoc --include_imports --descriptor_set_out=set.binpb {}", file.name),
        });
        return;
    }
    match sources.get(&file.name) {
        Some(known) if known != text => {
            problems.push(SchemaProblem::whole(&file.name, "given twice, with different content".to_owned()));
        }
        _ => {
            sources.insert(file.name.clone(), text.to_owned());
        }
    }
}

fn read_set(file: &SourceFile, sets: &mut Sets, problems: &mut Vec<SchemaProblem>) {
    let set = match FileDescriptorSet::decode(file.bytes.as_slice()) {
        Ok(set) if !set.file.is_empty() => set,
        Ok(_) => return problems.push(SchemaProblem::whole(&file.name, "a descriptor set without files".to_owned())),
        Err(error) => {
            let text = format!("neither .proto source nor a binary FileDescriptorSet: {error}");
            return problems.push(SchemaProblem::whole(&file.name, text));
        }
    };
    // The bytes of each file are kept, because decoding drops the extension options.
    let mut reader = crate::transcode::wire::WireReader::new(&file.bytes);
    let mut bytes = Vec::new();
    while let Ok(Some(record)) = reader.record() {
        if record.number == 1 {
            bytes.push(file.bytes[record.from..record.to].to_vec());
        }
    }
    for (descriptor, bytes) in set.file.iter().zip(bytes) {
        add_set_file(file, descriptor, bytes, sets, problems);
    }
}

fn add_set_file(
    file: &SourceFile,
    descriptor: &FileDescriptorProto,
    bytes: Vec<u8>,
    sets: &mut Sets,
    problems: &mut Vec<SchemaProblem>,
) {
    let name = descriptor.name().to_owned();
    if name.starts_with("google/protobuf/") {
        return;
    }
    if !matches!(descriptor.syntax(), "" | "proto2" | "proto3") {
        match super::lower::lower(&bytes) {
            Ok(lowered) => {
                sets.0.insert(name, (file.name.clone(), lowered));
            }
            Err(text) => problems.push(SchemaProblem::whole(&file.name, format!("`{name}`: {text}"))),
        }
        return;
    }
    match sets.0.get(&name) {
        Some((other, known)) if *known != bytes => {
            let text = format!("`{name}` is in `{other}`, too, with different content");
            problems.push(SchemaProblem::whole(&file.name, text));
        }
        _ => {
            sets.0.insert(name, (file.name.clone(), bytes));
        }
    }
}

/// A compiler's error with its place.
fn problem(error: &protox::Error, name: &str, sources: &BTreeMap<String, String>) -> SchemaProblem {
    let file = error.file().unwrap_or(name).to_owned();
    let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    let (line, column) = match (offset, sources.get(&file)) {
        (Some(offset), Some(text)) => {
            let before = &text.as_bytes()[..offset.min(text.len())];
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            (before.iter().filter(|byte| **byte == b'\n').count() + 1, before.len() - start + 1)
        }
        _ => (1, 1),
    };
    let hint = error.help().map(|help| help.to_string()).unwrap_or_default();
    SchemaProblem { file, line, column, text: error.to_string(), hint }
}
