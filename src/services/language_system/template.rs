//! Templates of contents: text with `{name}`, `{name, plural, one{…} other{…}}` where `#` is the number, and
//! `{name, select, a{…} other{…}}`; `{{` and `}}` are braces.
//!
//! Branches are templates themselves. Inside of a branch each `}` closes something, so that `other{# coins}}` needs no
//! blank between its braces.

use std::collections::BTreeMap;

use super::super::checks::{invalid, required};
use crate::fault::Fault;

/// Deepest nesting of branches.
const DEPTH_MAX: usize = 8;
/// Longest content in bytes.
const CONTENT_MAX: usize = 256 * 1024;

/// A template that is ready to be rendered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Variable(String),
    /// The number of the plural around it.
    Number,
    Plural {
        variable: String,
        branches: Branches,
    },
    Select {
        variable: String,
        branches: Branches,
    },
}

#[derive(Clone, Debug, PartialEq)]
struct Branches {
    named: Vec<(String, Vec<Part>)>,
    other: Vec<Part>,
}

impl Branches {
    fn of(&self, name: &str) -> &[Part] {
        self.named.iter().find(|branch| branch.0 == name).map_or(&self.other, |branch| &branch.1)
    }
}

impl Template {
    /// Reads a template; says what is wrong with it and at which character, counted from 1.
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let mut parser = Parser { text, rest: text };
        parser.parts(0, false).map(Template)
    }

    /// The content with its variables, for a language's rules. Values stay text, whatever braces they have.
    pub(super) fn render(&self, language: &str, values: &BTreeMap<String, String>) -> Result<String, Fault> {
        require(&self.0, values)?;
        let mut out = String::new();
        write(&self.0, language, values, "", &mut out)?;
        Ok(out)
    }
}

/// Also what this rendering does not come by has to be there: else a gap shows only in a rare branch.
fn require(parts: &[Part], values: &BTreeMap<String, String>) -> Result<(), Fault> {
    for part in parts {
        let (variable, branches) = match part {
            Part::Text(_) | Part::Number => continue,
            Part::Variable(variable) => (variable, None),
            Part::Plural { variable, branches } | Part::Select { variable, branches } => (variable, Some(branches)),
        };
        if !values.contains_key(variable) {
            return Err(required(&format!("variables.{variable}")));
        }
        let Some(branches) = branches else { continue };
        branches.named.iter().try_for_each(|(_, parts)| require(parts, values))?;
        require(&branches.other, values)?;
    }
    Ok(())
}

fn write(
    parts: &[Part],
    language: &str,
    values: &BTreeMap<String, String>,
    number: &str,
    out: &mut String,
) -> Result<(), Fault> {
    let value = |variable: &str| values.get(variable).map_or("", String::as_str);
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Variable(variable) => out.push_str(value(variable)),
            Part::Number => out.push_str(number),
            Part::Plural { variable, branches } => {
                let number = value(variable).trim();
                write(branches.of(category(language, variable, number)?), language, values, number, out)?;
            }
            Part::Select { variable, branches } => {
                write(branches.of(value(variable)), language, values, number, out)?;
            }
        }
        if out.len() > CONTENT_MAX {
            let text = format!("the content would have more than {CONTENT_MAX} bytes");
            return Err(invalid("variables", "too_long", text));
        }
    }
    Ok(())
}

/// The plural's branch for a number.
fn category(language: &str, variable: &str, number: &str) -> Result<&'static str, Fault> {
    let parsed = number.parse::<f64>().ok().filter(|number| number.is_finite());
    let Some(parsed) = parsed else {
        let field = format!("variables.{variable}");
        return Err(invalid(&field, "bad_format", format!("{field} must be a number")));
    };
    Ok(if parsed == 1.0 || (parsed == 0.0 && language == "fr") { "one" } else { "other" })
}

struct Parser<'t> {
    text: &'t str,
    rest: &'t str,
}

