//! The chain of providers: each is tried as often as the settings say, left alone while its breaker is open, and
//! followed by the next one; all before the first piece of text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::batch::Batches;
use super::endpoint::{self, Ask, Pieces, unavailable};
use crate::fault::{Code, Fault};
use crate::limits::{Breaker, BreakerRule};
use crate::services::settings::{Batch, Provider, ProviderKind, TextSettings};

/// All providers as this replica has come to know them.
pub(in crate::services) struct Engine {
    client: reqwest::Client,
    batches: Batches,
    /// What the breakers count their time from.
    started: Instant,
    /// By name of the provider, with the rule that each was made for.
    breakers: Mutex<HashMap<String, (BreakerRule, Arc<Breaker>)>>,
}

/// Who writes the text.
pub(in crate::services) struct Opened {
    /// The endpoint's text; nothing where the built-in engine writes it.
    pub pieces: Option<Pieces>,
    /// Name of the provider.
    pub provider: String,
    /// It is not the first of the chain.
    pub is_degraded: bool,
}

impl Engine {
    pub(in crate::services) fn new() -> Result<Engine, Fault> {
        Ok(Engine {
            client: endpoint::client()?,
            batches: Batches::default(),
            started: Instant::now(),
            breakers: Mutex::default(),
        })
    }

    /// Finds who writes a text. `wanted` names the provider that is to be asked first instead of the chain; `batch` is
    /// the prompt that may go together with others, and how; `left` is the caller's time.
    pub(in crate::services) async fn open(
        &self,
        settings: &TextSettings,
        wanted: Option<&Provider>,
        ask: &Ask,
        batch: Option<(&str, Batch)>,
        left: Option<Duration>,
    ) -> Result<Opened, Fault> {
        let until = left.and_then(|left| Instant::now().checked_add(left));
        let mut last = unavailable("no provider is configured");
        for (index, provider) in chain(settings, wanted).iter().enumerate() {
            let opened = |pieces| Opened { pieces, provider: provider.name.clone(), is_degraded: index > 0 };
            if provider.kind == ProviderKind::BuiltIn {
                return Ok(opened(None));
            }
            match self.ask(settings, provider, ask, batch, until).await {
                Ok(pieces) => return Ok(opened(Some(pieces))),
                Err(fault) if is_failure(&fault) => {
                    tracing::warn!(provider = provider.name, %fault, "a text provider failed");
                    last = fault;
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(last)
    }

    /// One provider, with its tries.
    async fn ask(
        &self,
        settings: &TextSettings,
        provider: &Provider,
        ask: &Ask,
        batch: Option<(&str, Batch)>,
        until: Option<Instant>,
    ) -> Result<Pieces, Fault> {
        let breaker = self.breaker(&provider.name, settings);
        let mut attempt = 0;
        loop {
            let pass = breaker.admit(self.started.elapsed()).map_err(|_| unavailable("its breaker is open"))?;
            let result = match batch {
                None => endpoint::open(&self.client, provider, ask.clone()).await,
                Some((prompt, rule)) => {
                    let asking = self.batches.ask(&self.client, rule, provider, ask, prompt.to_owned());
                    asking.await.map(|(text, finish_reason)| Pieces::whole(text, finish_reason))
                }
            };
            attempt += 1;
            // A refusal is an answer: the provider works.
            let is_good = !result.as_ref().is_err_and(is_failure);
            match is_good {
                true => pass.succeeded(),
                false => pass.failed(self.started.elapsed()),
            }
            let pause = settings.retry_pause.get(attempt - 1).or(settings.retry_pause.last()).copied();
            let pause = pause.unwrap_or_default();
            let is_too_late = until.is_some_and(|until| Instant::now() + pause >= until);
            if is_good || attempt >= settings.retries as usize || breaker.is_open() || is_too_late {
                return result;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The provider's breaker, made anew where the settings have another rule by now.
    fn breaker(&self, name: &str, settings: &TextSettings) -> Arc<Breaker> {
        let rule = BreakerRule { failures: settings.breaker.failures, open: settings.breaker.open, probes: 1 };
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, breaker) = match breakers.get(name) {
            Some(known) if known.0 == rule => known,
            _ => {
                breakers.insert(name.to_owned(), (rule, Arc::new(Breaker::new(rule))));
                &breakers[name]
            }
        };
        breaker.clone()
    }
}

/// Who is asked, in order.
fn chain(settings: &TextSettings, wanted: Option<&Provider>) -> Vec<Provider> {
    let mut chain = match wanted {
        Some(provider) => vec![provider.clone()],
        None => settings.providers.clone(),
    };
    if settings.fallback_builtin && !chain.iter().any(|provider| provider.kind == ProviderKind::BuiltIn) {
        chain.push(Provider::built_in());
    }
    chain
}

/// The provider did not answer, so another one may.
fn is_failure(fault: &Fault) -> bool {
    matches!(fault.code(), Code::Unavailable | Code::DeadlineExceeded)
}
