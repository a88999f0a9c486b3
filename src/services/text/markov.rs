//! Text that is longer than a template: a chain of order two over the words of everything that templates and word lists
//! can say. Built once; the same beginning and the same draws give the same text on every platform.

use std::collections::{HashMap, HashSet};

use super::super::seed::Draws;
use super::{SLOTS, split, words};

/// Most words of a text.
pub(in crate::services) const WORDS_MAX: usize = 400;
/// The slot that stays open: what it says is known with the prompt only.
const TOPIC: &str = "{topic}";

/// A word's place among all words of the chain.
type Word = usize;

/// The chain.
#[derive(Default)]
pub(in crate::services) struct Markov {
    /// Each word, with the marks at it, once.
    words: Vec<String>,
    /// Pairs that begin a sentence, each once, as they were seen first.
    starts: Vec<(Word, Word)>,
    followers: HashMap<(Word, Word), Followers>,
}

/// The words behind a pair, as they were seen first, and how often each was.
#[derive(Default)]
struct Followers {
    words: Vec<Word>,
    counts: Vec<f64>,
}

impl Markov {
    /// The chain of all that templates can become, template by template, and then of the word lists.
    pub(in crate::services) fn new<'t>(templates: impl IntoIterator<Item = &'t str>) -> Markov {
        let mut learner = Learner::default();
        for text in templates.into_iter().flat_map(expansions) {
            let words = learner.learn(&text);
            learner.note_starts(&words);
        }
        for text in SLOTS.iter().flat_map(|slot| slot.1) {
            learner.learn(text);
        }
        learner.chain
    }

    /// A text, gone on with up to the full stop behind the wanted number of words, or to [`WORDS_MAX`] words.
    pub(in crate::services) fn lengthened(
        &self,
        mut text: String,
        wanted: usize,
        topic: &str,
        draws: &mut Draws,
    ) -> String {
        let mut count = text.split_whitespace().count();
        let mut walk = Walk { chain: self, draws, pair: None, second: None };
        while count < wanted || !text.ends_with('.') {
            let Some((word, is_start)) = walk.next() else { break };
            if is_start && !text.is_empty() && !ends_sentence(&text) {
                // Nothing follows in the middle of a sentence: a word list ends there.
                text.push('.');
                if count >= wanted {
                    break;
                }
            }
            let word = self.words[word].replace(TOPIC, topic);
            count += word.split_whitespace().count();
            if count > WORDS_MAX {
                break;
            }
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(&word);
        }
        text
    }
}

/// A way through the chain; it begins anew where nothing follows.
struct Walk<'w> {
    chain: &'w Markov,
    draws: &'w mut Draws,
    /// The last two words.
    pair: Option<(Word, Word)>,
    /// The second word of a pair that has just begun.
    second: Option<Word>,
}

impl Walk<'_> {
    /// The next word, and whether it begins anew. Nothing where the chain is empty.
    fn next(&mut self) -> Option<(Word, bool)> {
        if let Some(second) = self.second.take() {
            return Some((second, false));
        }
        if let Some(pair) = self.pair
            && let Some(followers) = self.chain.followers.get(&pair)
        {
            let next = followers.words[self.draws.weighted(&followers.counts)];
            self.pair = Some((pair.1, next));
            return Some((next, false));
        }
        let starts = &self.chain.starts;
        if starts.is_empty() {
            return None;
        }
        let start = starts[self.draws.below(starts.len() as u64) as usize];
        (self.pair, self.second) = (Some(start), Some(start.1));
        Some((start.0, true))
    }
}

/// A chain that is being built.
#[derive(Default)]
struct Learner {
    chain: Markov,
    places: HashMap<String, Word>,
    known_starts: HashSet<(Word, Word)>,
}

impl Learner {
    /// Counts what follows each pair of a text; its words.
    fn learn(&mut self, text: &str) -> Vec<Word> {
        let words: Vec<Word> = text.split_whitespace().map(|word| self.place(word)).collect();
        for three in words.windows(3) {
            let followers = self.chain.followers.entry((three[0], three[1])).or_default();
            match followers.words.iter().position(|word| *word == three[2]) {
                Some(at) => followers.counts[at] += 1.0,
                None => {
                    followers.words.push(three[2]);
                    followers.counts.push(1.0);
                }
            }
        }
        words
    }

    /// Notes the pairs that begin the text, and those behind the end of a sentence.
    fn note_starts(&mut self, text: &[Word]) {
        for (at, pair) in text.windows(2).enumerate() {
            let is_start = at.checked_sub(1).is_none_or(|before| ends_sentence(&self.chain.words[text[before]]));
            let pair = (pair[0], pair[1]);
            if is_start && self.known_starts.insert(pair) {
                self.chain.starts.push(pair);
            }
        }
    }

    fn place(&mut self, word: &str) -> Word {
        if let Some(place) = self.places.get(word) {
            return *place;
        }
        self.chain.words.push(word.to_owned());
        self.places.insert(word.to_owned(), self.chain.words.len() - 1);
        self.chain.words.len() - 1
    }
}

