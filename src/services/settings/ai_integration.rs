//! Section `ai-integration`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Keys, millis, seconds};

/// Text generation.
#[derive(Clone, Debug, PartialEq)]
pub struct AiIntegration {
    /// From the cheapest up: T1, T2, T3.
    pub tiers: [TierSettings; 3],
    /// How long the response cache keeps a reply.
    pub cache_ttl: Duration,
    /// Token budget of a tenant, also the burst.
    pub tokens_per_minute: u32,
    /// Batching towards endpoints that take it.
    pub batch: Batch,
    /// Model id → provider; the others take the chain.
    pub models: BTreeMap<String, String>,
    /// The generated event carries the output text.
    pub events_include_text: bool,
}

/// One tier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierSettings {
    /// Model that it chooses.
    pub model: String,
    /// Most tokens of an answer.
    pub cap: u32,
    /// Latency target, and the wait that callers are told where everything is busy.
    pub latency: Duration,
    /// Generations at once on one replica; 0 = none.
    pub parallel: usize,
}

/// Batching towards endpoints that take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// On.
    pub enabled: bool,
    /// Requests of a batch at the start.
    pub size: u32,
    /// Fewest, when it adapts.
    pub min: u32,
    /// Most, when it adapts.
    pub max: u32,
    /// Longest wait for a batch to fill.
    pub wait: Duration,
}

impl AiIntegration {
    pub(super) fn read(keys: &mut Keys) -> AiIntegration {
        let tier = |keys: &mut Keys, name: &str, model: &str, cap, latency, parallel| {
            keys.key(name, "a tier").section(|keys| TierSettings {
                model: keys.key("model", "model that it chooses").text(model),
                cap: keys.key("cap", "most tokens of an answer").count(cap, 1..=8_192),
                latency: keys.key("latency", "latency target").length(millis(latency), millis(1)..=seconds(60)),
                parallel: keys
                    .key("parallel", "generations at once on one replica; 0 = none")
                    .count(parallel, 0..=10_000) as usize,
            })
        };
        AiIntegration {
            tiers: keys.key("tiers", "models, limits and slots by purpose").section(|keys| {
                [
                    tier(keys, "T1", "phi3-mini", 256, 150, 20),
                    tier(keys, "T2", "llama3.1-8b", 512, 300, 10),
                    tier(keys, "T3", "llama3.1-8b", 512, 500, 5),
                ]
            }),
            cache_ttl: keys.key("cache", "the response cache").section(|keys| {
                keys.key("ttl", "how long a reply is kept").length(seconds(300), seconds(30)..=seconds(300))
            }),
            tokens_per_minute: keys.key("budget", "token budgets").section(|keys| {
                let key = keys.key("tokens_per_minute", "tokens of a tenant in a minute, also the burst");
                key.count(100_000, 1..=1_000_000_000)
            }),
            batch: keys.key("batch", "batching towards endpoints that take it").section(Batch::read),
            models: keys.key("models", "model id → name of a provider; others take the chain").text_map(),
            events_include_text: keys
                .key("events", "the generated event")
                .section(|keys| keys.key("include_text", "output text in the generated event").truth(false)),
        }
    }
}

impl Batch {
    fn read(keys: &mut Keys) -> Batch {
        let batch = Batch {
            enabled: keys.key("enabled", "on").truth(false),
            size: keys.key("size", "requests of a batch at the start").count(32, 1..=1_024),
            min: keys.key("min", "fewest, when it adapts").count(8, 1..=1_024),
            max: keys.key("max", "most, when it adapts").count(64, 1..=1_024),
            wait: keys.key("wait", "longest wait for a batch to fill").length(millis(5), millis(0)..=seconds(1)),
        };
        if !(batch.min <= batch.size && batch.size <= batch.max) {
            let Batch { min, size, max, .. } = batch;
            keys.problem("size", format!("expected `min` ≤ `size` ≤ `max`, found {min}, {size}, {max}"));
        }
        batch
    }
}
