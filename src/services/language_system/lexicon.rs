//! The languages, and what each calls a concept.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::super::settings::{self, LanguageSystem};

/// Letters that a form of a verb shares with its infinitive, and how many more than it a form may have.
const STEM_LETTERS: usize = 4;
const ENDING_LETTERS_MAX: usize = 3;

/// Concept, class, and the word of each language in the order of [`LANGUAGES`].
const WORDS: &str = include_str!("lexicon.txt");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Human,
    Monster,
    Ancient,
    Music,
}

/// Where the verb stands between its subject and its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    VerbFirst,
    VerbSecond,
    VerbLast,
    Free,
}

pub(super) struct Language {
    pub(super) code: &'static str,
    /// Other names; `en-` stands for `en-GB` and all others of its kind.
    aliases: &'static [&'static str],
    name: &'static str,
    pub(super) kind: Kind,
    pub(super) order: Order,
    /// Articles and helpers, which other than human languages do without.
    pub(super) dropped: &'static [&'static str],
    /// Pairs of letters by which a text gives itself away.
    pub(super) pairs: &'static [&'static str],
}

/// In the order of the lexicon's columns; music, which has none, comes last.
pub(super) const LANGUAGES: &[Language] = &[
    Language {
        code: "en",
        aliases: &["common", "eng", "en-"],
        name: "Common",
        kind: Kind::Human,
        order: Order::VerbSecond,
        dropped: &["a", "an", "the", "at", "in", "of", "to", "is", "are", "do", "does"],
        pairs: &["th", "he", "in", "er"],
    },
    Language {
        code: "fr",
        aliases: &["fra", "fr-", "french"],
        name: "French",
        kind: Kind::Human,
        order: Order::VerbSecond,
        dropped: &["le", "la", "les", "un", "une", "des", "de", "du"],
        pairs: &["le", "es", "en", "ou"],
    },
    Language {
        code: "es",
        aliases: &["spa", "es-", "spanish"],
        name: "Spanish",
        kind: Kind::Human,
        order: Order::VerbSecond,
        dropped: &["el", "la", "los", "las", "un", "una", "de"],
        pairs: &["de", "os", "la", "ar"],
    },
    Language {
        code: "it",
        aliases: &["ita", "it-", "italian"],
        name: "Italian",
        kind: Kind::Human,
        order: Order::VerbSecond,
        dropped: &["il", "lo", "la", "i", "gli", "le", "un", "una", "di"],
        pairs: &["la", "to", "di", "re"],
    },
    other("vampire", &["volkh"], "Volkh", Kind::Monster, Order::VerbSecond, &["zh", "sh", "vo", "th"]),
    other("werewolf", &["lycan"], "Lycan", Kind::Monster, Order::VerbLast, &["kh", "gr", "ga", "ru"]),
    other("zombie", &[], "Decayed", Kind::Monster, Order::VerbSecond, &["ng", "aa", "oo", "mr"]),
    other("ghoul", &[], "Guttural", Kind::Monster, Order::VerbSecond, &["gr", "kh", "ug", "ak"]),
    other("lich", &["ritual"], "Ritual", Kind::Ancient, Order::VerbFirst, &["th", "za", "vi", "sh"]),
    other("music", &[], "Music", Kind::Music, Order::Free, &[]),
];

/// A language without articles and helpers.
const fn other(
    code: &'static str,
    aliases: &'static [&'static str],
    name: &'static str,
    kind: Kind,
    order: Order,
    pairs: &'static [&'static str],
) -> Language {
    Language { code, aliases, name, kind, order, dropped: &[], pairs }
}

impl Language {
    /// The language of a code or an alias, in any case of letters.
    pub(super) fn find(name: &str) -> Option<&'static Language> {
        let name = name.to_lowercase();
        let is_alias = |alias: &&str| if alias.ends_with('-') { name.starts_with(alias) } else { name == *alias };
        LANGUAGES.iter().find(|language| language.code == name || language.aliases.iter().any(is_alias))
    }

    /// The language of texts in which nothing speaks for another one.
    pub(super) fn common() -> &'static Language {
        &LANGUAGES[0]
    }

    /// What people outside of the game call it.
    pub(super) fn human_name(&self) -> &'static str {
        if self.is(Language::common()) { "English" } else { self.name }
    }

    pub(super) fn is_human(&self) -> bool {
        self.kind == Kind::Human
    }

    pub(super) fn is(&self, other: &Language) -> bool {
        self.code == other.code
    }
}

/// A thing that languages have words for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Concept {
    /// `n`, `v`, `a`, `p` or `x`: noun, verb, adjective, pronoun, phrase.
    pub(super) class: char,
    /// By code of the language.
    forms: BTreeMap<String, String>,
}

impl Concept {
    pub(super) fn form(&self, language: &Language) -> Option<&str> {
        self.forms.get(language.code).map(String::as_str)
    }
}

/// Concepts in their order, and the words that lead to them.
pub(super) struct Lexicon {
    concepts: Vec<Concept>,
    /// Per language, word in small letters → positions of its concepts, in their order.
    by_form: HashMap<&'static str, HashMap<String, Vec<usize>>>,
}

/// The concepts that need no configuration.
static BUILT_IN: LazyLock<Vec<Concept>> = LazyLock::new(|| WORDS.lines().filter_map(read).collect());

