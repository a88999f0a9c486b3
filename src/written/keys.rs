//! A map of a file read key by key: each key is named once, with its meaning, default and range, and from that one line
//! come the value, what is wrong with it, and the JSON Schema. Reading goes on after a problem, so all are found.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::hints::unknown_key;
use super::leaf::SecretSource;
use super::problem::{Place, Problem};
use super::tree::{Node, Tree};

/// Gives a secret's text, or why it cannot.
pub type SecretReader = fn(&SecretSource) -> Result<String, String>;

/// What one reading of a file finds, beside its values.
pub struct Report {
    file: String,
    secrets: Option<SecretReader>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The values that only a restart can change.
    pub pinned: Vec<Pinned>,
    /// Where the secrets are that the file names.
    pub secret_sources: Vec<SecretSource>,
}

/// A value that only a restart can change.
#[derive(Clone, Debug)]
pub struct Pinned {
    /// `common.without`.
    pub path: String,
    /// The value as text: equal where the values are.
    pub value: String,
    /// Where it stands; the file's first place where it does not.
    pub place: (usize, usize),
}

impl Report {
    /// An empty report on a file. Without `secrets` they are named, and not read.
    pub fn new(file: &str, secrets: Option<SecretReader>) -> Report {
        Report { file: file.to_owned(), secrets, problems: Vec::new(), pinned: Vec::new(), secret_sources: Vec::new() }
    }

    /// Reads the whole file: its top-level keys. Gives the JSON Schema of what was asked for as well.
    pub fn read<T>(&mut self, root: &Tree, read: impl FnOnce(&mut Keys) -> T) -> (T, Value) {
        let members = match &root.node {
            Node::Map(members) => members.as_slice(),
            Node::Nothing => &[],
            other => {
                self.problem(root.place, format!("expected a map of sections, found {other}"));
                &[]
            }
        };
        let mut keys = Keys::new(self, String::new(), (1, 1), members);
        let value = read(&mut keys);
        let schema = keys.end();
        self.problems.sort_by_key(|problem| (problem.place.line, problem.place.column));
        (value, schema)
    }

    /// Something is wrong there.
    pub fn problem(&mut self, place: (usize, usize), text: impl Into<String>) {
        self.problems.push(Problem::new(Place::new(&self.file, place.0, place.1), text));
    }

    /// Like [`Report::problem`], with what to do.
    pub(super) fn advise(&mut self, place: (usize, usize), text: impl Into<String>, hint: impl Into<String>) {
        self.problems.push(Problem::new(Place::new(&self.file, place.0, place.1), text).hint(hint));
    }

    pub(super) fn conceal_last(&mut self) {
        if let Some(problem) = self.problems.pop() {
            self.problems.push(problem.conceal());
        }
    }

    pub(super) fn secret(&mut self, source: &SecretSource) -> Option<Result<String, String>> {
        self.secret_sources.push(source.clone());
        self.secrets.map(|read| read(source))
    }
}

/// One map of the file. Keys that nobody asks for are unknown, which the end of its reading says.
pub struct Keys<'a> {
    pub(super) report: &'a mut Report,
    path: String,
    place: (usize, usize),
    members: &'a [(super::At<String>, Tree)],
    properties: serde_json::Map<String, Value>,
    required: Vec<Value>,
}

/// A key that is asked for; how its value is read comes next.
pub struct Key<'k, 'a> {
    pub(super) keys: &'k mut Keys<'a>,
    pub(super) name: &'k str,
    meaning: &'static str,
    needs_restart: bool,
}

