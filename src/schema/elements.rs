//! What the files of a schema declare, by full name: where it stands, and what is written there. The tables keep neither;
//! whoever has something to say looks it up here.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, FileDescriptor};

use super::{Paths, SourceFile, load, path_of};

/// Longest comment that is kept, in bytes.
const COMMENT_MAX: usize = 8 * 1024;

/// A place in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaPlace {
    /// Path of the file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in bytes, counted from 1.
    pub column: usize,
}

impl std::fmt::Display for SchemaPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Where the elements of these names stand. What is not there has the place of what it would be a part of; nothing where
/// that is not there either.
pub fn places(files: &[SourceFile], paths: &Paths, names: &[&str]) -> Vec<Option<SchemaPlace>> {
    let Ok((pool, _)) = load::pool(files) else { return vec![None; names.len()] };
    let mut places: HashMap<String, SchemaPlace> = HashMap::new();
    Elements::of(&pool, paths).each(&pool, |element| drop(places.insert(element.name, element.place)));
    let place_of = |name: &&str| {
        let mut whole = *name;
        loop {
            if let Some(place) = places.get(whole) {
                return Some(place.clone());
            }
            whole = &whole[..whole.rfind(['.', '/'])?];
        }
    };
    names.iter().map(place_of).collect()
}

/// Something that is declared: a message, an enum or a service by its full name, a field or a value behind a further `.`
/// (`pkg.Enum.VALUE`), a method behind a `/`.
pub(super) struct Element {
    pub(super) name: String,
    pub(super) place: SchemaPlace,
    /// The comment above it, or behind it on its line; lines as written.
    pub(super) comment: Box<str>,
    pub(super) options: DynamicMessage,
}

/// What the sources of a pool say of its elements: by file, and by the element's path in it.
pub(super) struct Elements(HashMap<String, Source>);

struct Source {
    path: String,
    locations: HashMap<Vec<i32>, Location>,
}

struct Location {
    line: usize,
    column: usize,
    comment: Box<str>,
}

impl Elements {
    pub(super) fn of(pool: &DescriptorPool, paths: &Paths) -> Elements {
        let source = |file: FileDescriptor| {
            let (name, locations) = (file.name(), locations(&file));
            (name.to_owned(), Source { path: path_of(name, paths).to_owned(), locations })
        };
        Elements(pool.files().map(source).collect())
    }

    /// Where something stands; the file's beginning where nobody has written down more, as in sets without source info.
    pub(super) fn place(&self, file: &FileDescriptor, path: &[i32]) -> SchemaPlace {
        let (line, column) = self.location(file, path).map_or((1, 1), |location| (location.line, location.column));
        let path = self.0.get(file.name()).map_or(file.name(), |source| &source.path);
        SchemaPlace { file: path.to_owned(), line, column }
    }

    fn location(&self, file: &FileDescriptor, path: &[i32]) -> Option<&Location> {
        self.0.get(file.name())?.locations.get(path)
    }

    /// Hands out everything that the pool's files declare. The entries of maps are nobody's words.
    pub(super) fn each(&self, pool: &DescriptorPool, mut take: impl FnMut(Element)) {
        let mut give = |name: String, file: &FileDescriptor, path: &[i32], options: DynamicMessage| {
            let comment = self.location(file, path).map(|location| location.comment.clone()).unwrap_or_default();
            take(Element { name, place: self.place(file, path), comment, options });
        };
        for message in pool.all_messages().filter(|message| !message.is_map_entry()) {
            let file = message.parent_file();
            give(message.full_name().to_owned(), &file, message.path(), message.options());
            for field in message.fields() {
                give(field.full_name().to_owned(), &file, field.path(), field.options());
            }
        }
        for descriptor in pool.all_enums() {
            let (file, name) = (descriptor.parent_file(), descriptor.full_name());
            give(name.to_owned(), &file, descriptor.path(), descriptor.options());
            for value in descriptor.values() {
                give(format!("{name}.{}", value.name()), &file, value.path(), value.options());
            }
        }
        for service in pool.services() {
            let (file, name) = (service.parent_file(), service.full_name());
            give(name.to_owned(), &file, service.path(), service.options());
            for method in service.methods() {
                give(format!("{name}/{}", method.name()), &file, method.path(), method.options());
            }
        }
    }
}

fn locations(file: &FileDescriptor) -> HashMap<Vec<i32>, Location> {
    let info = file.file_descriptor_proto().source_code_info.iter();
    let written = info.flat_map(|info| &info.location).filter_map(|location| {
        let [line, column, ..] = location.span.as_slice() else { return None };
        let comment = match location.leading_comments() {
            "" => location.trailing_comments(),
            text => text,
        };
        let (line, column) = (*line as usize + 1, *column as usize + 1);
        Some((location.path.clone(), Location { line, column, comment: clean(comment) }))
    });
    written.collect()
}

/// Without the space behind each `//`.
fn clean(text: &str) -> Box<str> {
    let end = (0..=text.len().min(COMMENT_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let lines: Vec<&str> = text[..end].lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    lines.join("\n").trim().into()
}