impl Parser<'_> {
    /// Parts up to the end of the text, or up to the brace that closes the branch.
    fn parts(&mut self, depth: usize, is_plural: bool) -> Result<Vec<Part>, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        loop {
            let special = self.rest.find(['{', '}', '#']).unwrap_or(self.rest.len());
            literal.push_str(&self.rest[..special]);
            self.rest = &self.rest[special..];
            if self.take("{{") {
                literal.push('{');
            } else if depth == 0 && self.take("}}") {
                literal.push('}');
            } else if self.rest.starts_with('#') && !is_plural {
                self.take("#");
                literal.push('#');
            } else {
                if !literal.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut literal)));
                }
                if self.take("#") {
                    parts.push(Part::Number);
                } else if self.rest.starts_with('{') {
                    parts.push(self.placeholder(depth, is_plural)?);
                } else if (depth == 0 && self.rest.is_empty()) || (depth > 0 && self.take("}")) {
                    return Ok(parts);
                } else {
                    return Err(self.wrong(match depth {
                        0 => "write `}}` for a brace",
                        _ => "close the branch with `}`",
                    }));
                }
            }
        }
    }

    fn placeholder(&mut self, depth: usize, is_plural: bool) -> Result<Part, String> {
        self.take("{");
        let variable = self.name("a variable's name, or `{{` for a brace")?;
        if self.take("}") {
            return Ok(Part::Variable(variable));
        }
        if !self.take(",") {
            return Err(self.wrong("close the variable with `}`"));
        }
        let kind = self.name("`plural` or `select`")?;
        if !self.take(",") || !matches!(kind.as_str(), "plural" | "select") {
            return Err(self.wrong("write `{name, plural, …}` or `{name, select, …}`"));
        }
        if depth >= DEPTH_MAX {
            return Err(self.wrong(&format!("branches are nested more than {DEPTH_MAX} deep")));
        }
        let is_own = kind == "plural";
        let branches = self.branches(depth, is_plural, is_own)?;
        Ok(match is_own {
            true => Part::Plural { variable, branches },
            false => Part::Select { variable, branches },
        })
    }

    fn branches(&mut self, depth: usize, is_plural: bool, is_own: bool) -> Result<Branches, String> {
        let (mut named, mut other) = (Vec::<(String, Vec<Part>)>::new(), None);
        loop {
            self.blanks();
            if self.take("}") {
                return match other {
                    Some(other) => Ok(Branches { named, other }),
                    None => Err(self.wrong("add the branch `other{…}`")),
                };
            }
            let name = self.name("a branch's name")?;
            let is_twice = if name == "other" { other.is_some() } else { named.iter().any(|one| one.0 == name) };
            if is_twice {
                return Err(self.wrong(&format!("`{name}` is there twice")));
            }
            if is_own && !matches!(name.as_str(), "one" | "other") {
                return Err(self.wrong("a plural has the branches `one` and `other`"));
            }
            if !self.take("{") {
                return Err(self.wrong("open the branch with `{`"));
            }
            let parts = self.parts(depth + 1, is_plural || is_own)?;
            match name.as_str() {
                "other" => other = Some(parts),
                _ => named.push((name, parts)),
            }
        }
    }

    /// A name with the blanks around it.
    fn name(&mut self, wanted: &str) -> Result<String, String> {
        self.blanks();
        let is_part = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '.');
        let end = self.rest.find(|letter| !is_part(letter)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.wrong(&format!("write {wanted}")));
        }
        let name = self.rest[..end].to_owned();
        self.rest = &self.rest[end..];
        self.blanks();
        Ok(name)
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn wrong(&self, advice: &str) -> String {
        let at = self.text[..self.text.len() - self.rest.len()].chars().count() + 1;
        format!("template, character {at}: {advice}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Values<'v> = &'v [(&'v str, &'v str)];

    fn rendered(language: &str, template: &str, values: Values<'_>) -> Result<String, Fault> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Template::parse(template).unwrap_or_else(|text| panic!("{text}")).render(language, &values)
    }

    #[test]
    fn contents_with_their_variables() {
        const COINS: &str = "{count, plural, one{# coin} other{# coins}}";
        let rows: [(&str, &str, Values<'_>, &str); 12] = [
            ("en", "Welcome, {name}.", &[("name", "Ada {x}"), ("more", "1")], "Welcome, Ada {x}."),
            ("en", COINS, &[("count", "1")], "1 coin"),
            ("en", COINS, &[("count", "0")], "0 coins"),
            ("fr", COINS, &[("count", "0")], "0 coin"),
            ("en", COINS, &[("count", "2.5")], "2.5 coins"),
            ("en", "{{#}} {a}", &[("a", "é")], "{#} é"),
            ("en", "{who, select, f{she} m{he} other{they}} waits", &[("who", "m")], "he waits"),
            ("en", "{who, select, f{she} m{he} other{they}} waits", &[("who", "x")], "they waits"),
            ("en", "{ n , plural , one { {a} # } other { # {a}s } }!", &[("n", "1"), ("a", "key")], " key 1 !"),
            ("en", "{n,plural,other{{w,select,a{# of {n}} other{}}}}", &[("n", "3"), ("w", "a")], "3 of 3"),
            ("en", "{a}}} {{", &[("a", "x")], "x} {"),
            ("en", "", &[], ""),
        ];
        for (language, template, values, expected) in rows {
            assert_eq!(rendered(language, template, values).unwrap(), expected, "{template}");
        }
    }

    #[test]
    fn what_is_missing_is_named_even_in_a_branch_that_is_not_taken() {
        let template = "{n, plural, one{{name}} other{#}}";
        let field = |values: &[(&str, &str)]| {
            let fault = rendered("en", template, values).unwrap_err();
            fault.details().iter().map(|row| row.1.clone()).collect::<Vec<_>>()
        };
        assert_eq!(field(&[]), ["variables.n", "required"]);
        assert_eq!(field(&[("n", "2")]), ["variables.name", "required"]);
        assert_eq!(field(&[("n", "two"), ("name", "x")]), ["variables.n", "bad_format"]);
    }

    #[test]
    fn faulty_templates_say_where() {
        let deep = format!("{}x", "{a, select, other{".repeat(9));
        let rows = [
            ("a } b", "template, character 3: write `}}` for a brace"),
            ("é {", "template, character 4: write a variable's name, or `{{` for a brace"),
            ("{a b}", "template, character 4: close the variable with `}`"),
            ("{a, date, short}", "template, character 10: write `{name, plural, …}` or `{name, select, …}`"),
            ("{a, plural, one{x}}", "template, character 20: add the branch `other{…}`"),
            ("{a, plural, few{x} other{y}}", "template, character 16: a plural has the branches `one` and `other`"),
            ("{a, select, x{1} x{2} other{}}", "template, character 19: `x` is there twice"),
            ("{a, select, other}", "template, character 18: open the branch with `{`"),
            ("{a, select, other{x", "template, character 20: close the branch with `}`"),
            (&deep, "template, character 156: branches are nested more than 8 deep"),
        ];
        for (template, expected) in rows {
            assert_eq!(Template::parse(template).unwrap_err(), expected, "{template}");
        }
    }

    #[test]
    fn contents_do_not_grow_without_end() {
        let fault = rendered("en", &"{a}".repeat(300), &[("a", &"x".repeat(1_000))]).unwrap_err();
        assert_eq!(fault.message(), "the content would have more than 262144 bytes");
    }
}