impl<'a> Keys<'a> {
    fn new(
        report: &'a mut Report,
        path: String,
        place: (usize, usize),
        members: &'a [(super::At<String>, Tree)],
    ) -> Keys<'a> {
        Keys { report, path, place, members, properties: serde_json::Map::new(), required: Vec::new() }
    }

    /// Asks for a key; `meaning` is for people, without a full stop.
    pub fn key<'k>(&'k mut self, name: &'k str, meaning: &'static str) -> Key<'k, 'a> {
        Key { keys: self, name, meaning, needs_restart: false }
    }

    /// True where the key was written.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Something is wrong with the value of a key, or with the whole map where the key is not there.
    pub fn problem(&mut self, name: &str, text: impl Into<String>) {
        let place = self.find(name).map_or(self.place, |tree| tree.place);
        self.report.problem(place, text);
    }

    pub(super) fn find(&self, name: &str) -> Option<&'a Tree> {
        let value = self.members.iter().find(|(key, _)| key.value == name).map(|(_, value)| value);
        value.filter(|value| !matches!(value.node, Node::Nothing))
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Says which keys nobody asked for; gives the map's JSON Schema.
    fn end(self) -> Value {
        for (key, _) in self.members.iter().filter(|(key, _)| !self.properties.contains_key(&key.value)) {
            let known: Vec<&str> = self.properties.keys().map(String::as_str).collect();
            let (text, hint) = unknown_key(&key.value, &known);
            self.report.advise(key.place, text, hint);
        }
        let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": self.properties });
        if !self.required.is_empty() {
            schema["required"] = Value::Array(self.required);
        }
        schema
    }
}

impl<'a> Key<'_, 'a> {
    /// Only a restart changes it.
    #[must_use]
    pub fn needs_restart(mut self) -> Self {
        self.needs_restart = true;
        self
    }

    /// A map with keys of its own.
    pub fn section<T>(self, read: impl FnOnce(&mut Keys) -> T) -> T {
        let (members, place) = match self.keys.find(self.name) {
            Some(Tree { node: Node::Map(members), place }) => (members.as_slice(), *place),
            Some(other) => {
                self.keys.report.problem(other.place, format!("expected a map, found {}", other.node));
                (&[][..], other.place)
            }
            None => (&[][..], self.keys.place),
        };
        let mut keys = Keys::new(self.keys.report, self.keys.path_of(self.name), place, members);
        let value = read(&mut keys);
        let schema = keys.end();
        self.describe(schema);
        value
    }

    /// A list of maps; nothing where the key is not there. With `word`, an item may also be a text, which stands for a
    /// map with that one key.
    pub fn rows<T>(self, word: Option<&str>, mut read: impl FnMut(&mut Keys) -> T) -> Option<Vec<T>> {
        let item = schema_of(&mut read);
        let item = if word.is_some() { either_text(&item) } else { item };
        let path = self.keys.path_of(self.name);
        let found = self.keys.find(self.name);
        let rows = match found {
            Some(Tree { node: Node::List(list), .. }) => {
                let rows = list.iter().enumerate();
                Some(
                    rows.filter_map(|(index, tree)| {
                        read_row(self.keys.report, format!("{path}[{index}]"), tree, word, &mut read)
                    })
                    .collect(),
                )
            }
            Some(other) => {
                self.keys.report.problem(other.place, format!("expected a list, found {}", other.node));
                None
            }
            None => None,
        };
        self.describe(json!({ "type": "array", "items": item }));
        rows
    }

    /// A map with names that the file chooses, each with a map; nothing where the key is not there.
    pub fn named_rows<T>(mut self, mut read: impl FnMut(&mut Keys) -> T) -> Option<BTreeMap<String, T>> {
        let rows = self.find_named_rows(&mut read);
        self.describe(map_schema(&schema_of(&mut read)));
        rows
    }

    /// Like [`Key::named_rows`]; or a text in their place, the path of a file that has them. Where secrets are not read,
    /// that file is not read either.
    pub fn named_rows_or_file<T>(mut self, mut read: impl FnMut(&mut Keys) -> T) -> Option<BTreeMap<String, T>> {
        let found = match self.keys.find(self.name) {
            Some(Tree { node: Node::Text(path), place }) => rows_of_file(self.keys.report, path, *place, &mut read),
            _ => self.find_named_rows(&mut read),
        };
        self.describe(either_text(&map_schema(&schema_of(&mut read))));
        found
    }

    fn find_named_rows<T>(&mut self, read: &mut impl FnMut(&mut Keys) -> T) -> Option<BTreeMap<String, T>> {
        let (found, path) = (self.keys.find(self.name)?, self.keys.path_of(self.name));
        rows_of(self.keys.report, &format!("{path}."), found, read)
    }

    /// A value that `read` makes of what stands there, or says what was expected instead.
    pub(super) fn leaf<T: std::fmt::Debug>(
        self,
        schema: Value,
        default: T,
        read: impl FnOnce(&Tree) -> Result<T, String>,
    ) -> T {
        let found = self.keys.find(self.name);
        let value = match found.map(|tree| (tree.place, read(tree))) {
            None => default,
            Some((_, Ok(value))) => value,
            Some((place, Err(text))) => {
                self.keys.report.problem(place, text);
                default
            }
        };
        if self.needs_restart {
            let place = found.map_or((1, 1), |tree| tree.place);
            let pinned = Pinned { path: self.keys.path_of(self.name), value: format!("{value:?}"), place };
            self.keys.report.pinned.push(pinned);
        }
        self.describe(schema);
        value
    }

    /// Says that the key has to be there.
    pub(super) fn require(&mut self) {
        self.keys.required.push(Value::from(self.name));
        if self.keys.find(self.name).is_none() {
            let (place, text) = (self.keys.place, format!("`{}` is missing", self.name));
            self.keys.report.problem(place, text);
        }
    }

    pub(super) fn describe(self, mut schema: Value) {
        let restart = if self.needs_restart { " (needs a restart)" } else { "" };
        schema["description"] = format!("{}{restart}", self.meaning).into();
        self.keys.properties.insert(self.name.to_owned(), schema);
    }
}

