//! Translation word by word from a lexicon, with the word order of the target. It hangs on nothing but its input.

use super::super::seed::{Draws, Part, seed};
use super::lexicon::{Concept, Kind, Language, Lexicon, Order};
use super::words::{Sentence, capitalised, sentences, spans};

/// Most other readings of a text.
const ALTERNATIVES_MAX: usize = 3;
/// What music counts as.
const MUSIC_COVERAGE: f64 = 0.5;
/// Coverage from which on a translation is good.
const GOOD_COVERAGE: f64 = 0.7;
/// Letters that a beginner understands.
const UNCLEAR_LETTERS: usize = 50;
const CONSONANTS: &[&str] = &["l", "m", "n", "r", "s", "v", "z"];
const VOWELS: &[&str] = &["a", "e", "i", "o", "u", "ai", "ei", "ou"];

/// A text in another language, word by word.
pub(super) struct Translation {
    sentences: Vec<Translated>,
    /// Share of known words.
    pub(super) coverage: f64,
    keeps_first_order: bool,
}

struct Translated {
    lead: String,
    words: Vec<Word>,
    /// What follows each word.
    gaps: Vec<String>,
    is_capital: bool,
    /// Positions of the words in the target's order, where that is another one.
    order: Option<[usize; 3]>,
}

struct Word {
    text: String,
    class: Option<char>,
    is_known: bool,
    /// What it could mean as well.
    others: Vec<String>,
}

/// How much of a language somebody understands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Skill(f64);

pub(super) fn translate(lexicon: &Lexicon, text: &str, source: &Language, target: &Language) -> Translation {
    let sentences: Vec<Translated> =
        sentences(text).iter().map(|sentence| translated(lexicon, sentence, source, target)).collect();
    let words = || sentences.iter().flat_map(|sentence| &sentence.words);
    let (known, all) = (words().filter(|word| word.is_known).count(), words().count());
    let coverage = match target.kind {
        Kind::Music => MUSIC_COVERAGE,
        _ if all == 0 => 1.0,
        _ => known as f64 / all as f64,
    };
    Translation { sentences, coverage, keeps_first_order: !target.is_human() }
}

impl Translation {
    /// The text as somebody of this skill reads it.
    pub(super) fn text(&self, skill: Skill) -> String {
        skill.read(&self.written(true, None))
    }

    /// Other readings, the likeliest first.
    pub(super) fn alternatives(&self, skill: Skill) -> Vec<String> {
        let mut found = Vec::new();
        for (at, sentence) in self.sentences.iter().enumerate() {
            for (index, word) in sentence.words.iter().enumerate() {
                found.extend(word.others.iter().map(|other| self.written(true, Some((at, index, other)))));
            }
        }
        if self.keeps_first_order && self.sentences.iter().any(|sentence| sentence.order.is_some()) {
            found.push(self.written(false, None));
        }
        found.truncate(ALTERNATIVES_MAX);
        found.iter().map(|text| skill.read(text)).collect()
    }

    /// The text; `instead` names a sentence, a word of it, and what stands there instead.
    fn written(&self, is_ordered: bool, instead: Option<(usize, usize, &str)>) -> String {
        let mut out = String::new();
        for (at, sentence) in self.sentences.iter().enumerate() {
            let instead = instead.filter(|instead| instead.0 == at).map(|(_, index, text)| (index, text));
            sentence.write(is_ordered, instead, &mut out);
        }
        out
    }
}

impl Translated {
    fn write(&self, is_ordered: bool, instead: Option<(usize, &str)>, out: &mut String) {
        out.push_str(&self.lead);
        for (place, gap) in self.gaps.iter().enumerate() {
            let index = self.order.filter(|_| is_ordered).map_or(place, |order| order[place]);
            let text = match instead {
                Some((other, text)) if other == index => text,
                _ => &self.words[index].text,
            };
            match place == 0 && self.is_capital {
                true => out.push_str(&capitalised(text)),
                false => out.push_str(text),
            }
            out.push_str(gap);
        }
    }
}

impl Skill {
    /// Of 0 to 1.
    pub(super) fn new(level: f64) -> Skill {
        Skill((level * 1e6).round() / 1e6)
    }

    /// What confidence is multiplied by.
    pub(super) fn factor(self) -> f64 {
        match self.0 {
            level if level >= 0.9 => 1.0,
            level if level >= 0.7 => 0.9,
            level if level >= 0.5 => 0.8,
            level if level >= 0.3 => 0.6,
            _ => 0.4,
        }
    }

