//! Subjects and headers: text that is safe to put on the wire, checked once.

use std::fmt;

use bytes::Bytes;

/// Longest subject in bytes; a control line holds 4,096 with its reply subject and sizes.
pub const SUBJECT_MAX: usize = 1_024;
/// Most headers of one message.
pub const HEADERS_MAX: usize = 64;

/// A literal subject: non-empty tokens joined by dots, no wildcard, no white space, no control character.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Subject(Bytes);

/// A subject that may hold wildcards, to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Subject);

/// Why a text is no subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectError(String);

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SubjectError {}

fn check(text: &str, allows_wildcards: bool) -> Result<(), SubjectError> {
    let error = |what: &str| Err(SubjectError(format!("`{}` is no subject: {what}", text.escape_default())));
    if text.is_empty() || text.len() > SUBJECT_MAX {
        return error("expected 1 to 1,024 bytes");
    }
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return error("white space and control characters cannot stand in it");
    }
    let tokens = text.split('.').count();
    for (index, token) in text.split('.').enumerate() {
        let is_last = index + 1 == tokens;
        match token {
            "" => return error("it has an empty token"),
            "*" if allows_wildcards => {}
            ">" if allows_wildcards && is_last => {}
            _ if token.contains(['*', '>']) => return error("`*` and `>` are wildcards"),
            _ => {}
        }
    }
    Ok(())
}

impl Subject {
    /// A checked subject.
    pub fn new(text: impl Into<String>) -> Result<Subject, SubjectError> {
        let text = text.into();
        check(&text, false)?;
        Ok(Subject(Bytes::from(text)))
    }

    /// A subject that this program made itself, or that came from the bus.
    pub(crate) fn trusted(text: String) -> Subject {
        Subject(Bytes::from(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The text as shared bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Pattern {
    /// A checked pattern: `*` stands for one token, `>` at the end for one or more.
    pub fn new(text: impl Into<String>) -> Result<Pattern, SubjectError> {
        let text = text.into();
        check(&text, true)?;
        Ok(Pattern(Subject(Bytes::from(text))))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// True where the pattern takes a subject.
    pub fn matches(&self, subject: &str) -> bool {
        let mut tokens = subject.split('.');
        for pattern in self.as_str().split('.') {
            match (pattern, tokens.next()) {
                (">", Some(_)) => return true,
                ("*", Some(_)) => {}
                (literal, Some(token)) if literal == token => {}
                _ => return false,
            }
        }
        tokens.next().is_none()
    }

    /// True where there is a subject that both patterns take.
    pub fn overlaps(&self, other: &Pattern) -> bool {
        let (mut left, mut right) = (self.as_str().split('.'), other.as_str().split('.'));
        loop {
            match (left.next(), right.next()) {
                (None, None) => return true,
                (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
                (Some(left), Some(right)) if left == right || left == "*" || right == "*" => {}
                _ => return false,
            }
        }
    }
}

impl From<Subject> for Pattern {
    fn from(subject: Subject) -> Pattern {
        Pattern(subject)
    }
}

/// Names and values of a message's headers, in order; names compare without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(std::borrow::Cow<'static, str>, String)>);

impl Headers {
    /// No headers.
    pub const fn new() -> Headers {
        Headers(Vec::new())
    }

    /// Room for that many headers.
    pub fn with_capacity(count: usize) -> Headers {
        Headers(Vec::with_capacity(count))
    }

    /// Adds a header. Returns false, and adds nothing, where the value holds control characters or there are
    /// [`HEADERS_MAX`] already.
    pub fn push(&mut self, name: impl Into<std::borrow::Cow<'static, str>>, value: impl Into<String>) -> bool {
        let (name, value) = (name.into(), value.into());
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
        let is_value = value.bytes().all(|byte| byte >= b' ' && byte != 0x7f);
        if !is_name || !is_value || self.0.len() >= HEADERS_MAX {
            return false;
        }
        self.0.push((name, value));
        true
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map(|row| &*row.1)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// True without headers.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes on the wire; none without headers.
    pub fn size(&self) -> usize {
        if self.0.is_empty() {
            return 0;
        }
        self.0.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>() + 12
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_where_a_subject_is_taken_by_both() {
        for (left, right, is_so) in [
            ("a.b", "a.b", true),
            ("a.b", "a.c", false),
            ("a.b", "a", false),
            ("a.>", "a", false),
            ("a.>", "a.b.c", true),
            ("a.>", "*.b", true),
            ("a.*", "*.b", true),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.>", true),
            ("a.x.>", "a.*.c.d", true),
            ("a.x.>", "b.>", false),
            (">", "a", true),
        ] {
            let (one, other) = (Pattern::new(left).unwrap(), Pattern::new(right).unwrap());
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (is_so, is_so), "{left} {right}");
        }
    }
}
