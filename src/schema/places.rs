//! Where things stand in the sources, for those who have to be told. The tables do not keep it: it is looked up anew,
//! when there is something to say.

use prost_reflect::{DescriptorPool, FileDescriptor};

use super::services::place;
use super::{SourceFile, load};

/// A place in a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaPlace {
    /// The file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in bytes, counted from 1.
    pub column: usize,
}

/// Where the things of these full names stand: messages, enums, services, and a field, value or method behind a further
/// `.` or `/`. What is not there has the place of what it would be a part of; nothing where that is not there either.
pub fn places(files: &[SourceFile], names: &[&str]) -> Vec<Option<SchemaPlace>> {
    let Ok((pool, _)) = load::pool(files) else { return vec![None; names.len()] };
    names.iter().map(|name| place_of(&pool, name)).collect()
}

fn place_of(pool: &DescriptorPool, name: &str) -> Option<SchemaPlace> {
    let (mut whole, mut part) = (name, "");
    loop {
        if let Some((file, path)) = find(pool, whole, part) {
            let (file, line, column, _) = place(&file, &path);
            return Some(SchemaPlace { file, line, column });
        }
        let at = whole.rfind(['.', '/'])?;
        (whole, part) = (&name[..at], name[at + 1..].split(['.', '/']).next().unwrap_or_default());
    }
}

fn find(pool: &DescriptorPool, whole: &str, part: &str) -> Option<(FileDescriptor, Vec<i32>)> {
    if let Some(message) = pool.get_message_by_name(whole) {
        let field = message.get_field_by_name(part).map(|field| field.path().to_vec());
        return Some((message.parent_file(), field.unwrap_or_else(|| message.path().to_vec())));
    }
    if let Some(values) = pool.get_enum_by_name(whole) {
        let value = values.get_value_by_name(part).map(|value| value.path().to_vec());
        return Some((values.parent_file(), value.unwrap_or_else(|| values.path().to_vec())));
    }
    let service = pool.get_service_by_name(whole)?;
    let method = service.methods().find(|method| method.name() == part).map(|method| method.path().to_vec());
    Some((service.parent_file(), method.unwrap_or_else(|| service.path().to_vec())))
}
