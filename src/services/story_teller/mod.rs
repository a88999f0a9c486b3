//! Stories: told by seed, kept with the choices that lead on, and gone on with from there.

mod ask;
mod judge;
mod messages;
mod tables;
mod tell;

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::messages::{
    Asked, Branch, Checkpoint, Continue, Continued, Evaluate, Evaluated, Generated, Generation, Piece, Story,
};
use self::tell::{Origin, Told};
use super::VERSION;
use super::checks::{id, invalid, texts};
use super::notices::{notice, records};
use super::prose::{self, Wish};
use super::seed::{Part, canonical_texts, seed, tenant_part};
use super::settings::LiveSettings;
use super::words::tell_words;
use crate::fault::{Code, Fault};
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::{Change, Current, EventId, Notice, Records};
use crate::worker::{Chunks, Context, Failed, Repeats, Service};

/// A story lives for a month.
const TTL: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3_600);
/// Longest way from a first story.
const DEPTH_MAX: u32 = 10;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let bucket = BucketConfig { name: "tg_story", ttl: Some(TTL), history: 2 };
    let checkpoints: Records<Checkpoint> = Records::open(store, records(settings, bucket)).await?;
    let (branches, repeats) = (checkpoints.also(), Repeats::open(store).await?);
    let stories = Stories { checkpoints, branches, repeats, settings: settings.clone() };
    Ok(Service::new("story-teller", VERSION)
        .keeping(&stories.checkpoints)
        .sharing(stories)
        .unary("story_teller.v1.StoryTellerService/Generate", Stories::generate)
        .unary("story_teller.v1.StoryTellerService/Evaluate", Stories::evaluate)
        .unary("story_teller.v1.StoryTellerService/Continue", Stories::go_on)
        .stream("story_teller.v1.StoryTellerService/GenerateStream", Stories::generate_stream)
        .stream("story_teller.v1.StoryTellerService/ContinueStream", Stories::go_on_stream)
        .declared("story_teller.v1.StoryTellerService/GetCheckpoint")
        .task("sweeper", Stories::sweep)
        .done())
}

struct Stories {
    checkpoints: Records<Checkpoint>,
    branches: Records<Branch>,
    repeats: Repeats,
    settings: LiveSettings,
}

impl Stories {
    async fn generate(self: Arc<Self>, context: Context, request: Generation) -> Result<Generated, Failed<Generated>> {
        let asked = ask::check(&request)?;
        let write = async { Ok(self.generated(&context, &request, &asked).await?) };
        self.repeats.once(&context, write).await
    }

    async fn generated(&self, context: &Context, request: &Generation, asked: &Asked) -> Result<Generated, Fault> {
        let chosen = match request.seed {
            0 => ask::given_seed(&asked.context)?.unwrap_or_else(|| ask::own_seed(context.tenant(), asked)),
            given => given,
        };
        let story = self.told(context, asked, chosen, Origin::default()).await?;
        let mut alternatives = Vec::new();
        for step in 1..=ask::alternatives(&asked.context)? {
            alternatives.push(self.told(context, asked, chosen.wrapping_add(step), Origin::default()).await?);
        }
        Ok(Generated { story: Some(story), alternatives })
    }

    /// A story, told and kept; in its first words, where it was told before.
    async fn told(&self, context: &Context, asked: &Asked, chosen: u64, origin: Origin) -> Result<Story, Fault> {
        let Told { mut checkpoint, branches } = tell::told(context.tenant(), asked, chosen, origin)?;
        let place = place(context, "cp", &checkpoint_id(&checkpoint.story));
        if self.settings.now().story_teller.text_llm && self.checkpoints.get(context, &place).await?.is_none() {
            let wish = Wish {
                text: &checkpoint.story.content,
                about: &asked.themes.join(", "),
                purpose: "story_critical",
                layer: ask::story_type(asked).layer,
                seed: chosen,
                letters_max: asked.max_length,
            };
            if let Some(text) = prose::written(context, &wish).await {
                checkpoint.story.content = tell::lengthened(context.tenant(), asked, chosen, text);
            }
        }
        // Branches first, so that a story that can be seen leads on.
        for (branch_id, branch) in branches {
            create(&self.branches, context, &self::place(context, "br", &branch_id), branch, None).await?;
        }
        let event = announcement(context, &checkpoint)?;
        Ok(create(&self.checkpoints, context, &place, checkpoint, Some(event)).await?.story)
    }

