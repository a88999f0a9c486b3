//! Section `common`: what holds for all services of a process.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Keys, NAMES, Secret, millis, seconds};

/// What holds for all services.
#[derive(Clone, Debug)]
pub struct Common {
    /// Services that this process does not start.
    pub without: Vec<String>,
    /// Services register with capability-registry.
    pub register: bool,
    /// Requests of one subject at a time.
    pub max_parallel: usize,
    /// Longest wait for running requests at the end.
    pub drain: Duration,
    /// Interval of the sweeper.
    pub sweep: Duration,
    /// Allowed beginnings of callback subjects.
    pub callbacks: Vec<String>,
    /// The text engine.
    pub text: TextSettings,
}

/// The text engine: a chain of providers.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSettings {
    /// Tried in this order.
    pub providers: Vec<Provider>,
    /// The built-in engine closes the chain.
    pub fallback_builtin: bool,
    /// Pause between streamed words of the built-in engine.
    pub pacing: Duration,
    /// Tries against one provider.
    pub retries: u32,
    /// Pauses between tries; the last one stays.
    pub retry_pause: Vec<Duration>,
    /// When a provider is left alone.
    pub breaker: Breaker,
}

/// When a provider is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Failures in a row that open it.
    pub failures: u32,
    /// How long it stays open before one probe.
    pub open: Duration,
}

/// Where text comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name in labels, logs and `ai-integration.models`.
    pub name: String,
    /// What it is.
    pub kind: ProviderKind,
    /// `https://host/v1`, without a slash at its end: `/chat/completions` is put behind it.
    pub base_url: String,
    /// Model ids and their names there; the others keep their id.
    pub models: BTreeMap<String, String>,
    /// Sent as a bearer token.
    pub key: Option<Secret>,
}

/// What a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderKind {
    /// The engine in this process.
    BuiltIn,
    /// An endpoint that speaks the OpenAI chat-completions form.
    OpenAi,
}

impl Common {
    pub(super) fn read(keys: &mut Keys) -> Common {
        let known = |name: &str| match NAMES.contains(&name) {
            true => Ok(()),
            false => Err(format!("there is no service `{name}`: there are {}", NAMES.join(", "))),
        };
        let subject = |text: &str| match text.strip_suffix('.') {
            Some(rest) if !rest.is_empty() && !rest.contains(['*', '>', ' ']) => Ok(()),
            _ => Err(format!("expected the beginning of a subject, such as `cb.`, found `{text}`")),
        };
        Common {
            without: keys.key("without", "services that this process does not start").needs_restart().texts(&[], known),
            register: keys.key("register", "register with capability-registry").needs_restart().truth(true),
            max_parallel: keys.key("max_parallel", "requests of one subject at a time").count(256, 1..=65_536) as usize,
            drain: keys.key("drain", "longest wait for running requests").length(seconds(25), millis(0)..=seconds(600)),
            sweep: keys
                .key("sweep", "interval of the sweeper (pending events, expired records)")
                .length(seconds(5), millis(100)..=seconds(600)),
            callbacks: keys
                .key("callbacks", "allowed beginnings of callback subjects")
                .texts(&["cb.", "_INBOX."], subject),
            text: keys.key("text", "the text engine").section(TextSettings::read),
        }
    }
}

impl TextSettings {
    fn read(keys: &mut Keys) -> TextSettings {
        let pause = millis(0)..=seconds(60);
        let providers = keys
            .key("providers", "chain of providers; the next one is tried after a failure (default: builtin)")
            .rows(Some("kind"), Provider::read);
        let providers = providers.unwrap_or_else(|| vec![Provider::built_in()]);
        let names: Vec<&str> = providers.iter().map(|provider| provider.name.as_str()).collect();
        let twice = names.iter().enumerate().find(|(index, name)| names[..*index].contains(name));
        if let Some((_, name)) = twice {
            let text = format!("two providers have the name `{name}`: give each a `name` of its own");
            keys.problem("providers", text);
        }
        let fallback = keys.key("fallback", "what closes the chain");
        let fallback_builtin =
            fallback.section(|keys| keys.key("builtin", "the built-in engine closes the chain").truth(true));
        if providers.is_empty() && !fallback_builtin {
            keys.problem("providers", "expected at least one provider where `fallback.builtin` is off");
        }
        TextSettings {
            providers,
            fallback_builtin,
            pacing: keys
                .key("pacing", "pause between streamed words of the built-in engine")
                .length(millis(0), pause.clone()),
            retries: keys.key("retries", "tries against a provider").count(3, 1..=10),
            retry_pause: keys
                .key("retry_pause", "pauses between tries; the last one stays")
                .lengths(&[seconds(1), seconds(2), seconds(4)], pause),
            breaker: keys.key("breaker", "when a provider is left alone").section(|keys| Breaker {
                failures: keys.key("failures", "failures in a row that open it").count(5, 1..=1_000),
                open: keys
                    .key("open", "how long it stays open before one probe")
                    .length(seconds(60), millis(1)..=seconds(3_600)),
            }),
        }
    }

    /// True where a provider is more than the built-in engine, which writes prose and understands none.
    pub fn has_models(&self) -> bool {
        self.providers.iter().any(|provider| provider.kind != ProviderKind::BuiltIn)
    }

    /// The provider of that name.
    pub fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }
}

impl Provider {
    /// The engine in this process.
    pub fn built_in() -> Provider {
        Provider {
            name: "builtin".to_owned(),
            kind: ProviderKind::BuiltIn,
            base_url: String::new(),
            models: BTreeMap::new(),
            key: None,
        }
    }

    fn read(keys: &mut Keys) -> Provider {
        let kinds = [("builtin", ProviderKind::BuiltIn), ("openai", ProviderKind::OpenAi)];
        let kind = keys.key("kind", "the built-in engine, or an OpenAI-compatible endpoint").choice(kinds[0].1, &kinds);
        let given = keys.key("name", "name in labels and in `ai-integration.models` (default: its kind)");
        let given = given.optional_text();
        let base_url = keys
            .key("base_url", "`https://host/v1`: `/chat/completions` is put behind it")
            .optional_text()
            .unwrap_or_default();
        let is_url = base_url.starts_with("http://") || base_url.starts_with("https://");
        match kind {
            ProviderKind::OpenAi if !is_url => {
                keys.problem("base_url", "a provider of kind `openai` has a `base_url` such as `https://host/v1`");
            }
            ProviderKind::BuiltIn if keys.has("base_url") || keys.has("key") || keys.has("models") => {
                keys.problem("kind", "`builtin` has neither `base_url`, `models` nor `key`: is its kind `openai`?");
            }
            _ => {}
        }
        let default = kinds.iter().find(|row| row.1 == kind).map_or("", |row| row.0);
        Provider {
            name: given.unwrap_or_else(|| default.to_owned()),
            kind,
            base_url: base_url.trim_end_matches('/').to_owned(),
            models: keys.key("models", "model id → its name there; others keep their id").text_map(),
            key: keys.key("key", "sent as a bearer token").secret(),
        }
    }
}
