//! A generation as a stream: the same text as the whole answer, a chunk a piece, and a last chunk with what it cost.

use std::sync::Arc;

use super::Ai;
use super::answer::{Work, assistant, is_kept, keep, label, response};
use super::check::{self, Plan};
use super::messages::{Chunk, Delta, Output, Request, Response, Written};
use crate::fault::{Code, Fault};
use crate::worker::{Chunks, Context, Failed};

/// Largest piece of a text that is told again.
const REPLAY_BYTES_MAX: usize = 256;

impl Ai {
    pub(super) async fn infer_stream(
        self: Arc<Self>,
        context: Context,
        request: Request,
        mut chunks: Chunks<Chunk>,
    ) -> Result<(), Fault> {
        let (settings, asked) = (self.settings.now(), check::asked(&request)?);
        let work = Work { context: &context, settings: &settings, asked: &asked, request: &request, is_whole: false };
        let plan = self.plan(work, asked.tier).await?;
        let mut told = None;
        let telling = async {
            let told = told.insert(self.tell(work, &plan, &mut chunks).await?);
            let response = response(&plan, &told.written, told.is_cached);
            match told.written.finish_reason.as_str() {
                // It has not been finished: a repeat of the call does it anew.
                "cancelled" => Err(Failed::with(Fault::client(Code::Cancelled, "cancelled"), response)),
                _ => Ok(response),
            }
        };
        let response = match self.repeats.once(&context, telling).await {
            Ok(response) => response,
            Err(Failed { reply: Some(response), .. }) => *response,
            Err(Failed { fault, reply: None }) => return Err(fault),
        };
        if told.is_none() {
            replay(&mut chunks, &response, plan.is_chat).await?;
        }
        let last = Chunk {
            finish_reason: response.finish_reason,
            usage: response.usage,
            ..chunk(&response.generation_id, None, String::new())
        };
        chunks.finish(&last).await?;
        if let Some(told) = told {
            self.announce(work, &plan, Ok((&told.written, told.is_cached))).await;
        }
        Ok(())
    }

    /// All pieces but the last chunk, from the cache or as they come.
    async fn tell(&self, work: Work<'_>, plan: &Plan, chunks: &mut Chunks<Chunk>) -> Result<Told, Fault> {
        let kept = match &plan.cache_key {
            Some(key) => self.cache.get(work.context, key).await,
            None => None,
        };
        if let Some((written, _)) = kept {
            label(work.context, &written, true);
            let mut teller = Teller { chunks, plan, model: &written.model, is_begun: false };
            for word in written.text.split_inclusive(char::is_whitespace) {
                teller.tell(word.to_owned()).await?;
            }
            return Ok(Told { written, is_cached: true });
        }
        let mut begun = self.begin(work, plan).await?;
        let mut generation = self.running.add(work.context.tenant(), &plan.generation_id);
        let mut teller = Teller { chunks, plan, model: &begun.plan.model.clone(), is_begun: false };
        let (mut whole, mut was_cancelled) = (String::new(), false);
        loop {
            let piece = tokio::select! {
                biased;
                () = generation.until_cancelled() => { was_cancelled = true; break }
                _ = work.context.until_cancelled() => { was_cancelled = true; break }
                piece = begun.text.next() => piece,
            };
            let sent = match piece {
                Ok(None) => break,
                Ok(Some(piece)) => {
                    whole.push_str(&piece);
                    teller.tell(piece).await
                }
                Err(fault) => Err(fault),
            };
            if let Err(fault) = sent {
                self.broke_off(work, &begun.plan, &whole, &fault).await;
                return Err(fault);
            }
            // Lets a cancel in between two pieces, where nothing else waits.
            tokio::task::yield_now().await;
        }
        let finish_reason = if was_cancelled { "cancelled" } else { begun.text.finish_reason() };
        let written = Arc::new(self.settled(work, begun, whole, finish_reason).await);
        label(work.context, &written, false);
        if let Some(key) = plan.cache_key.as_ref().filter(|_| is_kept(&written)) {
            self.cache.keep(work.context, key, keep(work.settings, plan), &written).await;
        }
        Ok(Told { written, is_cached: false })
    }
}

/// A text that was told but for its last chunk.
struct Told {
    written: Arc<Written>,
    is_cached: bool,
}

struct Teller<'t> {
    chunks: &'t mut Chunks<Chunk>,
    plan: &'t Plan,
    model: &'t str,
    is_begun: bool,
}

impl Teller<'_> {
    /// The first chunk names the model.
    async fn tell(&mut self, piece: String) -> Result<(), Fault> {
        let model_id = if self.is_begun { String::new() } else { self.model.to_owned() };
        self.is_begun = true;
        let delta = delta(piece, self.plan.is_chat);
        self.chunks.send(&chunk(&self.plan.generation_id, Some(delta), model_id)).await
    }
}

/// The text of an earlier call with the same idempotency key, in larger pieces.
async fn replay(chunks: &mut Chunks<Chunk>, response: &Response, is_chat: bool) -> Result<(), Fault> {
    let text = match &response.output {
        Some(Output::OutputText(text)) => text.as_str(),
        Some(Output::ChatMessages(chat)) => chat.messages.first().map_or("", |message| &message.content),
        None => "",
    };
    let mut model_id = response.model_id.clone();
    for piece in pieces(text) {
        let delta = delta(piece.to_owned(), is_chat);
        chunks.send(&chunk(&response.generation_id, Some(delta), std::mem::take(&mut model_id))).await?;
    }
    Ok(())
}

/// A text in pieces of at most [`REPLAY_BYTES_MAX`] bytes.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let end = (1..=text.len().min(REPLAY_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end))?;
        let (piece, rest) = text.split_at(end);
        text = rest;
        Some(piece)
    })
}

fn delta(piece: String, is_chat: bool) -> Delta {
    match is_chat {
        false => Delta::OutputTextDelta(piece),
        true => Delta::MessageDelta(assistant(&piece)),
    }
}

fn chunk(generation_id: &str, delta: Option<Delta>, model_id: String) -> Chunk {
    Chunk { generation_id: generation_id.to_owned(), delta, finish_reason: String::new(), usage: None, model_id }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_again_in_pieces_of_whole_letters() {
        let text = format!("{}é{}", "a".repeat(255), "b".repeat(300));
        let lengths: Vec<usize> = pieces(&text).map(str::len).collect();
        assert_eq!(lengths, [255, 256, 46]);
        assert_eq!(pieces(&text).collect::<String>(), text);
        assert_eq!(pieces("").count(), 0);
    }
}
