//! What places tell: small pieces of a story that fit a place, and what is known about the place.

mod generate;
mod messages;
mod tables;

use std::sync::Arc;

use futures_util::StreamExt as _;

use self::messages::{
    Element, Generated, Generation, Kept, Known, Piece, Seen, SeenSet, Update, Updated, WatchLocation,
};
use super::VERSION;
use super::checks::{id, invalid, required, short, texts};
use super::notices::{notice, records};
use super::prose::{self, Wish};
use super::seed::{Part, seed};
use super::settings::LiveSettings;
use crate::fault::Fault;
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::{Change, Current, Document, EventId, Notice, RecordSeen, Records};
use crate::worker::{Chunks, Context, Failed, Repeats, RuleBeside, Service};

/// What is known of a place lives for a month.
const TTL: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3_600);
/// What is known of a place, and how much goes on there.
const CONTEXT_MAX: usize = 64;
const EVENTS_MAX: usize = 64;
const EVENT_BYTES_MAX: usize = 128;
/// The one entry that says that nothing goes on any more.
const NO_EVENTS: &str = "-";
/// Longest prose of an element, in characters.
const CONTENT_MAX: usize = 400;
/// Elements whose prose is written at a time.
const WRITERS: usize = 4;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_narrative", ttl: Some(TTL), history: 4 };
    let places = Records::open(store, records(settings, bucket)).await?;
    let narrative = Narrative { places, repeats: Repeats::open(store).await?, settings: settings.clone() };
    Ok(Service::new("environmental-narrative", VERSION)
        .keeping(&narrative.places)
        .sweeping("sweeper", &narrative.places)
        .hook_put_beside("environmental_narrative.v1.EnvironmentalNarrativeService/UpdateContext", update)
        .hook_watch("environmental_narrative.v1.EnvironmentalNarrativeService/WatchLocation", watch)
        .sharing(narrative)
        .unary("environmental_narrative.v1.EnvironmentalNarrativeService/Generate", Narrative::generate)
        .stream("environmental_narrative.v1.EnvironmentalNarrativeService/GenerateStream", Narrative::generate_stream)
        .done())
}

struct Narrative {
    places: Records<Kept>,
    repeats: Repeats,
    settings: LiveSettings,
}

impl Narrative {
    async fn generate(self: Arc<Self>, context: Context, request: Generation) -> Result<Generated, Failed<Generated>> {
        let scene_type = generate::check(&request)?;
        let write = async { Ok(self.generated(&context, &request, scene_type).await?) };
        self.repeats.once(&context, write).await
    }

    async fn generate_stream(
        self: Arc<Self>,
        context: Context,
        request: Generation,
        mut chunks: Chunks<Piece>,
    ) -> Result<(), Fault> {
        let scene_type = generate::check(&request)?;
        let write = async { Ok(self.generated(&context, &request, scene_type).await?) };
        let set: Generated = self.repeats.once(&context, write).await.map_err(|failed| failed.fault)?;
        for element in set.elements {
            chunks.send(&Piece { element: Some(element), ..Piece::default() }).await?;
        }
        let (atmosphere, recommended_sounds) = (set.atmosphere, set.recommended_sounds);
        chunks.finish(&Piece { atmosphere, recommended_sounds, ..Piece::default() }).await
    }

    /// A set in what is known of the place, kept as the place's last one.
    async fn generated(
        &self,
        context: &Context,
        request: &Generation,
        scene_type: &'static str,
    ) -> Result<Generated, Fault> {
        let (known, context_revision) = self.known(context, &request.location_id).await?;
        let mut used = known.context;
        used.extend(request.context.clone());
        let mut set = generate::set(context, request, scene_type, &used);
        if self.settings.now().environmental_narrative.text_llm {
            self.write_anew(context, &request.location_id, &mut set).await?;
        }
        let generated = Generated {
            elements: set.elements,
            atmosphere: set.atmosphere,
            recommended_sounds: set.recommended_sounds,
            context_revision,
        };
        let event = announcement(context, request, scene_type, set.scene.name, &generated)?;
        let rule = |current: &Current<Kept>| match &current.value {
            Some(Kept::Set(seed, last)) if *seed == set.seed && *last == generated => {
                Ok(Change::nothing(generated.clone()))
            }
            _ => Ok(Change::put(Kept::Set(set.seed, generated.clone()), generated.clone()).event(event.clone())),
        };
        let last = key(&[context.tenant(), &request.location_id, "last"]);
        Ok(self.places.change(context, &last, rule).await.map_err(|failed| failed.fault)?.reply)
    }

