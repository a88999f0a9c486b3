//! Path templates of `google.api.http`, parsed once.
//!
//! ```text
//! Template = "/" Segments [ Verb ] ;
//! Segments = Segment { "/" Segment } ;
//! Segment  = "*" | "**" | LITERAL | Variable ;
//! Variable = "{" FieldPath [ "=" Segments ] "}" ;
//! Verb     = ":" LITERAL ;
//! ```
//!
//! `**` may stand anywhere, once; the published grammar wants it last.

use std::fmt;

use super::segments::{SEGMENTS_MAX, is_dots};

/// Longest template in bytes.
const TEMPLATE_MAX: usize = 1_024;

/// One segment, variables taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Literal(String),
    /// One segment of any text.
    One,
    /// Any number of segments, none included.
    Many,
}

/// A variable: the field it binds and the segments it captures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Dotted field path.
    pub field: String,
    /// First captured segment.
    pub from: usize,
    /// Behind the last captured segment.
    pub to: usize,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// Its segments.
    pub segments: Vec<Segment>,
    /// Its variables, in order.
    pub variables: Vec<Variable>,
    /// The custom verb behind the last `:`.
    pub verb: Option<String>,
}

/// Why a text is no template, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// Byte of the text, counted from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.text)
    }
}

impl std::error::Error for TemplateError {}

impl PathTemplate {
    /// Parses a template.
    pub fn parse(text: &str) -> Result<PathTemplate, TemplateError> {
        let mut parser =
            Parser { text, at: 0, template: PathTemplate { segments: Vec::new(), variables: Vec::new(), verb: None } };
        parser.template()?;
        Ok(parser.template)
    }

    /// The index of `**`, where there is one.
    pub fn many(&self) -> Option<usize> {
        self.segments.iter().position(|segment| *segment == Segment::Many)
    }

    /// A path that it takes, with `x` for each wildcard.
    pub fn example(&self) -> String {
        let text = |segment: &Segment| match segment {
            Segment::Literal(text) => text.clone(),
            Segment::One | Segment::Many => "x".to_owned(),
        };
        let segments: Vec<String> = self.segments.iter().map(text).collect();
        let custom = self.verb.as_ref().map_or_else(String::new, |verb| format!(":{verb}"));
        format!("/{}{custom}", segments.join("/"))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    template: PathTemplate,
}

impl Parser<'_> {
    fn error<T>(&self, at: usize, text: impl Into<String>) -> Result<T, TemplateError> {
        Err(TemplateError { column: at + 1, text: text.into() })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_here = self.peek() == Some(byte);
        self.at += usize::from(is_here);
        is_here
    }

    fn template(&mut self) -> Result<(), TemplateError> {
        if self.text.len() > TEMPLATE_MAX {
            return self.error(TEMPLATE_MAX, format!("longer than {TEMPLATE_MAX} bytes"));
        }
        if !self.eat(b'/') {
            return self.error(0, "a path template begins with `/`");
        }
        if self.at == self.text.len() {
            return Ok(());
        }
        self.segments(false)?;
        if self.eat(b':') {
            let start = self.at;
            let verb = &self.text[start..];
            if verb.is_empty() {
                return self.error(start, "expected a verb behind `:`");
            }
            if let Some(bad) = verb.find(|sign| "/:{}*=".contains(sign) || is_never_plain(sign)) {
                return self.error(start + bad, "a verb is the last thing of a template, and plain text");
            }
            self.template.verb = Some(verb.to_owned());
            self.at = self.text.len();
        }
        match self.peek() {
            None => Ok(()),
            Some(byte) => self.error(self.at, format!("unexpected `{}`", byte as char)),
        }
    }

    fn segments(&mut self, is_inside: bool) -> Result<(), TemplateError> {
        loop {
            self.segment(is_inside)?;
            if !self.eat(b'/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, is_inside: bool) -> Result<(), TemplateError> {
        let start = self.at;
        if self.template.segments.len() == SEGMENTS_MAX {
            return self.error(start, format!("more than {SEGMENTS_MAX} segments, the most that a path has"));
        }
        if self.eat(b'{') {
            if is_inside {
                return self.error(start, "a variable cannot stand inside another");
            }
            return self.variable(start);
        }
        if self.eat(b'*') {
            let segment = if self.eat(b'*') { Segment::Many } else { Segment::One };
            if segment == Segment::Many && self.template.many().is_some() {
                return self.error(start, "`**` can stand only once in a template");
            }
            self.template.segments.push(segment);
            return Ok(());
        }
        while self.peek().is_some_and(|byte| !matches!(byte, b'/' | b'{' | b'}' | b'*' | b'=' | b':')) {
            self.at += 1;
        }
        let literal = &self.text[start..self.at];
        if literal.is_empty() {
            return self.error(start, "expected a segment: text, `*`, `**` or `{field}`");
        }
        if let Some(bad) = literal.find(is_never_plain) {
            return self.error(start + bad, "white space, `?`, `#` and `%` cannot stand in a literal segment");
        }
        if is_dots(literal) {
            return self.error(start, "`.` and `..` are no segments of a path");
        }
        self.template.segments.push(Segment::Literal(literal.to_owned()));
        Ok(())
    }

    fn variable(&mut self, open: usize) -> Result<(), TemplateError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')) {
            self.at += 1;
        }
        let field = self.text[start..self.at].to_owned();
        if field.split('.').any(|name| name.is_empty() || name.as_bytes()[0].is_ascii_digit()) {
            return self.error(start, "expected a field path such as `player.id` behind `{`");
        }
        if self.template.variables.iter().any(|variable| variable.field == field) {
            return self.error(start, format!("the variable `{field}` stands twice in this template"));
        }
        let from = self.template.segments.len();
        if self.eat(b'=') {
            self.segments(true)?;
        } else {
            self.template.segments.push(Segment::One);
        }
        if !self.eat(b'}') {
            return self
                .error(self.at, format!("expected `}}`, the end of the variable that began in column {}", open + 1));
        }
        self.template.variables.push(Variable { field, from, to: self.template.segments.len() });
        Ok(())
    }
}

/// Signs that a path has only percent-encoded; templates are written decoded.
fn is_never_plain(sign: char) -> bool {
    sign <= ' ' || matches!(sign, '?' | '#' | '%' | '\x7f')
}