    /// How a translation of this coverage is to be trusted, 4 decimals.
    pub(super) fn confidence(self, coverage: f64) -> f64 {
        let coverage = (coverage * 1e6).round() / 1e6;
        let base = match coverage >= GOOD_COVERAGE {
            true => 0.6 + 0.35 * (coverage - GOOD_COVERAGE) / (1.0 - GOOD_COVERAGE),
            false => 0.6 * coverage / GOOD_COVERAGE,
        };
        (base * self.factor() * 1e4).round() / 1e4
    }

    /// The text with what a learner does not understand.
    pub(super) fn read(self, text: &str) -> String {
        if self.0 >= 0.5 {
            return text.to_owned();
        }
        if self.0 < 0.3 {
            return format!("[Unclear: {}...]", text.chars().take(UNCLEAR_LETTERS).collect::<String>());
        }
        let spans = spans(text);
        if spans.len() <= 3 {
            return text.to_owned();
        }
        let (mut out, mut at) = (String::with_capacity(text.len() + spans.len()), 0);
        for span in spans.iter().step_by(3).filter(|span| !text[..span.start].ends_with('[')) {
            out.extend([&text[at..span.start], "[", &text[span.clone()], "]"]);
            at = span.end;
        }
        out + &text[at..]
    }
}

/// True where a provider is to be asked instead of the lexicon.
pub(super) fn is_poor(coverage: f64) -> bool {
    (coverage * 1e6).round() / 1e6 < GOOD_COVERAGE
}

fn translated(lexicon: &Lexicon, sentence: &Sentence<'_>, source: &Language, target: &Language) -> Translated {
    let mut lead = sentence.lead.to_owned();
    let (mut words, mut gaps) = (Vec::new(), Vec::<String>::new());
    for (index, (word, behind)) in sentence.words.iter().enumerate() {
        let small = word.to_lowercase();
        let is_dropped = matches!(target.kind, Kind::Monster | Kind::Ancient);
        if is_dropped && source.dropped.contains(&small.as_str()) && !lexicon.has(source, &small) {
            // Of the blanks around it one is enough.
            if !behind.chars().all(char::is_whitespace) || index + 1 == sentence.words.len() {
                let gap = gaps.last_mut().unwrap_or(&mut lead);
                gap.truncate(gap.trim_end().len());
                gap.push_str(behind);
            }
            continue;
        }
        words.push(match target.kind {
            Kind::Music => Word { text: sung(&small), class: None, is_known: false, others: Vec::new() },
            _ => found(&lexicon.concepts(source, &small), word, index == 0, target),
        });
        gaps.push((*behind).to_owned());
    }
    let is_capital = sentence.words.first().is_some_and(|(word, _)| word.starts_with(char::is_uppercase));
    let order = reordered(&words, source.order, target.order);
    Translated { lead, words, gaps, is_capital, order }
}

/// A word in the target language. Names and numbers are known everywhere.
fn found(concepts: &[&Concept], word: &str, is_first: bool, target: &Language) -> Word {
    let mut forms = concepts.iter().filter_map(|concept| Some((concept.class, concept.form(target)?)));
    if let Some((class, form)) = forms.next() {
        let others = forms.map(|(_, other)| other.to_owned()).filter(|other| other != form).collect();
        return Word { text: form.to_owned(), class: Some(class), is_known: true, others };
    }
    let is_name = !is_first && word.starts_with(char::is_uppercase);
    let is_number = word.starts_with(|letter: char| letter.is_ascii_digit())
        && word.chars().all(|letter| letter.is_ascii_digit() || matches!(letter, '.' | ','));
    let (text, class) = match (is_name, is_number) {
        (true, _) => (word.to_owned(), Some('n')),
        (_, true) => (word.to_owned(), None),
        _ => (format!("[{word}]"), None),
    };
    Word { text, class, is_known: is_name || is_number, others: Vec::new() }
}

/// Positions of a sentence of subject, verb and object in the target's order; nothing where they stay as they are.
fn reordered(words: &[Word], from: Order, to: Order) -> Option<[usize; 3]> {
    let places = |order: Order| match order {
        Order::VerbFirst => Some([1, 0, 2]),
        Order::VerbSecond => Some([0, 1, 2]),
        Order::VerbLast => Some([0, 2, 1]),
        Order::Free => None,
    };
    // Places of subject, verb and object.
    let ([subject, verb, object], to) = (places(from)?, places(to)?);
    let is_one =
        |at: usize, classes: &[char]| words[at].is_known && words[at].class.is_some_and(|c| classes.contains(&c));
    let is_sentence =
        words.len() == 3 && is_one(subject, &['n', 'p']) && is_one(verb, &['v']) && is_one(object, &['n', 'p']);
    if !is_sentence || to == [subject, verb, object] {
        return None;
    }
    let mut order = [0; 3];
    for (place, index) in to.into_iter().zip([subject, verb, object]) {
        order[place] = index;
    }
    Some(order)
}

