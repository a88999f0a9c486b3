//! An answer made of the sentences that fit the question best, each with its source.

use std::collections::HashMap;

use super::Kept;
use super::passages::{beginning, sentences, terms};
use super::rank::Statistics;

/// Documents that an answer is made of, its sentences, and its characters.
const DOCUMENTS_MAX: usize = 3;
const SENTENCES_MAX: usize = 3;
const LETTERS_MAX: usize = 600;

/// An answer; both are empty where no sentence fits.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    /// Ids of the documents that it is made of, in its order.
    pub(super) sources: Vec<String>,
}

/// The answer to the terms of a question out of documents in rank order.
pub(super) fn answer(ranked: &[&Kept], asked: &[String]) -> Answer {
    let sentences: Vec<(&str, &str)> = ranked
        .iter()
        .take(DOCUMENTS_MAX)
        .flat_map(|document| sentences(&document.content).into_iter().map(|text| (text, document.document_id.as_str())))
        .collect();
    let counted: Vec<(Vec<u32>, usize)> = sentences.iter().map(|(text, _)| count(text, asked)).collect();
    let containing = (0..asked.len()).map(|term| counted.iter().filter(|(counts, _)| counts[term] > 0).count());
    let length = counted.iter().map(|(_, length)| length).sum();
    let statistics = Statistics::new(sentences.len(), length, containing);
    let mut best: Vec<(f64, usize)> = counted
        .iter()
        .enumerate()
        .map(|(at, (counts, length))| (statistics.relevance(counts, *length), at))
        .filter(|(relevance, _)| *relevance > 0.0)
        .collect();
    // The sort is stable: of equal ones the first stays first.
    best.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut taken, mut letters) = (Vec::new(), 0);
    for (_, at) in best {
        let (text, id) = sentences[at];
        let quoted = quoted(text, id);
        let size = quoted.chars().count() + usize::from(letters > 0);
        if taken.len() < SENTENCES_MAX && letters + size <= LETTERS_MAX {
            taken.push((at, quoted, id));
            letters += size;
        }
    }
    taken.sort_by_key(|row| row.0);
    let mut sources: Vec<String> = Vec::new();
    for (_, _, id) in &taken {
        if !sources.iter().any(|source| source == id) {
            sources.push((*id).to_owned());
        }
    }
    let texts: Vec<&str> = taken.iter().map(|(_, quoted, _)| quoted.as_str()).collect();
    Answer { text: texts.join(" "), sources }
}

/// A sentence with its source. One that is too long for any answer is cut.
fn quoted(text: &str, id: &str) -> String {
    let room = LETTERS_MAX.saturating_sub(id.chars().count() + 3);
    match text.char_indices().nth(room) {
        Some((end, _)) => format!("{} [{id}]", beginning(text, end)),
        None => format!("{text} [{id}]"),
    }
}

/// How often each term is in a text, and how many terms that has.
fn count(text: &str, asked: &[String]) -> (Vec<u32>, usize) {
    let mut counts: HashMap<String, u32> = HashMap::new();
    let mut length = 0;
    for term in terms(text) {
        *counts.entry(term).or_default() += 1;
        length += 1;
    }
    (asked.iter().map(|term| counts.get(term).copied().unwrap_or(0)).collect(), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn answered(documents: &[(&str, &str)], question: &str) -> Answer {
        let kept = |(id, content): &(&str, &str)| Kept {
            document_id: (*id).to_owned(),
            collection: "lore".to_owned(),
            content: (*content).to_owned(),
            metadata: BTreeMap::new(),
        };
        let documents: Vec<Kept> = documents.iter().map(kept).collect();
        answer(&documents.iter().collect::<Vec<_>>(), &terms(question).collect::<Vec<_>>())
    }

    #[test]
    fn the_best_sentences_stand_in_the_order_of_the_documents() {
        let documents = [
            ("a", "Rain falls. The court pays. The court loves riddles and the court pays!"),
            ("b", "Nobody pays.\nRiddles bore ghouls"),
            ("c", "Nothing here."),
            ("d", "Riddles, riddles, riddles."),
        ];
        let found = answered(&documents, "court riddles");
        let expected = "The court pays. [a] The court loves riddles and the court pays! [a] Riddles bore ghouls [b]";
        assert_eq!(found, Answer { text: expected.to_owned(), sources: vec!["a".to_owned(), "b".to_owned()] });
        assert_eq!(answered(&documents, "leviathan"), Answer::default());
        assert_eq!(answered(&[], "court"), Answer::default());
    }

    #[test]
    fn an_answer_has_at_most_600_characters() {
        let long = format!("court {}.", "é".repeat(700));
        let found = answered(&[("a", &long), ("b", "A court.")], "court");
        assert_eq!(found.text, "A court. [b]");
        let found = answered(&[("a", &long)], "court");
        assert_eq!((found.text.chars().count(), found.text.ends_with("é [a]")), (600, true));
    }
}
