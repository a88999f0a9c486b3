//! The teller: the same request gives the same story. The order of the draws is part of the contract: the text block by
//! block, then the choices.

use std::collections::HashSet;

use super::super::numbers::rounded;
use super::super::seed::{Draws, Part, id_of, seed, tenant_part};
use super::super::text::{capitalised, fill};
use super::ask::{canonical, story_type};
use super::judge::drift;
use super::messages::{Asked, Branch, Checkpoint, Story};
use super::tables::{KINDS, Kind, StoryType, THEMES, TONES, named};
use crate::fault::Fault;

const FILLER: &str = "Time passes.";

/// A story, and where it goes on.
pub(super) struct Told {
    pub(super) checkpoint: Checkpoint,
    pub(super) branches: Vec<(String, Branch)>,
}

/// Where a story comes from.
#[derive(Default)]
pub(super) struct Origin {
    pub(super) depth: u32,
    pub(super) parent_checkpoint_id: String,
}

/// The story of a request and a seed.
pub(super) fn told(tenant: &str, asked: &Asked, chosen: u64, origin: Origin) -> Result<Told, Fault> {
    let kind = story_type(asked);
    let mut teller = Teller::new(tenant, asked, chosen);
    let sentences = teller.tell(Vec::new());
    let content = teller.fitted(&sentences);
    let choices = if kind.has_choices { teller.choices() } else { Vec::new() };
    let dialogue_lines = match kind.has_lines {
        true => sentences.iter().filter_map(|sentence| spoken(sentence, teller.player())).collect(),
        false => Vec::new(),
    };
    let id_parts =
        [Part::Text("story.id.v1"), tenant_part(tenant), Part::Number(chosen), Part::Text(&canonical(asked))];
    let content_id = id_of("sty", &id_parts);
    let checkpoint_id = content_id.replacen("sty_", "cp_", 1);
    let branches: Vec<(String, Branch)> = choices
        .iter()
        .enumerate()
        .map(|(index, choice)| {
            let parts = [Part::Text("story.branch.v1"), Part::Text(&checkpoint_id), Part::Number(index as u64)];
            let branch = Branch { checkpoint_id: checkpoint_id.clone(), index, kind: choice.name.to_owned() };
            (id_of("br", &parts), branch)
        })
        .collect();
    let join = |texts: Vec<&str>| texts.join(",");
    let metadata = [
        ("checkpoint_id", checkpoint_id),
        ("branch_ids", join(branches.iter().map(|row| row.0.as_str()).collect())),
        ("choice_kinds", join(choices.iter().map(|choice| choice.name).collect())),
        ("seed", chosen.to_string()),
        ("depth", origin.depth.to_string()),
        ("parent_checkpoint_id", origin.parent_checkpoint_id.clone()),
        ("drift", drift(&asked.context)?.join(",")),
    ];
    let metadata = metadata.into_iter().filter(|row| !row.1.is_empty());
    let story = Story {
        content_id,
        content_type: asked.story_type.clone(),
        quality_score: teller.quality(&sentences),
        content,
        dialogue_lines,
        choices: choices.iter().map(|choice| choice.text.to_owned()).collect(),
        metadata: metadata.map(|(name, text)| (name.to_owned(), text)).collect(),
    };
    let Origin { depth, parent_checkpoint_id } = origin;
    Ok(Told { checkpoint: Checkpoint { asked: asked.clone(), story, depth, parent_checkpoint_id }, branches })
}

/// A text that a model wrote, brought to the wanted length by generated sentences.
pub(super) fn lengthened(tenant: &str, asked: &Asked, chosen: u64, text: String) -> String {
    let mut teller = Teller::new(tenant, asked, chosen);
    let sentences = teller.tell(vec![text]);
    teller.fitted(&sentences)
}

struct Teller<'a> {
    asked: &'a Asked,
    kind: &'static StoryType,
    draws: Draws,
    /// Motifs told so far: they go round through the themes.
    motifs: usize,
    /// Themes that the text names.
    used: HashSet<usize>,
}

impl<'a> Teller<'a> {
    fn new(tenant: &str, asked: &'a Asked, chosen: u64) -> Teller<'a> {
        let draws = Draws::new(seed(&[Part::Text("story.v1"), tenant_part(tenant), Part::Number(chosen)]));
        Teller { asked, kind: story_type(asked), draws, motifs: 0, used: HashSet::new() }
    }

    fn player(&self) -> &'a str {
        self.asked.context.get("player_name").map(String::as_str).filter(|name| !name.is_empty()).unwrap_or("broker")
    }

