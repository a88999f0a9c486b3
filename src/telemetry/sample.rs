//! The exporter's text form (Prometheus 0.0.4) read back, a line at a time: what the console shows and what exemplars stand
//! beside is what a scrape gets.

/// One line, `name{label="value",…} number`, whatever stands behind it.
#[derive(Debug, PartialEq)]
pub struct Sample<'t> {
    /// The metric, with the suffix of a histogram's parts.
    pub name: &'t str,
    /// Its labels, without the quotes' escapes.
    pub labels: Vec<(&'t str, String)>,
    /// What was measured.
    pub value: f64,
}

impl<'t> Sample<'t> {
    /// The sample of a line; `None` for comments, samples without labels, and what is none.
    pub fn read(line: &'t str) -> Option<Sample<'t>> {
        let (name, mut rest) = line.split_once('{').filter(|(name, _)| !name.starts_with('#'))?;
        let mut labels = Vec::new();
        while !rest.starts_with('}') {
            let (label, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, behind) = unquoted(quoted)?;
            labels.push((label, value));
            rest = behind;
        }
        let value = rest[1..].split_whitespace().next()?.parse().ok()?;
        Some(Sample { name, labels, value })
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.0 == name).map(|label| label.1.as_str())
    }
}

/// A label's value, and what stands behind its closing quote.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut signs) = (String::new(), text.char_indices());
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match signs.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let sample = |name, labels: &[(&'static str, &str)], value| {
            Some(Sample {
                name,
                labels: labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
                value,
            })
        };
        for (line, expected) in [
            (
                r#"a{route="GET /v1/{name=a/\"b\"}",le="+Inf"} 7"#,
                sample("a", &[("route", r#"GET /v1/{name=a/"b"}"#), ("le", "+Inf")], 7.0),
            ),
            (r#"a{b="c\\d\ne"} 0.25 # {trace_id="x"} 0.5"#, sample("a", &[("b", "c\\d\ne")], 0.25)),
            ("a{} 1", sample("a", &[], 1.0)),
            ("a 1", None),
            ("# TYPE a counter", None),
            (r#"# HELP a of {b="c"} 1"#, None),
            (r#"a{b="c"#, None),
            (r#"a{b="c"} many"#, None),
            ("", None),
        ] {
            assert_eq!(Sample::read(line), expected, "{line}");
        }
    }
}
