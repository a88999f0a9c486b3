//! A text as sentences of words and what stands between them, so that every mark and blank stays where it is.

use std::ops::Range;

/// A sentence: what stands before its first word, and each word with what follows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sentence<'t> {
    pub(super) lead: &'t str,
    pub(super) words: Vec<(&'t str, &'t str)>,
}

impl Sentence<'_> {
    /// Its bytes.
    pub(super) fn size(&self) -> usize {
        self.lead.len() + self.words.iter().map(|(word, behind)| word.len() + behind.len()).sum::<usize>()
    }
}

/// Sentences end at `.`, `!`, `?` and line breaks; joined again they are the text.
pub(super) fn sentences(text: &str) -> Vec<Sentence<'_>> {
    let spans = spans(text);
    let mut all = Vec::new();
    let mut sentence = Sentence { lead: &text[..spans.first().map_or(text.len(), |span| span.start)], words: vec![] };
    for (index, span) in spans.iter().enumerate() {
        let between = &text[span.end..spans.get(index + 1).map_or(text.len(), |next| next.start)];
        let cut = match between.rfind(['.', '!', '?', '\n', '\r']) {
            // The marks are one byte each.
            Some(mark) => between.len() - between[mark + 1..].trim_start().len(),
            None => 0,
        };
        if cut > 0 && index + 1 < spans.len() {
            sentence.words.push((&text[span.clone()], &between[..cut]));
            all.push(std::mem::replace(&mut sentence, Sentence { lead: &between[cut..], words: vec![] }));
        } else {
            sentence.words.push((&text[span.clone()], between));
        }
    }
    all.push(sentence);
    all
}

/// Where the words are: letters, digits and `_`; an apostrophe between letters, a point or comma between digits.
pub(super) fn spans(text: &str) -> Vec<Range<usize>> {
    let letters: Vec<(usize, char)> = text.char_indices().collect();
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (index, (at, letter)) in letters.iter().enumerate() {
        let is_between = |is_it: fn(char) -> bool| {
            let before = index.checked_sub(1).and_then(|before| letters.get(before));
            before.zip(letters.get(index + 1)).is_some_and(|(before, after)| is_it(before.1) && is_it(after.1))
        };
        let is_part = match letter {
            '_' => true,
            '\'' | '’' => is_between(char::is_alphanumeric),
            '.' | ',' => is_between(|letter| letter.is_ascii_digit()),
            letter => letter.is_alphanumeric(),
        };
        if is_part {
            let end = at + letter.len_utf8();
            match spans.last_mut() {
                Some(last) if last.end == *at => last.end = end,
                _ => spans.push(*at..end),
            }
        }
    }
    spans
}

/// The text with its first letter made large.
pub(super) fn capitalised(text: &str) -> String {
    let Some((at, first)) = text.char_indices().find(|(_, letter)| letter.is_alphabetic()) else {
        return text.to_owned();
    };
    let large: String = first.to_uppercase().collect();
    format!("{}{large}{}", &text[..at], &text[at + first.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_into_sentences_and_words_and_nothing_is_lost() {
        let rows: [(&str, &[&[&str]]); 6] = [
            (
                "Hello, friend! Don't wait... 3.50 (moon_wine)?",
                &[&["Hello", "friend"], &["Don't", "wait"], &["3.50", "moon_wine"]],
            ),
            ("one\ntwo\r\n\r\nthree", &[&["one"], &["two"], &["three"]]),
            ("...", &[&[]]),
            ("", &[&[]]),
            ("l’été 1,5 , 2.", &[&["l’été", "1,5", "2"]]),
            ("\"Yes.\" \"No.\"", &[&["Yes"], &["No"]]),
        ];
        for (text, expected) in rows {
            let found = sentences(text);
            let words: Vec<Vec<&str>> = found.iter().map(|one| one.words.iter().map(|word| word.0).collect()).collect();
            assert_eq!(words, expected, "{text}");
            let mut joined = String::new();
            for sentence in &found {
                joined.push_str(sentence.lead);
                sentence.words.iter().for_each(|(word, behind)| joined.extend([*word, *behind]));
            }
            assert_eq!(joined, text);
        }
    }

    #[test]
    fn the_first_letter_is_made_large_behind_a_bracket_too() {
        assert_eq!(["ruk", "[umbrella]", "été", "3", ""].map(capitalised), ["Ruk", "[Umbrella]", "Été", "3", ""]);
    }
}
