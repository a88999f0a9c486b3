//! Texts as the search sees them: passages that overlap, sentences, and words without their endings.

use std::ops::Range;

/// Longest passage, and what it shares with the one before, in characters.
const PASSAGE_LETTERS: usize = 1_000;
const OVERLAP_LETTERS: usize = 200;
/// Words that say nothing of what is looked for.
const STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "how", "in", "is", "it", "of", "on", "or", "that",
    "the", "to", "was", "what", "when", "where", "which", "who", "why", "with",
];

/// The words to look for, in their order.
pub(super) fn terms(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
    words.filter(|word| !word.is_empty()).map(str::to_lowercase).filter_map(|mut word| {
        if STOP_WORDS.contains(&word.as_str()) {
            return None;
        }
        if word.chars().count() > 3 && word.ends_with('s') && !word.ends_with("ss") {
            word.pop();
        }
        Some(word)
    })
}

/// Where the passages of a text are, in bytes. A text without letters is one passage.
pub(super) fn passages(text: &str) -> Vec<Range<usize>> {
    // Where each letter begins, and the end.
    let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let letters = starts.len() - 1;
    let (mut found, mut from) = (Vec::new(), 0);
    while from + PASSAGE_LETTERS < letters {
        let to = from + PASSAGE_LETTERS;
        let piece = &text[starts[from]..starts[to]];
        // Positions of letters, so that both halves are halves of letters.
        let half = starts[from + PASSAGE_LETTERS / 2] - starts[from];
        let cut = cut(piece).into_iter().flatten().find(|at| *at > half).unwrap_or(piece.len()) + starts[from];
        found.push(starts[from]..cut);
        let end = starts.partition_point(|start| *start < cut);
        from = end - OVERLAP_LETTERS;
    }
    found.push(starts[from]..text.len());
    found
}

/// Where a piece may end, best first: behind a blank line, a line break, a sentence, a blank.
fn cut(piece: &str) -> [Option<usize>; 4] {
    let pairs = piece.char_indices().zip(piece.chars().skip(1));
    let ends = pairs.filter(|((_, mark), next)| matches!(mark, '.' | '!' | '?') && next.is_whitespace());
    let blank_line = ["\n\n", "\r\n\r\n"].into_iter().filter_map(|mark| Some(piece.rfind(mark)? + mark.len())).max();
    [
        blank_line,
        piece.rfind('\n').map(|at| at + 1),
        ends.map(|((at, mark), _)| at + mark.len_utf8()).last(),
        piece.rfind(' ').map(|at| at + 1),
    ]
}

/// The sentences of a text, without the blanks around them.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let (mut found, mut from) = (Vec::new(), 0);
    for ((at, mark), next) in text.char_indices().zip(text.chars().skip(1).chain([' '])) {
        let is_end = mark == '\n' || (matches!(mark, '.' | '!' | '?') && next.is_whitespace());
        if is_end {
            found.push(text[from..at + mark.len_utf8()].trim());
            from = at + mark.len_utf8();
        }
    }
    found.push(text[from..].trim());
    found.retain(|sentence| !sentence.is_empty());
    found
}

/// The beginning of a text: at most so many bytes, whole letters.
pub(super) fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_words_without_their_ending() {
        let found: Vec<String> = terms("Who loves the Riddles? Moon-Clans' moon_wine is CLASS 3s gas").collect();
        assert_eq!(found, ["love", "riddle", "moon", "clan", "moon_wine", "class", "3s", "gas"]);
        assert_eq!(terms("who is the").count(), 0);
    }

    #[test]
    fn passages_end_where_the_text_has_a_seam() {
        let pieces = |text: &str| -> Vec<(usize, usize)> { passages(text).iter().map(|p| (p.start, p.end)).collect() };
        assert_eq!(pieces(""), [(0, 0)]);
        assert_eq!(pieces(&"x".repeat(1_000)), [(0, 1_000)]);
        assert_eq!(pieces(&"x".repeat(1_001)), [(0, 1_000), (800, 1_001)]);
        let with = |at: usize, seam: &str| format!("{}{seam}{}", "x".repeat(at), "y".repeat(1_100 - at - seam.len()));
        let rows = [(600, "\n\n", 602), (600, "\r\n\r\n", 604), (700, "\n", 701), (800, ". ", 801), (900, " ", 901)];
        for (at, seam, cut) in rows {
            assert_eq!(pieces(&with(at, seam)), [(0, cut), (cut - 200, 1_100)], "{seam:?}");
        }
        // In the first half no seam counts; a blank line goes before a later blank.
        assert_eq!(pieces(&with(400, "\n\n")), [(0, 1_000), (800, 1_100)]);
        let both = format!("{}\n\n{} {}", "x".repeat(600), "y".repeat(200), "z".repeat(300));
        assert_eq!(pieces(&both), [(0, 602), (402, both.len())]);
        // Letters count, not bytes.
        assert_eq!(pieces(&"é".repeat(1_001)), [(0, 2_000), (1_600, 2_002)]);
    }

    #[test]
    fn sentences_keep_their_marks() {
        let text = "One. Two 3.5!\n\nthree?  ";
        assert_eq!(sentences(text), ["One.", "Two 3.5!", "three?"]);
        assert_eq!(sentences(" \n"), [""; 0]);
    }

    #[test]
    fn a_beginning_has_whole_letters() {
        assert_eq!([beginning("aé", 2), beginning("aé", 3), beginning("aé", 9)], ["a", "aé", "aé"]);
    }
}
