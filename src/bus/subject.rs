//! Subjects: text that is safe to put on the wire, checked once.

use std::fmt;

use bytes::Bytes;

/// Longest subject in bytes; a control line holds 4,096 with its reply subject and sizes.
pub const SUBJECT_MAX: usize = 1_024;

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