    fn separator(&self) -> &'static str {
        if self.kind.has_lines { "\n" } else { " " }
    }

    /// Sentences behind those that are there: a round of blocks at least, then until the text is long enough.
    fn tell(&mut self, mut sentences: Vec<String>) -> Vec<String> {
        let round = if sentences.is_empty() { self.kind.blocks.len() } else { 0 };
        let mut length = sentences.iter().map(|sentence| letters(sentence)).sum::<usize>();
        for index in 0.. {
            if index >= round && length >= self.asked.min_length {
                break;
            }
            let block = &self.kind.blocks[index % self.kind.blocks.len()];
            let picked = self.draws.below(2) as usize;
            let first = self.sentence(block[picked]);
            let mut added = first.clone();
            if !self.fits(length, &added) {
                added = self.sentence(block[1 - picked]);
            }
            if self.fits(length, &added) {
                self.note(&added);
                length = self.with(length, &added);
                sentences.push(added);
            } else if sentences.is_empty() {
                return vec![shortened(&first, self.asked.max_length)];
            } else {
                break;
            }
        }
        while length < self.asked.min_length && self.fits(length, FILLER) {
            length = self.with(length, FILLER);
            sentences.push(FILLER.to_owned());
        }
        sentences
    }

    /// The text of its sentences, padded where no sentence fits any more.
    fn fitted(&self, sentences: &[String]) -> String {
        let mut text = sentences.join(self.separator());
        let missing = self.asked.min_length.saturating_sub(letters(&text));
        text.extend(std::iter::repeat_n('.', missing));
        text
    }

    fn fits(&self, length: usize, sentence: &str) -> bool {
        self.with(length, sentence) <= self.asked.max_length
    }

    /// Length of a text with one more sentence.
    fn with(&self, length: usize, sentence: &str) -> usize {
        let separator = if length == 0 { 0 } else { self.separator().len() };
        length + separator + letters(sentence)
    }

    fn sentence(&mut self, template: &str) -> String {
        let (asked, player) = (self.asked, self.player());
        let motifs = &mut self.motifs;
        let text = fill(template, &mut self.draws, |slot, draws| match slot {
            "motif" => {
                let theme = theme(asked, *motifs);
                *motifs += 1;
                match named(&THEMES, theme) {
                    Some(words) => draws.pick(words).to_owned(),
                    None => draws.pick(&[format!("the matter of {theme}").as_str()]).to_owned(),
                }
            }
            "tone" => match named(&TONES, &asked.tone) {
                Some(words) => draws.pick(words).to_owned(),
                None => draws.pick(&[asked.tone.as_str()]).to_owned(),
            },
            _ => player.to_owned(),
        });
        sentence_case(&text)
    }

    /// Notes which themes a sentence names.
    fn note(&mut self, sentence: &str) {
        let lower = sentence.to_lowercase();
        for (index, theme) in self.asked.themes.iter().enumerate() {
            let names = match named(&THEMES, theme) {
                Some(words) => words.iter().any(|word| lower.contains(word)),
                None => lower.contains(&format!("the matter of {}", theme.to_lowercase())),
            };
            if names {
                self.used.insert(index);
            }
        }
    }

    fn quality(&self, sentences: &[String]) -> f64 {
        let themes = self.asked.themes.len();
        let share = if themes == 0 { 1.0 } else { self.used.len() as f64 / themes as f64 };
        let distinct: HashSet<&String> = sentences.iter().collect();
        let fresh = distinct.len() as f64 / sentences.len().max(1) as f64;
        rounded(0.4 * share + 0.3 + 0.2 * fresh + 0.1, 3)
    }

    fn choices(&mut self) -> Vec<&'static Kind> {
        let count = self.draws.between(2, 4);
        let mut left: Vec<&Kind> = KINDS.iter().collect();
        (0..count).map(|_| left.remove(self.draws.below(left.len() as u64) as usize)).collect()
    }
}

/// The theme of a text's motif; the mystery where no theme was given.
fn theme(asked: &Asked, motif: usize) -> &str {
    match asked.themes.as_slice() {
        [] => "mystery",
        themes => &themes[motif % themes.len()],
    }
}

fn letters(text: &str) -> usize {
    text.chars().count()
}