/// A word as two or three syllables.
fn sung(word: &str) -> String {
    let mut draws = Draws::new(seed(&[Part::Text("lang.music.v1"), Part::Text(word)]));
    let mut out = String::new();
    for _ in 0..draws.between(2, 3) {
        out.push_str(draws.pick(CONSONANTS));
        out.push_str(draws.pick(VOWELS));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Settings;

    fn language(name: &str) -> &'static Language {
        Language::find(name).unwrap()
    }

    fn done(text: &str, source: &str, target: &str) -> Translation {
        let lexicon = Lexicon::new(&Settings::default().language_system, "game");
        translate(&lexicon, text, language(source), language(target))
    }

    #[test]
    fn texts_in_other_languages() {
        let rows = [
            ("The pack hunts blood.", "en", "werewolf", "Ruk khu gar."),
            ("The pack hunts blood.", "en", "lich", "Zekoviz zethe thakiki."),
            ("Ruk khu gar.", "werewolf", "en", "Pack hunt blood."),
            ("Zekoviz zethe thakiki!", "lich", "werewolf", "Ruk khu gar!"),
            ("The pack hunts the old blood.", "en", "werewolf", "Ruk gar [old] khu."),
            ("Night of blood.", "en", "fr", "Nuit [of] sang."),
            ("I fear Marcus (and 3.5 ghouls).", "en", "it", "Io temere Marcus ([and] 3.5 [ghouls])."),
            ("Hello.\n\nThe moon, the blood of.", "en", "zombie", "Ngong.\n\nMoh, mraa."),
            ("Umbrella hunts", "en", "es", "[Umbrella] cazar"),
            ("The", "en", "vampire", ""),
            ("?!", "en", "vampire", "?!"),
        ];
        for (text, source, target, expected) in rows {
            assert_eq!(done(text, source, target).text(Skill::new(1.0)), expected, "{text}");
        }
    }

    #[test]
    fn other_readings_are_words_of_the_same_form_and_the_first_order() {
        assert_eq!(done("The pack hunts blood.", "en", "werewolf").alternatives(Skill::new(1.0)), ["Ruk gar khu."]);
        assert_eq!(done("Ruk khu gar.", "werewolf", "en").alternatives(Skill::new(1.0)), [""; 0]);
        let concept =
            serde_json::json!([{ "concept": "vein", "class": "n", "forms": { "en": "blood", "fr": "veine" } }]);
        let settings = Settings::with([("language-system.concepts", &concept)]).unwrap();
        let lexicon = Lexicon::new(&settings.language_system, "game");
        let translation = translate(&lexicon, "Blood night", language("en"), language("fr"));
        assert_eq!(translation.text(Skill::new(1.0)), "Sang nuit");
        assert_eq!(translation.alternatives(Skill::new(1.0)), ["Veine nuit"]);
    }

    #[test]
    fn a_learner_reads_less() {
        let text = "hunt blood, [umbrella] night moon day see death";
        let rows = [
            (0.5, text.to_owned()),
            (0.49, "[hunt] blood, [umbrella] [night] moon day [see] death".to_owned()),
            (0.1, format!("[Unclear: {}...]", "hunt blood, [umbrella] night moon day see death")),
        ];
        for (level, expected) in rows {
            assert_eq!(Skill::new(level).read(text), expected, "{level}");
        }
        assert_eq!(Skill::new(0.4).read("one two three"), "one two three");
        assert_eq!(Skill::new(0.0).read(&"a".repeat(60)), format!("[Unclear: {}...]", "a".repeat(50)));
        let confidence = |level: f64, coverage: f64| Skill::new(level).confidence(coverage);
        assert_eq!(confidence(1.0, 1.0), 0.95);
        assert_eq!(confidence(1.0, 0.7), 0.6);
        assert_eq!(confidence(0.6, 2.0 / 3.0), 0.4571);
        assert_eq!(confidence(0.0, 0.5), 0.1714);
    }

    #[test]
    fn music_has_the_same_sound_for_the_same_word() {
        let song = done("Blood, blood and night!", "en", "music");
        assert_eq!(song.coverage, 0.5);
        let text = song.text(Skill::new(1.0));
        let words: Vec<String> =
            text.split([',', ' ', '!']).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
        assert_eq!(words.len(), 4, "{text}");
        assert_eq!(words[0], words[1]);
        assert_ne!(words[0], words[3]);
        assert!(text.ends_with('!') && text.starts_with(char::is_uppercase), "{text}");
    }
}