    /// What is known of a place, and how often that has changed.
    async fn known(&self, context: &Context, location_id: &str) -> Result<(Known, u64), Fault> {
        let key = key(&[context.tenant(), location_id, "ctx"]);
        Ok(match self.places.get_cached(context, &key).await? {
            Some(Document { value: Kept::Context(known), version, .. }) => (known, version),
            _ => (Known::default(), 0),
        })
    }

    /// Puts a model's words in place of the built-in ones: those that were kept, where they were told before. A seed may
    /// have told fewer elements than it does now, and the same tags in another order make another scene of it.
    async fn write_anew(&self, context: &Context, location_id: &str, set: &mut generate::Set) -> Result<(), Fault> {
        let key = key(&[context.tenant(), location_id, "prose", set.scene.name, &format!("{:016x}", set.seed)]);
        let mut kept = match self.places.get(context, &key).await? {
            Some(Document { value: Kept::Prose(texts), .. }) => texts,
            _ => Vec::new(),
        };
        if kept.len() < set.elements.len() {
            let about = format!("{} in a place of {}", set.scene.name.replace('_', " "), set.scene.theme);
            let mut writers = Vec::with_capacity(set.elements.len());
            for (index, element) in set.elements.iter().enumerate().skip(kept.len()) {
                writers.push(reworded(context, &about, set.seed.wrapping_add(index as u64), &element.content));
            }
            let new: Vec<String> = futures_util::stream::iter(writers).buffered(WRITERS).collect().await;
            kept.extend(new);
            let rule = |current: &Current<Kept>| {
                // Where another replica was faster, its words are the set's.
                let mut texts = match &current.value {
                    Some(Kept::Prose(first)) => first.clone(),
                    _ => Vec::new(),
                };
                if texts.len() >= kept.len() {
                    return Ok(Change::nothing(texts));
                }
                texts.extend_from_slice(&kept[texts.len()..]);
                Ok(Change::put(Kept::Prose(texts.clone()), texts))
            };
            kept = self.places.change(context, &key, rule).await.map_err(|failed| failed.fault)?.reply;
        }
        for (element, text) in set.elements.iter_mut().zip(kept) {
            element.content = text;
        }
        Ok(())
    }
}

/// The hook of the declared watch: the context as it is, then each change of it and each new set; behind a revision, what
/// it missed.
fn watch(
    _: Context,
    _: WatchLocation,
    begins_anew: bool,
) -> Result<impl FnMut(RecordSeen<Kept>) -> Result<Vec<Seen>, Fault>, Fault> {
    let (mut is_current, mut missed) = (false, Vec::new());
    Ok(move |seen| {
        match seen {
            RecordSeen::Current if !is_current => {
                is_current = true;
                if begins_anew {
                    // The last set is no news: the one that comes next is.
                    missed.retain(|item: &Seen| item.generated.is_none());
                    missed.is_empty().then(|| missed.push(Seen::default()));
                }
                missed.sort_by_key(|item| item.revision);
            }
            RecordSeen::Current => {}
            RecordSeen::Change { document, revision, .. } => missed.extend(seen_as(document, revision)),
        }
        Ok(if is_current { std::mem::take(&mut missed) } else { Vec::new() })
    })
}

/// A model's words for an element, the built-in ones where it has none.
async fn reworded(context: &Context, about: &str, seed: u64, content: &str) -> String {
    let wish = Wish { text: content, about, purpose: "narrative", layer: "foundation", seed, letters_max: CONTENT_MAX };
    prose::written(context, &wish).await.unwrap_or_else(|| content.to_owned())
}

