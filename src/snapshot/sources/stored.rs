//! A whole table as one value of a bucket: JSON, so that `nats kv get` shows it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::super::problem::{Place, Problem};
use super::Material;
use crate::schema::SourceFile;

/// The form that this program writes and reads.
const FORMAT: u32 = 1;

/// A table, and what its writer says of it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The table.
    pub material: Material,
    /// What was written for people.
    pub note: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    note: String,
    allows_breaking: bool,
    routes: String,
    descriptors: Vec<WrittenFile>,
}

/// Source as text, a set as base64.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

impl Stored {
    /// The value.
    pub fn write(&self) -> Bytes {
        let file = |file: &SourceFile| match String::from_utf8(file.bytes.clone()) {
            Ok(text) if file.name.ends_with(".proto") => {
                WrittenFile { name: file.name.clone(), text: Some(text), base64: None }
            }
            _ => WrittenFile { name: file.name.clone(), text: None, base64: Some(STANDARD.encode(&file.bytes)) },
        };
        let written = Written {
            format: FORMAT,
            note: self.note.clone(),
            allows_breaking: self.material.allows_breaking,
            routes: self.material.routes.clone(),
            descriptors: self.material.descriptors.iter().map(file).collect(),
        };
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(&written).unwrap_or_default().into()
    }

    /// The table of a value; problems point into `name`.
    pub fn read(name: &str, value: &[u8]) -> Result<Stored, Vec<Problem>> {
        let problem = |text: String, hint: &str| vec![Problem::new(Place::new(name, 1, 1), text).hint(hint)];
        // The form first: a later one may have other members.
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let hint = "tables are put by `tidegate routes push`";
        let no_table = |error: serde_json::Error| problem(format!("this is no stored table: {error}"), hint);
        let Form { format } = serde_json::from_slice(value).map_err(no_table)?;
        if format != FORMAT {
            let text = format!("this table has form {format}: this program reads form {FORMAT}");
            return Err(problem(text, "a newer `tidegate` has put it"));
        }
        let written: Written = serde_json::from_slice(value).map_err(no_table)?;
        let mut descriptors = Vec::with_capacity(written.descriptors.len());
        for file in written.descriptors {
            let bytes = match (file.text, file.base64) {
                (Some(text), None) => text.into_bytes(),
                (None, Some(text)) => STANDARD
                    .decode(text)
                    .map_err(|error| problem(format!("`{}` is no base64: {error}", file.name), hint))?,
                _ => return Err(problem(format!("`{}` has either `text` or `base64`", file.name), hint)),
            };
            descriptors.push(SourceFile { name: file.name, bytes });
        }
        let material = Material {
            routes_name: name.to_owned(),
            routes: written.routes,
            descriptors,
            allows_breaking: written.allows_breaking,
            ..Material::default()
        };
        Ok(Stored { material, note: written.note })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let file = |name: &str, bytes: &[u8]| SourceFile { name: name.to_owned(), bytes: bytes.to_vec() };
        let descriptors = vec![file("a/b.proto", "// größe".as_bytes()), file("set.binpb", &[0, 255, 10])];
        let material = Material {
            routes_name: "here".to_owned(),
            routes: "routes: []\n".to_owned(),
            descriptors,
            allows_breaking: true,
            ..Material::default()
        };
        let read =
            Stored::read("here", &Stored { material: material.clone(), note: "why".to_owned() }.write()).unwrap();
        assert_eq!((read.note.as_str(), format!("{:?}", read.material)), ("why", format!("{material:?}")));
    }

    #[test]
    fn what_is_no_table_is_said() {
        for (value, text) in [
            ("hello", "this is no stored table: expected value at line 1 column 1"),
            ("{\"format\":2}", "this table has form 2: this program reads form 1"),
            (
                r#"{"format":1,"note":"","allows_breaking":false,"routes":"","descriptors":[{"name":"a"}]}"#,
                "`a` has either `text` or `base64`",
            ),
        ] {
            let problems = Stored::read("kv://b/k@1", value.as_bytes()).unwrap_err();
            assert_eq!(
                (problems[0].place.to_string().as_str(), problems[0].message.as_str()),
                ("kv://b/k@1:1:1", text)
            );
        }
    }
}
