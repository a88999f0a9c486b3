//! What players have learnt of languages.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{DOMAIN, Languages, known};
use crate::services::checks::{id, out_of_range, player, required, unknown_value};
use crate::services::numbers::comparable;
use crate::store::key;
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Failed};

/// What a player can do, and how much of a language it teaches.
const EVENTS: [(&str, f64); 4] = [("artifact", 0.1), ("interaction", 0.02), ("translation", 0.05), ("study", 0.03)];
/// What an artifact teaches besides when its fragment is new, and the label that names the fragment.
const FRAGMENT_GAIN: f64 = 0.05;
const FRAGMENT_LABEL: &str = "fragment";
/// Fragments that a learner is known to have.
const FRAGMENTS_MAX: usize = 1_000;
/// Skill that texts of complexity 1, 2, … need.
const COMPLEXITY: [f64; 5] = [0.1, 0.3, 0.5, 0.7, 0.9];

#[derive(Serialize, Deserialize)]
pub(super) struct RecordLearning {
    player_id: String,
    language: String,
    event_type: String,
    quality: f64,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Learnt {
    skill_level: f64,
    words_known: i32,
}

/// What the store holds of a player and a language.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Learner {
    skill: f64,
    fragments: BTreeSet<String>,
}

impl Languages {
    /// The label `fragment` names the fragment that an artifact shows; the label `complexity` of the reply says which
    /// texts the player can read by now.
    pub(super) async fn learn(
        self: Arc<Self>,
        context: Context,
        request: RecordLearning,
    ) -> Result<Learnt, Failed<Learnt>> {
        let settings = self.settings.now();
        player(&context, settings.auth.enforce, &request.player_id)?;
        let language = known("language", &request.language)?;
        if request.event_type.is_empty() {
            return Err(required("event_type").into());
        }
        let event = EVENTS.iter().find(|row| row.0.eq_ignore_ascii_case(&request.event_type));
        let Some((event, gain)) = event else {
            let text = "event_type must be artifact, interaction, translation or study";
            return Err(unknown_value("event_type", text, &EVENTS.map(|row| row.0)).into());
        };
        if !(0.0..=1.0).contains(&request.quality) {
            return Err(out_of_range("quality", 0, 1).into());
        }
        let fragment = context.caller().label(FRAGMENT_LABEL).filter(|_| *event == "artifact").unwrap_or_default();
        if !fragment.is_empty() {
            id("meta.labels.fragment", fragment)?;
        }
        // A quality that is not given is a whole one.
        let quality = if request.quality == 0.0 { 1.0 } else { request.quality };
        let words = self.lexicon(&settings, DOMAIN).size();
        let rule = |current: &Current<Learner>| {
            let mut after = current.value.clone().unwrap_or_default();
            let is_new = !fragment.is_empty()
                && after.fragments.len() < FRAGMENTS_MAX
                && after.fragments.insert(fragment.to_owned());
            let gain = if is_new { gain + FRAGMENT_GAIN } else { *gain };
            // Three times 0.1 is 0.3.
            after.skill = comparable((after.skill + gain * quality).min(1.0));
            let words_known = comparable(after.skill * words as f64).floor() as i32;
            Ok(Change::put(after.clone(), Learnt { skill_level: after.skill, words_known }))
        };
        let place = key(&[context.tenant(), &request.player_id, language.code]);
        let write = async { Ok(self.learners.change(&context, &place, rule).await?.reply) };
        let learnt = self.repeats.once(&context, write).await?;
        let complexity = COMPLEXITY.iter().filter(|need| learnt.skill_level >= **need).count();
        context.label("complexity", complexity.to_string());
        Ok(learnt)
    }
}