fn seen_as(document: Option<Document<Kept>>, revision: u64) -> Option<Seen> {
    match document?.value {
        Kept::Context(Known { context, affected_elements, .. }) => {
            Some(Seen { revision, context, affected_elements, generated: None })
        }
        Kept::Set(_, set) => {
            let generated = SeenSet {
                meta: None,
                elements: set.elements,
                atmosphere: set.atmosphere,
                recommended_sounds: set.recommended_sounds,
                error: None,
                context_revision: set.context_revision,
            };
            Some(Seen { revision, generated: Some(generated), ..Seen::default() })
        }
        Kept::Prose(_) => None,
    }
}

fn check_update(request: &Update) -> Result<(), Fault> {
    id("location_id", &request.location_id)?;
    texts("context_updates", &request.context_updates)?;
    if request.active_events.len() > EVENTS_MAX {
        return Err(invalid("active_events", "too_many", format!("at most {EVENTS_MAX} active events")));
    }
    for event in &request.active_events {
        if event.is_empty() {
            return Err(required("active_events"));
        }
        short("active_events", event, EVENT_BYTES_MAX)?;
    }
    if request.context_updates.is_empty() && request.active_events.is_empty() {
        return Err(invalid("context_updates", "required", "nothing to update"));
    }
    Ok(())
}

/// The hook of the declared update: it is given the context, and beside it the last set, whose elements it may touch.
fn update(_: Context, request: Update) -> Result<impl RuleBeside<Kept, Updated>, Fault> {
    check_update(&request)?;
    Ok(move |current: &Current<Kept>, last: Option<&Document<Kept>>| {
        let elements = match last.map(|last| &last.value) {
            Some(Kept::Set(_, set)) => set.elements.as_slice(),
            _ => &[],
        };
        updated(&request, current, elements)
    })
}

/// What an update makes of what is known, and the elements of the last set that it touches.
fn updated(
    request: &Update,
    current: &Current<Kept>,
    elements: &[Element],
) -> Result<Change<Kept, Updated>, Failed<Updated>> {
    let before = match &current.value {
        Some(Kept::Context(known)) => known.clone(),
        _ => Known::default(),
    };
    let mut context = before.context.clone();
    for (name, value) in &request.context_updates {
        match value.is_empty() {
            true => context.remove(name),
            false => context.insert(name.clone(), value.clone()),
        };
    }
    if context.len() > CONTEXT_MAX {
        let text = format!("a place has at most {CONTEXT_MAX} keys of context");
        return Err(invalid("context_updates", "too_many", text).into());
    }
    let active_events = match request.active_events.as_slice() {
        [] => before.active_events.clone(),
        [only] if only == NO_EVENTS => Vec::new(),
        events => events.to_vec(),
    };
    let has_new_events = active_events != before.active_events;
    if context == before.context && !has_new_events {
        return Ok(Change::nothing(Updated { success: true, affected_elements: Vec::new() }));
    }
    let is_touched = |element: &&Element| {
        let has_changed = |name: &String| context.get(name) != before.context.get(name);
        has_new_events && element.element_type == "interaction" || element.triggers.keys().any(has_changed)
    };
    let affected_elements: Vec<String> =
        elements.iter().filter(is_touched).map(|element| element.element_id.clone()).collect();
    let known = Known { context, active_events, affected_elements: affected_elements.clone() };
    Ok(Change::put(Kept::Context(known), Updated { success: true, affected_elements }))
}

/// The event of a set that was generated.
fn announcement(
    context: &Context,
    request: &Generation,
    scene_type: &'static str,
    scene: &str,
    set: &Generated,
) -> Result<Notice, Fault> {
    // Sets of one seed may differ, in length for one; a set always prints.
    let text = serde_json::to_string(set).unwrap_or_default();
    let set_hash = seed(&[Part::Text("narrative.set.v1"), Part::Text(&text)]);
    let id = EventId::Text(format!("{}:{set_hash:016x}", request.location_id));
    let message = "environmental_narrative.v1.GenerateResponse";
    Ok(notice(context, "evt.narrative.generated.v1", id, message, set)?
        .with("location_id", &*request.location_id)
        .with("scene_type", scene_type)
        .with("scene", scene))
}
