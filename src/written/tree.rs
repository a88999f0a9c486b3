//! A file as a tree of values with their places, before anybody says what the keys mean.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::At;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Line and column, counted from 1; 0 where nobody wrote it.
    pub place: (usize, usize),
    /// The value.
    pub node: Node,
}

/// What stands there.
#[derive(Clone, Debug)]
pub enum Node {
    /// `null`, or nothing behind the colon.
    Nothing,
    /// `true` or `false`.
    Truth(bool),
    /// A number without a fraction.
    Whole(i64),
    /// Any other number.
    Real(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// Keys and values, in the order of the file.
    Map(Vec<(At<String>, Tree)>),
}

impl Tree {
    /// A JSON value as if it stood at a place.
    pub fn of_json(value: &serde_json::Value, place: (usize, usize)) -> Tree {
        use serde_json::Value;
        let node = match value {
            Value::Null => Node::Nothing,
            Value::Bool(truth) => Node::Truth(*truth),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Node::Whole(whole),
                None => Node::Real(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Node::Text(text.clone()),
            Value::Array(list) => Node::List(list.iter().map(|value| Tree::of_json(value, place)).collect()),
            Value::Object(members) => Node::Map(
                members
                    .iter()
                    .map(|(name, value)| (At { value: name.clone(), place }, Tree::of_json(value, place)))
                    .collect(),
            ),
        };
        Tree { place, node }
    }

    /// Puts a value under a path of keys, making the maps on the way; what stood there is replaced.
    pub fn put(&mut self, path: &[&str], value: Tree) {
        let Some((name, rest)) = path.split_first() else {
            *self = value;
            return;
        };
        if !matches!(self.node, Node::Map(_)) {
            self.node = Node::Map(Vec::new());
        }
        let Node::Map(members) = &mut self.node else { return };
        let index = members.iter().position(|(key, _)| key.value == *name).unwrap_or_else(|| {
            let key = At { value: (*name).to_owned(), place: value.place };
            members.push((key, Tree { place: value.place, node: Node::Nothing }));
            members.len() - 1
        });
        members[index].1.put(rest, value);
    }
}

impl fmt::Display for Node {
    /// The value as problems quote it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Nothing => f.write_str("nothing"),
            Node::Truth(truth) => write!(f, "`{truth}`"),
            Node::Whole(number) => write!(f, "`{number}`"),
            Node::Real(number) => write!(f, "`{number}`"),
            Node::Text(text) => write!(f, "`{text}`"),
            Node::List(_) => f.write_str("a list"),
            Node::Map(_) => f.write_str("a map"),
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        let At { value: node, place } = At::<Node>::deserialize(deserializer)?;
        Ok(Tree { place, node })
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_none<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Node, E> {
        Ok(Node::Truth(truth))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Whole(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Node, E> {
        Ok(i64::try_from(number).map_or(Node::Real(number as f64), Node::Whole))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Node, E> {
        Ok(Node::Real(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut found = Vec::new();
        while let Some(value) = list.next_element()? {
            found.push(value);
        }
        Ok(Node::List(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut found = Vec::new();
        while let Some(row) = map.next_entry()? {
            found.push(row);
        }
        Ok(Node::Map(found))
    }
}