/// The rows of a map; `path` is what stands before their names.
fn rows_of<T>(
    report: &mut Report,
    path: &str,
    found: &Tree,
    read: &mut impl FnMut(&mut Keys) -> T,
) -> Option<BTreeMap<String, T>> {
    let Node::Map(members) = &found.node else {
        report.problem(found.place, format!("expected a map, found {}", found.node));
        return None;
    };
    let rows = members.iter().filter_map(|(name, tree)| {
        let row = read_row(report, format!("{path}{}", name.value), tree, None, read)?;
        Some((name.value.clone(), row))
    });
    Some(rows.collect())
}

/// The rows of a file that is named in their place. It is read and followed as the files of secrets are.
fn rows_of_file<T>(
    report: &mut Report,
    path: &str,
    place: (usize, usize),
    read: &mut impl FnMut(&mut Keys) -> T,
) -> Option<BTreeMap<String, T>> {
    let text = match report.secret(&SecretSource::File(path.into()))? {
        Ok(text) => text,
        Err(why) => {
            report.problem(place, format!("the file cannot be read: {why}"));
            return None;
        }
    };
    match super::read::<Tree>(path, &text) {
        Ok(root) => {
            let mut of_file = Report::new(path, None);
            let rows = rows_of(&mut of_file, "", &root?, read);
            report.problems.append(&mut of_file.problems);
            rows
        }
        Err(problem) => {
            report.problems.push(problem);
            None
        }
    }
}

fn read_row<T>(
    report: &mut Report,
    path: String,
    tree: &Tree,
    word: Option<&str>,
    read: &mut impl FnMut(&mut Keys) -> T,
) -> Option<T> {
    let of_word;
    let members = match (&tree.node, word) {
        (Node::Map(members), _) => members.as_slice(),
        (Node::Text(_), Some(key)) => {
            of_word = [(super::At { value: key.to_owned(), place: tree.place }, tree.clone())];
            &of_word
        }
        (other, _) => {
            report.problem(tree.place, format!("expected a map, found {other}"));
            return None;
        }
    };
    let mut keys = Keys::new(report, path, tree.place, members);
    let row = read(&mut keys);
    keys.end();
    Some(row)
}

/// What a row is made of, found by reading an empty one.
fn schema_of<T>(read: &mut impl FnMut(&mut Keys) -> T) -> Value {
    let mut report = Report::new("", None);
    let mut keys = Keys::new(&mut report, String::new(), (0, 0), &[]);
    read(&mut keys);
    keys.end()
}

fn map_schema(item: &Value) -> Value {
    json!({ "type": "object", "additionalProperties": item })
}

fn either_text(other: &Value) -> Value {
    json!({ "anyOf": [{ "type": "string" }, other] })
}
