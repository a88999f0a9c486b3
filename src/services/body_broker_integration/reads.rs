//! The profile as it is and as it changes, mixtures of drugs, and deaths.

use std::sync::Arc;

use super::messages::{DeathRecorded, GetProfile, GotProfile, Item, Mix, Mixed, RecordDeath, Watch};
use super::profile::Profile;
use super::tables::{EFFECTS, FAMILIES, MIXTURES, PENALTIES, book_tier};
use super::{Broker, Entry};
use crate::fault::{Code, Fault};
use crate::services::checks::{out_of_range, player, required, short, unknown_value};
use crate::worker::records::{Current, Document, RecordSeen};
use crate::worker::{Context, Failed};

/// Longest name of a world in bytes.
const WORLD_MAX: usize = 128;
/// Worth of a tithe that pacifies an area.
const TITHE: i32 = 10;

impl Broker {
    pub(super) fn profile(
        &self,
        context: &Context,
        request: &GetProfile,
        stored: Option<Document<Entry>>,
    ) -> Result<GotProfile, Fault> {
        let profile = stored.and_then(|stored| stored.value.profile());
        let profile = profile.unwrap_or_else(|| Profile::new(context, &request.player_id));
        for family in &FAMILIES {
            context.label(format!("book.{}", family.id), book_tier(profile.deals_with(family)));
        }
        Ok(GotProfile { profile: Some(profile.shown(context.now_ms())) })
    }

    pub(super) fn watch(
        self: Arc<Self>,
        context: Context,
        request: Watch,
        begins_anew: bool,
    ) -> Result<impl FnMut(RecordSeen<Entry>) -> Result<Option<Item>, Fault>, Fault> {
        let mut has_told = false;
        Ok(move |seen: RecordSeen<Entry>| {
            let (profile, revision) = match seen {
                RecordSeen::Change { document: Some(document), revision, .. } => (document.value.profile(), revision),
                RecordSeen::Current if !has_told && begins_anew => {
                    (Some(Profile::new(&context, &request.player_id)), 0)
                }
                RecordSeen::Change { .. } | RecordSeen::Current => return Ok(None),
            };
            has_told |= profile.is_some();
            Ok(profile.map(|profile| {
                let shown = Some(profile.shown(context.now_ms()));
                Item { revision, profile: shown, change: profile.change }
            }))
        })
    }

    pub(super) async fn mix(self: Arc<Self>, context: Context, request: Mix) -> Result<Mixed, Fault> {
        player(&context, self.settings.now().auth.enforce, &request.player_id)?;
        let drugs = [("first", &request.first), ("second", &request.second)];
        let mut known = [""; 2];
        for ((field, drug), known) in drugs.into_iter().zip(&mut known) {
            if drug.is_empty() {
                return Err(required(field));
            }
            let allowed = EFFECTS.map(|row| row.0);
            let found = allowed.iter().find(|name| name.eq_ignore_ascii_case(drug));
            *known = found.ok_or_else(|| unknown_value(field, format!("unknown drug {drug}"), &allowed))?;
        }
        let [first, second] = known;
        let is_it = |pair: [&str; 2]| pair == [first, second] || pair == [second, first];
        let Some((_, result, potency, side_effect)) = MIXTURES.iter().find(|row| is_it(row.0)) else {
            let text = format!("{first} and {second} do not mix");
            return Err(Fault::client(Code::FailedPrecondition, text).detail("reason", "no_mixture"));
        };
        context.label("side_effect", *side_effect);
        if let Some((_, effects, own_side_effect)) = EFFECTS.iter().find(|row| row.0 == *result) {
            context.label("effects", *effects);
            context.label("own_side_effect", *own_side_effect);
        }
        Ok(Mixed { result: (*result).to_owned(), potency: potency.unwrap_or(0.0), fatal: potency.is_none() })
    }

    pub(super) async fn record_death(
        self: Arc<Self>,
        context: Context,
        request: RecordDeath,
    ) -> Result<DeathRecorded, Failed<DeathRecorded>> {
        player(&context, self.settings.now().auth.enforce, &request.player_id)?;
        short("world", &request.world, WORLD_MAX)?;
        if request.tithe_value < 0 {
            return Err(out_of_range("tithe_value", 0, i32::MAX).into());
        }
        let rule = |current: &Current<Entry>| {
            let mut profile = Broker::current(&context, &request.player_id, current, "death");
            profile.veil_fray = profile.veil_fray.saturating_add(1);
            let level = (profile.veil_fray as usize).min(PENALTIES.len());
            let reply = DeathRecorded {
                veil_fray_level: profile.veil_fray,
                stat_penalty: PENALTIES[level - 1],
                area_pacified: request.tithe_value >= TITHE,
            };
            Ok(Broker::changed(profile, reply))
        };
        let write = self.change(&context, &request.player_id, rule);
        self.repeats.once(&context, write).await
    }
}
