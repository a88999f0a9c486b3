//! Templates: JSON whose texts take values from an execution. `${parameters.fee}` alone is that value as it is; within
//! other text it is printed.

use serde_json::Value;

/// A place where a template takes a value from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// `${parameters.NAME}`.
    Parameter(String),
    /// `${steps.ID.reply.PATH}`.
    Reply { step: String, path: Vec<String> },
    /// `${item}` or `${item.PATH}`.
    Item(Vec<String>),
    /// `${execution_id}`.
    ExecutionId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Reference(Reference),
}

/// The references in all texts of a template, each with the path of its text; what is no reference is an error.
pub(super) fn references(template: &Value) -> Result<Vec<Reference>, String> {
    match template {
        Value::String(text) => {
            let pieces = parse(text)?.into_iter();
            Ok(pieces
                .filter_map(|piece| match piece {
                    Piece::Reference(reference) => Some(reference),
                    Piece::Text(_) => None,
                })
                .collect())
        }
        Value::Array(items) => flat(items.iter()),
        Value::Object(members) => flat(members.values()),
        _ => Ok(Vec::new()),
    }
}

fn flat<'v>(values: impl Iterator<Item = &'v Value>) -> Result<Vec<Reference>, String> {
    let mut all = Vec::new();
    for value in values {
        all.extend(references(value)?);
    }
    Ok(all)
}

/// The template with its values; fails with the name of one that is missing.
pub(super) fn expand(template: &Value, find: &dyn Fn(&Reference) -> Option<Value>) -> Result<Value, String> {
    let expand_all = |value: &Value| expand(value, find);
    match template {
        Value::String(text) => expand_text(text, find),
        Value::Array(items) => items.iter().map(expand_all).collect::<Result<_, _>>().map(Value::Array),
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| Ok((name.clone(), expand(value, find)?)));
            members.collect::<Result<_, String>>().map(Value::Object)
        }
        plain => Ok(plain.clone()),
    }
}

fn expand_text(text: &str, find: &dyn Fn(&Reference) -> Option<Value>) -> Result<Value, String> {
    let value_of = |reference: &Reference| find(reference).ok_or_else(|| format!("no value for {}", print(reference)));
    let pieces = parse(text)?;
    if let [Piece::Reference(reference)] = &pieces[..] {
        return value_of(reference);
    }
    let mut whole = String::new();
    for piece in &pieces {
        match piece {
            Piece::Text(text) => whole.push_str(text),
            Piece::Reference(reference) => match value_of(reference)? {
                Value::String(text) => whole.push_str(&text),
                value => whole.push_str(&value.to_string()),
            },
        }
    }
    Ok(Value::String(whole))
}

/// The value at a path: members by name, elements by number.
pub(super) fn at<'v>(value: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(members) => members.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

fn parse(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while let Some((before, behind)) = rest.split_once("${") {
        let (name, after) = behind.split_once('}').ok_or_else(|| format!("`${{` without `}}` in `{text}`"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        pieces.push(Piece::Reference(reference(name)?));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn reference(name: &str) -> Result<Reference, String> {
    let names: Vec<&str> = name.split('.').collect();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match &names[..] {
        _ if names.iter().any(|name| name.is_empty()) => Err(unknown(name)),
        ["execution_id"] => Ok(Reference::ExecutionId),
        ["parameters", parameter] => Ok(Reference::Parameter((*parameter).to_owned())),
        ["item", path @ ..] => Ok(Reference::Item(owned(path))),
        ["steps", step, "reply", path @ ..] => Ok(Reference::Reply { step: (*step).to_owned(), path: owned(path) }),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> String {
    format!(
        "`${{{name}}}` is none of `${{parameters.NAME}}`, `${{steps.ID.reply.PATH}}`, `${{item}}`, `${{execution_id}}`"
    )
}

/// The reference as it was written.
pub(super) fn print(reference: &Reference) -> String {
    let joined = |start: String, path: &[String]| path.iter().fold(start, |text, name| format!("{text}.{name}"));
    let name = match reference {
        Reference::Parameter(name) => format!("parameters.{name}"),
        Reference::Reply { step, path } => joined(format!("steps.{step}.reply"), path),
        Reference::Item(path) => joined("item".to_owned(), path),
        Reference::ExecutionId => "execution_id".to_owned(),
    };
    format!("${{{name}}}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reference_alone_keeps_its_kind_and_within_text_is_printed() {
        let reply = json!({"list": [{"n": 7}]});
        let find = |reference: &Reference| match reference {
            Reference::Parameter(name) => Some(json!(format!("<{name}>"))),
            Reference::Reply { path, .. } => at(&reply, path).cloned(),
            Reference::Item(_) => None,
            Reference::ExecutionId => Some(json!("exe_1")),
        };
        for (template, expected) in [
            (json!({"a": "${steps.s.reply.list.0.n}", "b": [true, "x"]}), Ok(json!({"a": 7, "b": [true, "x"]}))),
            (json!("n is ${steps.s.reply.list.0.n}, ${parameters.p} ${execution_id}"), Ok(json!("n is 7, <p> exe_1"))),
            (json!("${steps.s.reply.list.1.n}"), Err("no value for ${steps.s.reply.list.1.n}".to_owned())),
            (json!("${item}"), Err("no value for ${item}".to_owned())),
            (json!("${parameters"), Err("`${` without `}` in `${parameters`".to_owned())),
        ] {
            assert_eq!(expand(&template, &find), expected);
        }
    }
}
