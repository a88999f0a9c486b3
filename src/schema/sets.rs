//! Descriptor sets of single services, for programs that hand their schema to others.

use std::collections::{BTreeMap, HashSet};

use prost_reflect::FileDescriptor;

use super::{SchemaProblem, SourceFile, load};
use crate::transcode::wire::put_bytes;

/// A binary `FileDescriptorSet` for each list of services, by full name: the files that declare them, and behind them
/// in order all that these import but what every program has. Services that are not there are left out.
///
/// Fails with every problem of every file.
pub fn sets(files: &[SourceFile], services: &[Vec<&str>]) -> Result<Vec<Vec<u8>>, Vec<SchemaProblem>> {
    let (pool, _) = load::pool(files)?;
    let given = load::set_files(files);
    let set = |names: &Vec<&str>| {
        let mut set = Set { given: &given, seen: HashSet::new(), bytes: Vec::new() };
        for service in names.iter().filter_map(|name| pool.get_service_by_name(name)) {
            set.add(&service.parent_file());
        }
        set.bytes
    };
    Ok(services.iter().map(set).collect())
}

struct Set<'g> {
    /// Files of sets as they were given: what lowering took from editions is in these.
    given: &'g BTreeMap<String, Vec<u8>>,
    seen: HashSet<String>,
    bytes: Vec<u8>,
}

impl Set<'_> {
    /// Adds a file behind its imports.
    fn add(&mut self, file: &FileDescriptor) {
        if load::is_built_in(file.name()) || !self.seen.insert(file.name().to_owned()) {
            return;
        }
        for import in file.dependencies() {
            self.add(&import);
        }
        match self.given.get(file.name()) {
            Some(bytes) => put_bytes(1, bytes, &mut self.bytes),
            None => put_bytes(1, &file.encode_to_vec(), &mut self.bytes),
        }
    }
}