fn read(line: &str) -> Option<Concept> {
    let mut words = line.split_whitespace().skip(1);
    let class = words.next()?.chars().next()?;
    let forms = LANGUAGES.iter().zip(words).map(|(language, word)| (language.code.to_owned(), word.to_owned()));
    Some(Concept { class, forms: forms.collect() })
}

impl Lexicon {
    /// The built-in concepts, those of the settings behind them, those of the domain last.
    pub(super) fn new(settings: &LanguageSystem, domain: &str) -> Lexicon {
        let own = |concept: &settings::Concept| Concept { class: concept.class, forms: concept.forms.clone() };
        let of_domain = settings.lexicons.get(domain).into_iter().flatten();
        let concepts: Vec<Concept> =
            BUILT_IN.iter().cloned().chain(settings.concepts.iter().chain(of_domain).map(own)).collect();
        let mut by_form: HashMap<&str, HashMap<String, Vec<usize>>> = HashMap::new();
        for (index, concept) in concepts.iter().enumerate() {
            for language in LANGUAGES {
                if let Some(form) = concept.form(language) {
                    let forms = by_form.entry(language.code).or_default();
                    forms.entry(form.to_lowercase()).or_default().push(index);
                }
            }
        }
        Lexicon { concepts, by_form }
    }

    /// How many concepts there are.
    pub(super) fn size(&self) -> usize {
        self.concepts.len()
    }

    /// True where the language has this word, given in small letters, in this very form.
    pub(super) fn has(&self, language: &Language, word: &str) -> bool {
        !self.exact(language, word).is_empty()
    }

    /// The concepts that a word may mean, the likeliest first; `word` is in small letters.
    pub(super) fn concepts(&self, language: &Language, word: &str) -> Vec<&Concept> {
        let mut found = self.exact(language, word);
        let endings: &[&str] = match language.kind {
            Kind::Human if language.is(Language::common()) => &["ing", "ed", "es", "s"],
            Kind::Human => &["s"],
            _ => &[],
        };
        for ending in endings {
            if found.is_empty()
                && let Some(base) = word.strip_suffix(ending)
            {
                found = self.exact(language, base);
            }
        }
        if found.is_empty() && language.is_human() && !language.is(Language::common()) {
            return self.concepts.iter().filter(|concept| is_form_of_verb(concept, language, word)).take(1).collect();
        }
        found.iter().map(|index| &self.concepts[*index]).collect()
    }

    fn exact(&self, language: &Language, word: &str) -> &[usize] {
        self.by_form.get(language.code).and_then(|forms| forms.get(word)).map_or(&[], Vec::as_slice)
    }
}

/// `chassons` for `chasser`: the endings of French, Spanish and Italian verbs are too many for a table.
fn is_form_of_verb(concept: &Concept, language: &Language, word: &str) -> bool {
    let Some(infinitive) = concept.form(language).filter(|_| concept.class == 'v') else { return false };
    let shared = infinitive.chars().zip(word.chars()).take_while(|(a, b)| a == b).count();
    shared >= STEM_LETTERS && word.chars().count() <= infinitive.chars().count() + ENDING_LETTERS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::Settings;

    fn lexicon() -> Lexicon {
        Lexicon::new(&Settings::default().language_system, "game")
    }

    #[test]
    fn every_language_but_music_has_a_word_for_every_concept() {
        assert_eq!(BUILT_IN.len(), WORDS.lines().count());
        for (concept, line) in BUILT_IN.iter().zip(WORDS.lines()) {
            assert!("nvapx".contains(concept.class), "{line}");
            for language in LANGUAGES.iter().filter(|language| language.kind != Kind::Music) {
                assert!(concept.form(language).is_some(), "{line}: {}", language.code);
            }
        }
    }

    #[test]
    fn names_and_aliases_lead_to_their_language() {
        let code = |name: &str| Language::find(name).map(|language| language.code);
        let names = ["EN", "common", "en-GB", "french", "es-mx", "ita", "Volkh", "lycan", "ritual", "music"];
        assert_eq!(
            names.map(code),
            ["en", "en", "en", "fr", "es", "it", "vampire", "werewolf", "lich", "music"].map(Some)
        );
        assert_eq!(["", "klingon", "english", "volkh-x"].map(code), [None; 4]);
    }

    #[test]
    fn words_are_found_by_their_base_form() {
        let english = |language: &str, word: &str| {
            let concepts = lexicon();
            let found = concepts.concepts(Language::find(language).unwrap(), word);
            found.first().and_then(|concept| concept.form(Language::common())).map(str::to_owned)
        };
        let rows = [
            ("en", "hunting", Some("hunt")),
            ("en", "hunted", Some("hunt")),
            ("en", "trades", Some("trade")),
            ("en", "umbrella", None),
            ("fr", "amis", Some("friend")),
            ("fr", "chassons", Some("hunt")),
            ("es", "comerciamos", Some("trade")),
            ("it", "combattono", None),
            // Fewer than four letters are shared, or the word is too long.
            ("fr", "dons", None),
            ("it", "cacciarebbe", Some("hunt")),
            ("it", "cacciarebbero", None),
            ("vampire", "krus", None),
        ];
        for (language, word, expected) in rows {
            assert_eq!(english(language, word).as_deref(), expected, "{language} {word}");
        }
    }
}
