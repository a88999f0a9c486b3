//! Which language a text is in: by words that a language has, and by pairs of letters that give it away.

use super::lexicon::{LANGUAGES, Language, Lexicon};
use super::words::spans;
use crate::services::numbers::comparable;

/// Most candidates, and the share above which one is named.
const CANDIDATES_MAX: usize = 5;
const SHARE_MIN: f64 = 0.05;
/// How sure the answer is where nothing speaks for any language.
const NOTHING: f64 = 0.1;

/// Languages with their share of the evidence, the largest first; equal ones by code.
pub(super) fn detect(lexicon: &Lexicon, text: &str) -> Vec<(&'static Language, f64)> {
    let small = text.to_lowercase();
    let words: Vec<&str> = spans(&small).into_iter().map(|span| &small[span]).collect();
    let pairs: Vec<&str> = words.iter().flat_map(|word| pairs(word)).collect();
    let score = |language: &Language| {
        let known = words.iter().filter(|word| lexicon.has(language, word) || language.dropped.contains(*word));
        let typical = pairs.iter().filter(|pair| language.pairs.contains(*pair));
        2.0 * share(known.count(), words.len()) + share(typical.count(), pairs.len())
    };
    let scores: Vec<f64> = LANGUAGES.iter().map(score).collect();
    let sum: f64 = scores.iter().sum();
    if sum == 0.0 {
        return vec![(Language::common(), NOTHING)];
    }
    let mut found: Vec<(&Language, f64)> = LANGUAGES.iter().zip(scores).map(|(of, score)| (of, score / sum)).collect();
    found.retain(|(_, share)| comparable(*share) > SHARE_MIN);
    found.sort_by(|a, b| comparable(b.1).total_cmp(&comparable(a.1)).then_with(|| a.0.code.cmp(b.0.code)));
    found.truncate(CANDIDATES_MAX);
    found
}

/// Neighbouring letters of a word.
fn pairs(word: &str) -> impl Iterator<Item = &str> {
    let letters = word.char_indices();
    letters.clone().zip(letters.skip(1)).map(|((from, _), (at, second))| &word[from..at + second.len_utf8()])
}

fn share(part: usize, all: usize) -> f64 {
    if all == 0 { 0.0 } else { part as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Settings;

    fn detected(text: &str) -> Vec<(&'static str, f64)> {
        let lexicon = Lexicon::new(&Settings::default().language_system, "game");
        let found = detect(&lexicon, text);
        found.into_iter().map(|(language, share)| (language.code, (share * 1e4).round() / 1e4)).collect()
    }

    #[test]
    fn the_likeliest_language_comes_first() {
        let rows = [
            ("The pack hunts blood.", "en"),
            ("la meute veut le sang des ennemis", "fr"),
            ("El enemigo quiere los huesos de la manada", "es"),
            ("il nemico e il sangue della città", "it"),
            ("kru volkh zhosi", "vampire"),
            ("Ruk khu gar.", "werewolf"),
            ("mraa brains ngah", "zombie"),
            ("grakuk hege gah", "ghoul"),
            ("zekoviz thakiki", "lich"),
        ];
        for (text, code) in rows {
            assert_eq!(detected(text)[0].0, code, "{text}");
        }
    }

    #[test]
    fn shares_are_of_the_evidence() {
        // `sang` is blood in two languages, and one of its three pairs of letters is Decayed.
        let third = 1.0 / 3.0;
        let sum = 4.0 + third;
        let share = |score: f64| (score / sum * 1e4).round() / 1e4;
        assert_eq!(detected("Sang"), [("fr", share(2.0)), ("vampire", share(2.0)), ("zombie", share(third))]);
        assert_eq!(detected("1 2 3"), [("en", 0.1)]);
        assert_eq!(detected("?"), [("en", 0.1)]);
    }
}