fn ends_sentence(text: &str) -> bool {
    text.ends_with(['.', '!', '?'])
}

/// Everything that a template can become, the last slot changing first. A slot without a word list stays open.
fn expansions(template: &str) -> Vec<String> {
    let Some((before, slot, after)) = split(template) else { return vec![template.to_owned()] };
    let open = format!("{{{slot}}}");
    let open = [open.as_str()];
    let choices: &[&str] = words(slot).unwrap_or(&open);
    let rests = expansions(after);
    choices.iter().flat_map(|choice| rests.iter().map(move |rest| format!("{before}{choice}{rest}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of the chain alone.
    fn walked(chain: &Markov, wanted: usize, seed: u64) -> String {
        chain.lengthened(String::new(), wanted, "the ferryman", &mut Draws::new(seed))
    }

    fn count(text: &str) -> usize {
        text.split_whitespace().count()
    }

    #[test]
    fn a_template_becomes_all_it_can_in_the_order_of_the_lists() {
        let all = expansions("At {place} {topic} waits {time}.");
        assert_eq!(all.len(), 8 * 6);
        assert_eq!(all[0], "At the fish market {topic} waits before dawn.");
        assert_eq!(all[1], "At the fish market {topic} waits at noon.");
        assert_eq!(all[6], "At a flooded stairwell {topic} waits before dawn.");
        assert_eq!(all[47], "At a sealed vault {topic} waits when the lamps fail.");
        assert_eq!(expansions("Nothing open."), ["Nothing open."]);
    }

    #[test]
    fn pairs_and_what_follows_them_stand_as_they_were_seen_first() {
        let chain = Markov::new(["It smells of {smell}. Why? Run {time}."]);
        let text = |pair: &(Word, Word)| format!("{} {}", chain.words[pair.0], chain.words[pair.1]);
        let starts: Vec<String> = chain.starts.iter().map(text).collect();
        let expected =
            ["It smells", "Why? Run", "Run before", "Run at", "Run under", "Run after", "Run in", "Run when"];
        assert_eq!(starts, expected);
        let followers = |first: &str, second: &str| {
            let place = |word: &str| chain.words.iter().position(|known| known == word).unwrap();
            let followers = &chain.followers[&(place(first), place(second))];
            let words = followers.words.iter().map(|word| chain.words[*word].as_str());
            words.zip(followers.counts.iter().copied()).collect::<Vec<_>>()
        };
        // Six smells, each with six times.
        let smells = [("wet", 6.0), ("camphor.", 6.0), ("burnt", 6.0), ("grave", 6.0), ("ozone.", 6.0), ("old", 6.0)];
        assert_eq!(followers("smells", "of"), smells);
        assert_eq!(followers("last", "hour"), [("of", 7.0)], "six expansions, and the word list");
        assert_eq!(followers("hour", "of"), [("rain.", 6.0), ("rain", 1.0)], "the list is read behind the templates");
    }

    #[test]
    fn a_text_ends_at_a_full_stop_behind_the_wanted_length() {
        let chain = Markov::new(["Who holds {place}? A {topic} fears {sound} and {smell}."]);
        for seed in 0..200 {
            for wanted in [1, 10, 57, 300] {
                let text = walked(&chain, wanted, seed);
                assert!(count(&text) >= wanted && text.ends_with('.'), "{seed} {wanted}: {text}");
                // It is the first one: without its last sentence the text is too short.
                let shorter = text.trim_end_matches('.').rsplit_once(". ").map_or(0, |rest| count(rest.0));
                assert!(shorter < wanted, "{seed} {wanted}: {text}");
                assert_eq!(walked(&chain, wanted, seed), text);
            }
        }
        assert_ne!(walked(&chain, 40, 1), walked(&chain, 40, 2));
    }

    #[test]
    fn a_text_has_400_words_at_most_and_ends_where_nothing_is_known() {
        let endless = Markov::new(["Round {place} and {place}, and so on"]);
        for seed in 0..50 {
            let text = walked(&endless, 9_999, seed);
            assert!((390..=WORDS_MAX).contains(&count(&text)), "{text}");
        }
        let stops = Markov::new(["Hush, {topic}."]);
        // The topic is one word for the chain, and two in the text.
        let whole = vec!["Hush, the ferryman."; 133].join(" ");
        assert_eq!(walked(&stops, 9_999, 1), format!("{whole} Hush,"));
        let empty = Markov::new([]);
        assert_eq!(empty.lengthened("A beginning.".to_owned(), 50, "", &mut Draws::new(1)), "A beginning.");
    }

    #[test]
    fn what_a_text_begins_with_counts_and_stays() {
        let chain = Markov::new(["Run {time}."]);
        let text = chain.lengthened("It was long enough.".to_owned(), 4, "", &mut Draws::new(3));
        assert_eq!(text, "It was long enough.");
        let text = chain.lengthened("It was not.".to_owned(), 4, "", &mut Draws::new(3));
        assert!(text.starts_with("It was not. Run ") && text.ends_with('.'), "{text}");
    }
}