    async fn evaluate(self: Arc<Self>, context: Context, request: Evaluate) -> Result<Evaluated, Fault> {
        id("story_branch_id", &request.story_branch_id)?;
        texts("context", &request.context)?;
        judge::check(&request.context)?;
        let (branch, checkpoint) = self.branch(&context, &request.story_branch_id).await?;
        let kind = judge::kind(&branch.kind)?;
        if !request.player_choice.is_empty() && !is_choice(&request.player_choice, branch.index, kind.text) {
            let text = format!("player_choice must be the branch's own: {} or {}", branch.index + 1, kind.text);
            return Err(invalid("player_choice", "unknown_value", text).detail("allowed", kind.text));
        }
        let mut known = checkpoint.asked.context.clone();
        known.extend(request.context);
        judge::check_needs(&known)?;
        check_depth(checkpoint.depth)?;
        let evaluation = judge::evaluation(&request.story_branch_id, kind, &checkpoint.asked, &known)?;
        Ok(Evaluated { evaluation: Some(evaluation) })
    }

    async fn go_on(self: Arc<Self>, context: Context, request: Continue) -> Result<Continued, Failed<Continued>> {
        check_continue(&request)?;
        let write = async { Ok(Continued { continuation: Some(self.continuation(&context, &request).await?) }) };
        self.repeats.once(&context, write).await
    }

    async fn continuation(&self, context: &Context, request: &Continue) -> Result<Story, Fault> {
        let before = self.checkpoint(context, &request.checkpoint_id).await?;
        let index = taken(request, &before.story.choices)?;
        let mut asked = before.asked;
        asked.context.extend(request.context.clone());
        // What was taken here is not taken again at the next checkpoint.
        asked.context.remove("choice");
        judge::check_needs(&asked.context)?;
        check_depth(before.depth)?;
        let chosen = seed(&[
            Part::Text("story.continue.v1"),
            tenant_part(context.tenant()),
            Part::Text(&request.checkpoint_id),
            Part::Number(index as u64),
            Part::Text(&canonical_texts(&asked.context)),
        ]);
        let origin = Origin { depth: before.depth + 1, parent_checkpoint_id: request.checkpoint_id.clone() };
        self.told(context, &asked, chosen, origin).await
    }

    async fn generate_stream(
        self: Arc<Self>,
        context: Context,
        request: Generation,
        chunks: Chunks<Piece>,
    ) -> Result<(), Fault> {
        let asked = ask::check(&request)?;
        let write = async { Ok(self.generated(&context, &request, &asked).await?) };
        let generated: Generated = self.once(&context, write).await?;
        self.tell_in_pieces(generated.story.unwrap_or_default(), chunks).await
    }

    async fn go_on_stream(
        self: Arc<Self>,
        context: Context,
        request: Continue,
        chunks: Chunks<Piece>,
    ) -> Result<(), Fault> {
        check_continue(&request)?;
        let write = async { Ok(self.continuation(&context, &request).await?) };
        self.tell_in_pieces(self.once(&context, write).await?, chunks).await
    }

    /// Work of a stream, once for its key.
    async fn once<R: Serialize + DeserializeOwned>(
        &self,
        context: &Context,
        work: impl Future<Output = Result<R, Failed<R>>>,
    ) -> Result<R, Fault> {
        self.repeats.once(context, work).await.map_err(|failed| failed.fault)
    }

    /// A story word by word, as fast as the settings say, the whole of it at the end.
    async fn tell_in_pieces(&self, story: Story, mut chunks: Chunks<Piece>) -> Result<(), Fault> {
        let pacing = self.settings.now().common.text.pacing;
        let piece = |word| Piece { content_delta: word, ..Piece::default() };
        tell_words(&mut chunks, &story.content, pacing, piece).await?;
        chunks.finish(&Piece { story: Some(story), ..Piece::default() }).await
    }

