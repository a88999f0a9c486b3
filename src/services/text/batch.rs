//! Prompts that go to an endpoint together, for endpoints that take lists of prompts (the OpenAI completions form).
//! Prompts with the same model and parameters wait a moment for each other; how many, adapts to how many come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot};

use super::endpoint::{self, Ask, finish_reason, unavailable};
use crate::fault::{Code, Fault};
use crate::services::settings::{Batch, Provider};

/// Most groups whose size is remembered.
const GROUPS_MAX: usize = 256;
/// Longest wait for the answer to a batch.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Largest answer in bytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A text, and why it has ended.
pub(super) type Whole = (String, &'static str);

/// Prompts that wait for each other. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Batches(Arc<Mutex<HashMap<String, Group>>>);

/// Where a prompt's text goes.
type Answering = oneshot::Sender<Result<Whole, Arc<Fault>>>;

/// Prompts that may go together.
struct Group {
    /// How many go at once, as it has adapted.
    size: u32,
    waiting: Vec<(String, Answering)>,
    /// Told when there are enough.
    is_full: Arc<Notify>,
}

/// What the endpoint reads.
#[derive(Serialize)]
struct Body<'a> {
    prompt: &'a [String],
    #[serde(flatten)]
    ask: &'a serde_json::Value,
}

/// What it answers.
#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    index: usize,
    text: String,
    finish_reason: Option<String>,
}

impl Batches {
    /// The text of a prompt, written together with others.
    pub(super) async fn ask(
        &self,
        client: &reqwest::Client,
        rule: Batch,
        provider: &Provider,
        ask: &Ask,
        prompt: String,
    ) -> Result<Whole, Fault> {
        let shared = shared_part(provider, ask)?;
        let name = format!("{} {} {shared}", provider.name, provider.base_url);
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut groups = self.lock();
            if groups.len() >= GROUPS_MAX && !groups.contains_key(&name) {
                groups.retain(|_, group| !group.waiting.is_empty());
            }
            let new = || Group { size: rule.size, waiting: Vec::new(), is_full: Arc::default() };
            let group = groups.entry(name.clone()).or_insert_with(new);
            group.waiting.push((prompt, answer));
            if group.waiting.len() >= group.size as usize {
                group.is_full.notify_one();
            }
            group.waiting.len() == 1
        };
        if is_first {
            // On its own, so that the batch goes on where its first caller has gone away.
            let (batches, client, provider) = (self.clone(), client.clone(), provider.clone());
            tokio::spawn(async move { batches.send(&client, rule, &provider, &name, &shared).await });
        }
        match answered.await {
            Ok(answer) => answer.map_err(|fault| copy(&fault)),
            Err(_) => Err(unavailable("its batch was given up")),
        }
    }

    /// Waits for a batch to fill, sends it, and gives each prompt its text.
    async fn send(
        &self,
        client: &reqwest::Client,
        rule: Batch,
        provider: &Provider,
        name: &str,
        shared: &serde_json::Value,
    ) {
        let is_full = self.lock().get(name).map(|group| group.is_full.clone());
        let Some(is_full) = is_full else { return };
        let filled = tokio::time::timeout(rule.wait, is_full.notified()).await.is_ok();
        let waiting = {
            let mut groups = self.lock();
            let Some(group) = groups.get_mut(name) else { return };
            group.size = adapted(group.size, group.waiting.len(), filled, rule);
            // The next batch has a bell of its own: this one's may have been rung twice.
            group.is_full = Arc::default();
            std::mem::take(&mut group.waiting)
        };
        let (prompts, answers): (Vec<String>, Vec<_>) = waiting.into_iter().unzip();
        match texts(client, provider, shared, &prompts).await {
            Ok(texts) => {
                for (answer, text) in answers.into_iter().zip(texts) {
                    let text = text.ok_or_else(|| Arc::new(unavailable("a prompt of the batch has no text")));
                    // Whoever has gone away needs none.
                    let _ = answer.send(text);
                }
            }
            Err(fault) => {
                let fault = Arc::new(fault);
                answers.into_iter().for_each(|answer| drop(answer.send(Err(fault.clone()))));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Twice as many next time where a batch filled before its wait was over, half where it stayed half empty.
fn adapted(size: u32, found: usize, filled: bool, rule: Batch) -> u32 {
    let next = match filled {
        true => size.saturating_mul(2),
        false if found * 2 <= size as usize => size / 2,
        false => size,
    };
    next.clamp(rule.min, rule.max)
}

/// Everything that prompts of one batch have in common.
fn shared_part(provider: &Provider, ask: &Ask) -> Result<serde_json::Value, Fault> {
    let mut ask = ask.clone();
    if let Some(name) = provider.models.get(&ask.model) {
        ask.model.clone_from(name);
    }
    let json = serde_json::to_value(&ask);
    let mut json =
        json.map_err(|error| Fault::ours(Code::Internal, "the request does not encode").internal(error.to_string()))?;
    if let Some(members) = json.as_object_mut() {
        members.remove("messages");
        members.insert("stream".to_owned(), false.into());
    }
    Ok(json)
}

/// One request for all prompts: their texts in their order.
async fn texts(
    client: &reqwest::Client,
    provider: &Provider,
    shared: &serde_json::Value,
    prompts: &[String],
) -> Result<Vec<Option<Whole>>, Fault> {
    let body = serde_json::to_vec(&Body { prompt: prompts, ask: shared })
        .map_err(|error| Fault::ours(Code::Internal, "the request does not encode").internal(error.to_string()))?;
    let asking = async {
        let mut answer = endpoint::post(client, provider, "completions", body).await?;
        let mut bytes = Vec::new();
        while let Some(more) = answer.chunk().await.map_err(|error| endpoint::failure(&error))? {
            if bytes.len() + more.len() > ANSWER_BYTES_MAX {
                return Err(unavailable("the answer to a batch is too long"));
            }
            bytes.extend_from_slice(&more);
        }
        Ok(bytes)
    };
    let bytes = tokio::time::timeout(ANSWER_MAX, asking).await.map_err(|_| endpoint::silent("the batch"))??;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| unavailable(error.to_string()))?;
    let mut texts: Vec<Option<Whole>> = prompts.iter().map(|_| None).collect();
    for choice in answer.choices {
        if let Some(place) = texts.get_mut(choice.index) {
            *place = Some((choice.text, finish_reason(choice.finish_reason.as_deref())));
        }
    }
    Ok(texts)
}

/// The fault of a batch, for each of its prompts.
fn copy(fault: &Fault) -> Fault {
    let start = Fault::upstream(fault.code(), fault.message().to_owned()).internal("its batch failed".to_owned());
    fault.details().iter().fold(start, |copy, (name, value)| copy.detail(name.clone(), value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_grows_while_it_fills_and_shrinks_while_it_stays_empty() {
        let rule = Batch { enabled: true, size: 32, min: 8, max: 64, wait: Duration::from_millis(5) };
        let sizes = |steps: &[(usize, bool)]| {
            let mut size = rule.size;
            steps
                .iter()
                .map(|(found, filled)| {
                    size = adapted(size, *found, *filled, rule);
                    size
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(&[(32, true), (64, true)]), [64, 64]);
        assert_eq!(sizes(&[(20, false), (3, false), (1, false), (1, false)]), [32, 16, 8, 8]);
    }
}