/// A capital as the first letter, behind a quotation mark as well.
fn sentence_case(text: &str) -> String {
    let quoted = text.strip_prefix('"');
    let mark = if quoted.is_some() { "\"" } else { "" };
    format!("{mark}{}", capitalised(quoted.unwrap_or(text)))
}

/// A sentence cut at a word and closed with a full stop; cut hard where not even a word fits.
fn shortened(sentence: &str, letters_max: usize) -> String {
    let cut: String = sentence.chars().take(letters_max.saturating_sub(1)).collect();
    let is_whole_word = sentence[cut.len()..].starts_with(' ');
    let words = match cut.rfind(' ') {
        Some(at) if !is_whole_word => &cut[..at],
        _ => &cut,
    };
    format!("{}.", words.trim_end_matches([' ', ',', ';', ':', '.', '?']))
}

/// What is said in a sentence, behind who says it; nothing where nobody speaks.
fn spoken(sentence: &str, player: &str) -> Option<String> {
    let (said, rest) = sentence.strip_prefix('"')?.rsplit_once('"')?;
    let speaker = match rest.trim().trim_end_matches('.') {
        "you answer" => player.to_owned(),
        rest => capitalised(rest.strip_prefix("says ")?),
    };
    Some(format!("{speaker}: {}.", said.trim_end_matches(',')))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::ask::check;
    use super::super::messages::Generation;
    use super::super::tables::STORY_TYPES;
    use super::*;

    fn asked(story_type: &str, themes: &[&str], lengths: (i32, i32), tone: &str) -> Asked {
        let request = Generation {
            story_type: story_type.to_owned(),
            context: BTreeMap::new(),
            themes: themes.iter().map(|theme| (*theme).to_owned()).collect(),
            min_length: lengths.0,
            max_length: lengths.1,
            tone: tone.to_owned(),
            seed: 0,
        };
        check(&request).unwrap()
    }

    fn story(asked: &Asked, chosen: u64) -> Told {
        told("", asked, chosen, Origin::default()).unwrap()
    }

    #[test]
    fn a_thousand_stories_keep_their_lengths_and_lead_on() {
        let mut draws = Draws::new(7);
        for chosen in 0..1_000 {
            let kind = &STORY_TYPES[draws.below(4) as usize];
            let min = draws.between(1, 600) as i32;
            let max = min + draws.below(400) as i32;
            let asked = asked(kind.name, &["horror", "hunger"], (min, max), "tense");
            let first = story(&asked, chosen);
            let told = &first.checkpoint.story;
            let length = letters(&told.content);
            assert!(
                (min as usize..=max as usize).contains(&length),
                "{length} is not {min} to {max}: {}",
                told.content
            );
            assert!((0.0..=1.0).contains(&told.quality_score), "{told:?}");
            let choices = if kind.has_choices { 2..=4 } else { 0..=0 };
            assert!(choices.contains(&told.choices.len()), "{told:?}");
            let ids: HashSet<&str> = first.branches.iter().map(|row| row.0.as_str()).collect();
            assert_eq!(ids.len(), told.choices.len(), "{told:?}");
            assert_eq!(story(&asked, chosen).checkpoint.story, *told);
        }
    }

    #[test]
    fn motifs_go_round_through_the_themes() {
        let told = story(&asked("lore", &["betrayal", "rust"], (2_000, 2_400), ""), 3).checkpoint.story;
        assert!(told.content.contains("the matter of rust"), "{}", told.content);
        assert!(THEMES[1].1.iter().any(|motif| told.content.contains(motif)), "{}", told.content);
    }

    #[test]
    fn what_is_said_becomes_lines() {
        for (sentence, expected) in [
            (
                r#""I saw a brass key at the bone yard," says a widow."#,
                Some("A widow: I saw a brass key at the bone yard."),
            ),
            (r#""And you kept silent," you answer."#, Some("Vale: And you kept silent.")),
            ("Wings behind plaster, and then nothing.", None),
        ] {
            assert_eq!(spoken(sentence, "Vale").as_deref(), expected);
        }
    }

    #[test]
    fn a_sentence_too_long_is_cut_at_a_word() {
        for (letters_max, expected) in
            [(13, "Bring a key."), (12, "Bring a key."), (11, "Bring a."), (3, "Br."), (1, ".")]
        {
            assert_eq!(shortened("Bring a key back.", letters_max), expected, "{letters_max}");
        }
    }
}
