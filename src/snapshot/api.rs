//! The API description's own words, and the path where clients get it. What it says of routes is made elsewhere, from
//! the snapshot.

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::build::Builder;
use super::manifest::OpenApiRow;
use crate::route::{Lookup, Segments};

/// What the API description says of itself.
#[derive(Debug)]
pub struct Api {
    /// Its title.
    pub title: Box<str>,
    /// The API's version.
    pub version: Box<str>,
    /// Where clients reach the gateway.
    pub server: Option<Box<str>>,
    /// Path where clients get the description.
    pub path: Option<Box<str>>,
    /// The description as it was made on first demand; a reload makes a new one.
    pub rendered: OnceCell<Bytes>,
}

impl Api {
    pub(super) fn new(row: &OpenApiRow) -> Api {
        Api {
            title: row.title.as_deref().unwrap_or("HTTP API").into(),
            version: row.version.as_deref().unwrap_or("unversioned").into(),
            server: row.server.as_deref().map(Into::into),
            path: row.path.as_ref().map(|path| path.value.as_str().into()),
            rendered: OnceCell::new(),
        }
    }
}

impl Builder<'_> {
    /// Refuses a path for the description that a route takes.
    pub(super) fn api_path(&mut self) {
        let manifest = self.manifest;
        let Some(path) = &manifest.openapi.path else { return };
        let name = &path.value;
        let found = Segments::split(name).map(|segments| self.tree.find("GET", name, &segments));
        match found {
            None => {
                self.reader.problem(path.place, format!("`{name}` is no path: expected one such as `/openapi.json`"));
            }
            Some(Lookup::Found(id)) => {
                let route = self.by_id.get(&id).cloned().unwrap_or_default();
                self.reader.problem(path.place, format!("`{name}` is taken by {route}"));
            }
            Some(Lookup::WrongVerb(_) | Lookup::Missing) => {}
        }
    }
}
