//! YAML text → values with their places.

use schemars::JsonSchema;
use serde::de::{Deserialize, DeserializeOwned, Deserializer};
use serde_saphyr::Spanned;

use super::hints::did_you_mean;
use super::problem::{Place, Problem};
use super::shape;
use super::tree::Tree;

/// Largest file in bytes.
const FILE_MAX: usize = 8 * 1024 * 1024;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Line and column, counted from 1; 0 for defaults.
    pub place: (usize, usize),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<At<T>, D::Error> {
        let spanned = Spanned::<T>::deserialize(deserializer)?;
        let place = (spanned.referenced.line() as usize, spanned.referenced.column() as usize);
        Ok(At { value: spanned.value, place })
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    // The same schema as the bare value's: without this each would be defined twice.
    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

/// Reads a file's text; nothing where it says nothing.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<Option<T>, Problem> {
    if text.len() > FILE_MAX {
        return Err(Problem::new(Place::new(file, 1, 1), format!("larger than {FILE_MAX} bytes")));
    }
    if text.trim().is_empty() {
        return Ok(None);
    }
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map(Some).map_err(|error| {
        let error = error.without_snippet();
        let place = error.location().map_or((1, 1), |at| (at.line() as usize, at.column() as usize));
        let text = error.to_string();
        // The crate's own text ends with its place, which ours shows already.
        let text = text.split(" at line ").next().unwrap_or(&text).lines().next().unwrap_or_default();
        // Its advice on the crate's options is none to somebody who writes the file.
        let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or(text);
        // Aliases are counted each time that they are used: a small file may ask for billions of values.
        if let Some(breach) = text.strip_prefix("budget breached: ") {
            let text = format!("more than a file may hold, its aliases written out: {breach}");
            return Problem::new(Place::new(file, place.0, place.1), text);
        }
        Problem::new(Place::new(file, place.0, place.1), text).hint(hint(text))
    })
}

/// As [`read`], for a type that has a JSON Schema: everything that is not of its form, not only the first such thing.
pub(crate) fn read_shaped<T: DeserializeOwned + JsonSchema>(file: &str, text: &str) -> Result<Option<T>, Vec<Problem>> {
    read(file, text).map_err(|first| {
        let Ok(Some(tree)) = read::<Tree>(file, text) else { return vec![first] };
        let found = shape::problems(file, &tree, schemars::schema_for!(T).as_value());
        if found.is_empty() { vec![first] } else { found }
    })
}

/// A value as YAML text.
pub(crate) fn to_yaml(value: &impl serde::Serialize) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}

/// The key that was probably meant, from the crate's text on an unknown one.
fn hint(text: &str) -> String {
    let names = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected one of "));
    let Some((wanted, known)) = names else { return String::new() };
    let known: Vec<&str> = known.split(", ").collect();
    Some(did_you_mean(wanted, &known)).filter(|hint| hint.starts_with("did you mean")).unwrap_or_default()
}
