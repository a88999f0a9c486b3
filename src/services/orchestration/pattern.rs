//! Patterns of parameters: letters, `.` and classes such as `[a-z0-9_]`, each with `?`, `*`, `+` or `{2,4}` behind it.
//! A pattern fits the whole value.

/// Longest pattern, and longest run that one part takes.
const PARTS_MAX: usize = 64;
const RUN_MAX: usize = 16 * 1024;

/// A pattern, read.
pub(super) struct Pattern(Vec<Part>);

struct Part {
    letters: Letters,
    min: usize,
    max: usize,
}

enum Letters {
    Any,
    OneOf(Vec<(char, char)>),
}

impl Letters {
    fn contains(&self, letter: char) -> bool {
        match self {
            Letters::Any => true,
            Letters::OneOf(ranges) => ranges.iter().any(|(from, to)| (*from..=*to).contains(&letter)),
        }
    }
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        let broken = |what: &str| format!("`{text}` is no pattern: {what}");
        let mut letters = text.chars().peekable();
        let mut parts = Vec::new();
        while let Some(letter) = letters.next() {
            let class = match letter {
                '.' => Letters::Any,
                '[' => {
                    let inside: String = letters.by_ref().take_while(|letter| *letter != ']').collect();
                    class(&inside).ok_or_else(|| broken("a class is like `[a-z0-9_]`"))?
                }
                '\\' => {
                    let letter = letters.next().ok_or_else(|| broken("it ends with `\\`"))?;
                    Letters::OneOf(vec![(letter, letter)])
                }
                '(' | ')' | '|' | '^' | '$' | '{' | '}' | '*' | '+' | '?' | ']' => {
                    return Err(broken(&format!("`{letter}` has no meaning here, write `\\{letter}` for the letter")));
                }
                letter => Letters::OneOf(vec![(letter, letter)]),
            };
            let (min, max) = match letters.peek() {
                Some('?') => (0, 1),
                Some('*') => (0, RUN_MAX),
                Some('+') => (1, RUN_MAX),
                Some('{') => {
                    letters.next();
                    let inside: String = letters.by_ref().take_while(|letter| *letter != '}').collect();
                    parts.push(counted(class, &inside).ok_or_else(|| broken("a count is like `{2}` or `{2,4}`"))?);
                    continue;
                }
                _ => (1, 1),
            };
            if (min, max) != (1, 1) {
                letters.next();
            }
            parts.push(Part { letters: class, min, max });
        }
        if parts.len() > PARTS_MAX { Err(broken("it is too long")) } else { Ok(Pattern(parts)) }
    }

    pub(super) fn fits(&self, value: &str) -> bool {
        let letters: Vec<char> = value.chars().collect();
        // Ends that the parts so far can have: each part moves all of them on, so there is nothing to go back to.
        let mut ends = vec![false; letters.len() + 1];
        ends[0] = true;
        for part in &self.0 {
            let mut next = vec![false; ends.len()];
            for start in (0..ends.len()).filter(|start| ends[*start]) {
                let run = letters[start..].iter().take_while(|letter| part.letters.contains(**letter)).take(part.max);
                let run = run.count();
                for length in part.min..=run {
                    next[start + length] = true;
                }
            }
            ends = next;
        }
        ends[letters.len()]
    }
}

fn counted(letters: Letters, inside: &str) -> Option<Part> {
    let (min, max) = inside.split_once(',').unwrap_or((inside, inside));
    let (min, max) = (min.parse().ok()?, max.parse().ok()?);
    (min <= max && max <= RUN_MAX).then_some(Part { letters, min, max })
}

fn class(inside: &str) -> Option<Letters> {
    let letters: Vec<char> = inside.chars().collect();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < letters.len() {
        let is_range = letters.get(at + 1) == Some(&'-') && at + 2 < letters.len();
        let to = if is_range { letters[at + 2] } else { letters[at] };
        if letters[at] > to || letters[0] == '^' {
            return None;
        }
        ranges.push((letters[at], to));
        at += if is_range { 3 } else { 1 };
    }
    (!ranges.is_empty()).then_some(Letters::OneOf(ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_whole_values() {
        for (pattern, value, fits) in [
            ("[0-9]{1,9}", "0", true),
            ("[0-9]{1,9}", "", false),
            ("[0-9]{1,9}", "1234567890", false),
            ("[0-9]{1,9}", "12a", false),
            ("[a-z][a-z0-9_]{0,31}", "moon_wine", true),
            ("[a-z][a-z0-9_]{0,31}", "9lives", false),
            ("a.*b", "a--b--b", true),
            ("a\\.b?", "a.", true),
            ("[a-]+", "a-a", true),
            ("", "", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().fits(value), fits, "{pattern} {value}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let said = |pattern: &str| Pattern::parse(pattern).err().unwrap();
        assert_eq!(said("a|b"), "`a|b` is no pattern: `|` has no meaning here, write `\\|` for the letter");
        assert_eq!(said("[z-a]"), "`[z-a]` is no pattern: a class is like `[a-z0-9_]`");
        assert_eq!(said("a{x}"), "`a{x}` is no pattern: a count is like `{2}` or `{2,4}`");
    }
}