    async fn checkpoint(&self, context: &Context, checkpoint_id: &str) -> Result<Checkpoint, Fault> {
        let found = self.checkpoints.get_cached(context, &place(context, "cp", checkpoint_id)).await?;
        let unknown = || not_found("checkpoint_id", format!("checkpoint {checkpoint_id} does not exist"));
        found.map(|found| found.value).ok_or_else(unknown)
    }

    async fn branch(&self, context: &Context, branch_id: &str) -> Result<(Branch, Checkpoint), Fault> {
        let unknown = || not_found("story_branch_id", format!("branch {branch_id} does not exist"));
        let found = self.branches.get_cached(context, &place(context, "br", branch_id)).await?;
        let branch = found.ok_or_else(unknown)?.value;
        let checkpoint = self.checkpoint(context, &branch.checkpoint_id).await;
        let checkpoint = checkpoint.map_err(|fault| if fault.code() == Code::NotFound { unknown() } else { fault })?;
        Ok((branch, checkpoint))
    }

    async fn sweep(self: Arc<Self>, context: Context) {
        self.checkpoints.sweeper(&context).await;
    }
}

/// Keeps something under a key that has nothing yet; what is kept there then.
async fn create<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static>(
    records: &Records<T>,
    context: &Context,
    key: &str,
    made: T,
    event: Option<Notice>,
) -> Result<T, Fault> {
    let rule = |current: &Current<T>| {
        if let Some(first) = &current.value {
            return Ok(Change::nothing(first.clone()));
        }
        let expires_at_ms = current.now_ms + TTL.as_millis() as i64;
        let change = Change::put(made.clone(), made.clone()).expires_at_ms(expires_at_ms);
        Ok(match &event {
            Some(event) => change.event(event.clone()),
            None => change,
        })
    };
    Ok(records.change(context, key, rule).await.map_err(|failed| failed.fault)?.reply)
}

fn place(context: &Context, kind: &str, own_id: &str) -> String {
    key(&[context.tenant(), kind, own_id])
}

fn checkpoint_id(story: &Story) -> String {
    story.metadata.get("checkpoint_id").cloned().unwrap_or_default()
}

fn check_continue(request: &Continue) -> Result<(), Fault> {
    id("checkpoint_id", &request.checkpoint_id)?;
    texts("context", &request.context)?;
    judge::check(&request.context)
}

/// Which of a checkpoint's choices was taken; the first one where there is nothing to choose.
fn taken(request: &Continue, choices: &[String]) -> Result<usize, Fault> {
    if choices.is_empty() {
        return Ok(0);
    }
    let own = Some(request.player_choice.as_str()).filter(|choice| !choice.is_empty());
    let given = own.or_else(|| request.context.get("choice").map(String::as_str)).unwrap_or("");
    let refusal = |reason, text: &str| invalid("player_choice", reason, text).detail("choices", choices.join("|"));
    if given.is_empty() {
        return Err(refusal("required", "a choice is required"));
    }
    let found = choices.iter().enumerate().position(|(index, choice)| is_choice(given, index, choice));
    found.ok_or_else(|| refusal("unknown_value", "player_choice must be one of the checkpoint's choices"))
}

/// A choice is given by its text or by its number, from 1.
fn is_choice(given: &str, index: usize, choice: &str) -> bool {
    given.eq_ignore_ascii_case(choice) || given.parse() == Ok(index + 1)
}

/// Refuses to go on from where a story has gone on as often as it may.
fn check_depth(checkpoint_depth: u32) -> Result<(), Fault> {
    if checkpoint_depth < DEPTH_MAX {
        return Ok(());
    }
    Err(Fault::client(Code::FailedPrecondition, format!("a story goes on at most {DEPTH_MAX} times"))
        .detail("reason", "depth"))
}

fn not_found(field: &str, text: String) -> Fault {
    Fault::client(Code::NotFound, text).detail("field", field)
}

/// The event of a story that was kept for the first time.
fn announcement(context: &Context, checkpoint: &Checkpoint) -> Result<Notice, Fault> {
    let story = &checkpoint.story;
    let id = EventId::Text(story.content_id.clone());
    Ok(notice(context, "evt.story.generated.v1", id, "story_teller.v1.StoryContent", story)?
        .with("story_type", &*story.content_type)
        .with("checkpoint_id", checkpoint_id(story))
        .with("parent_checkpoint_id", &*checkpoint.parent_checkpoint_id))
}
