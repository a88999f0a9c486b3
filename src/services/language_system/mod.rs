//! Languages of people and of the Dark World: translation by lexicon and rules, detection, contents in several
//! languages, and what players have learnt.

mod contents;
mod detect;
mod learn;
mod lexicon;
mod template;
mod translate;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::checks::{invalid, out_of_range, required, texts, unknown_value};
use super::common::{Error, Meta};
use super::notices::{notice, publish, records};
use super::seed::{Part, seed, tenant_part};
use super::settings::LiveSettings;
use super::{Settings, VERSION, prose};
use crate::fault::Fault;
use crate::store::{BucketConfig, Store, key};
use crate::worker::records::{Change, Current, EventId, Records};
use crate::worker::{Chunks, Context, Repeats, Service};
use contents::{Content, Rendered};
use learn::Learner;
use lexicon::{Kind, LANGUAGES, Language, Lexicon};
use translate::{Skill, is_poor};

const COMPLETED: &str = "evt.lang.translation.completed.v1";
const MESSAGE: &str = "language_system.v1.TranslateResponse";
/// Longest text in characters.
const TEXT_MAX: usize = 8_192;
const DOMAINS: [&str; 4] = ["game", "ui", "dialogue", "lore"];
/// The domain where a request does not say.
const DOMAIN: &str = "game";
/// How sure a provider's translation is.
const PROVIDER_CONFIDENCE: f64 = 0.8;
/// How long a provider's translation is kept, so that a repeat reads the same.
const PROSE_KEPT_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// The service.
pub(super) async fn service(store: &Store, settings: &LiveSettings) -> Result<Service, Fault> {
    let languages = Languages {
        contents: Records::open(store, records(settings, BucketConfig { name: "tg_l10n", ttl: None, history: 4 }))
            .await?,
        learners: Records::open(store, records(settings, BucketConfig { name: "tg_lang", ttl: None, history: 1 }))
            .await?,
        repeats: Repeats::open(store).await?,
        settings: settings.clone(),
        rendered: Rendered::default(),
        lexicons: Mutex::default(),
    };
    Ok(Service::new("language-system", VERSION)
        .keeping(&languages.contents)
        .sweeping("sweeper of contents", &languages.contents)
        .sweeping("sweeper of learners", &languages.learners)
        .hook_put_at("language_system.v1.LanguageService/PutContent", contents::put_content)
        .sharing(languages)
        .unary("language_system.v1.LanguageService/Translate", Languages::translate)
        .unary("language_system.v1.LanguageService/Detect", Languages::detect)
        .unary("language_system.v1.LanguageService/Localize", Languages::localize)
        .stream("language_system.v1.LanguageService/TranslateStream", Languages::translate_stream)
        .unary("language_system.v1.LanguageService/RecordLearning", Languages::learn)
        .done())
}

struct Languages {
    /// Templates, and under `_prose` what providers have translated.
    contents: Records<Content>,
    learners: Records<Learner>,
    repeats: Repeats,
    settings: LiveSettings,
    rendered: Rendered,
    /// Lexicons by domain, of the settings that they were made for.
    lexicons: Mutex<Option<(Arc<Settings>, ByDomain)>>,
}

type ByDomain = HashMap<&'static str, Arc<Lexicon>>;

#[derive(Serialize, Deserialize)]
struct Translate {
    text: String,
    source_language: String,
    target_language: String,
    domain: String,
    context: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Translated {
    translated_text: String,
    detected_source_language: String,
    confidence: f64,
    alternatives: Vec<String>,
    coverage: f64,
}

#[derive(Serialize, Deserialize)]
struct Item {
    revision: u64,
    sentence: Option<Told>,
}

/// A translation inside of another message, context and error included.
#[derive(Serialize, Deserialize)]
struct Told {
    meta: Option<Meta>,
    translated_text: String,
    detected_source_language: String,
    confidence: f64,
    alternatives: Vec<String>,
    error: Option<Error>,
    coverage: f64,
}

#[derive(Serialize, Deserialize)]
struct Detect {
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Detected {
    detections: Vec<Detection>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Detection {
    language_code: String,
    confidence: f64,
}

/// A request for a translation, checked.
struct Plan {
    settings: Arc<Settings>,
    lexicon: Arc<Lexicon>,
    source: &'static Language,
    target: &'static Language,
    domain: &'static str,
    skill: Skill,
    /// What replies call the source.
    shown_source: String,
}

impl Languages {
    async fn translate(self: Arc<Self>, context: Context, request: Translate) -> Result<Translated, Fault> {
        let plan = self.plan(&request)?;
        let translated = self.translated(&context, &plan, &request.text).await;
        announce(&context, &plan, &request.text, &translated).await?;
        Ok(translated)
    }

    /// A chunk a sentence. Together the sentences are the whole text, with its blanks and line breaks.
    async fn translate_stream(
        self: Arc<Self>,
        context: Context,
        request: Translate,
        mut chunks: Chunks<Item>,
    ) -> Result<(), Fault> {
        let plan = self.plan(&request)?;
        let mut rest = request.text.as_str();
        let mut whole = String::new();
        let sizes: Vec<usize> = words::sentences(&request.text).iter().map(words::Sentence::size).collect();
        for (index, size) in sizes.iter().enumerate() {
            let (sentence, behind) = rest.split_at(*size);
            rest = behind;
            let translated = self.translated(&context, &plan, sentence).await;
            whole.push_str(&translated.translated_text);
            let item = Item { revision: 0, sentence: Some(told(translated)) };
            if index + 1 < sizes.len() {
                chunks.send(&item).await?;
                continue;
            }
            let figures = lexical(&plan, &request.text);
            let translated = Translated { translated_text: whole, alternatives: Vec::new(), ..figures };
            announce(&context, &plan, &request.text, &translated).await?;
            return chunks.finish(&item).await;
        }
        Ok(())
    }

    async fn detect(self: Arc<Self>, _: Context, request: Detect) -> Result<Detected, Fault> {
        check_text(&request.text)?;
        let lexicon = self.lexicon(&self.settings.now(), DOMAIN);
        let found = detect::detect(&lexicon, &request.text).into_iter();
        let detections =
            found.map(|(language, confidence)| Detection { language_code: language.code.to_owned(), confidence });
        Ok(Detected { detections: detections.collect() })
    }

    fn plan(&self, request: &Translate) -> Result<Plan, Fault> {
        check_text(&request.text)?;
        let source = match request.source_language.as_str() {
            "" => None,
            name => Some(known("source_language", name)?),
        };
        if source.is_some_and(|source| source.kind == Kind::Music) {
            return Err(unknown("source_language", "music can be translated into, and not from", false));
        }
        let target = known("target_language", &request.target_language)?;
        let domain = match request.domain.as_str() {
            "" => DOMAIN,
            name => DOMAINS
                .into_iter()
                .find(|domain| domain.eq_ignore_ascii_case(name))
                .ok_or_else(|| unknown_value("domain", "domain must be game, ui, dialogue or lore", &DOMAINS))?,
        };
        let skill = skill(&request.context)?;
        let settings = self.settings.now();
        let lexicon = self.lexicon(&settings, domain);
        let detected = || detect::detect(&lexicon, &request.text).first().map_or(Language::common(), |first| first.0);
        let source = source.unwrap_or_else(detected);
        let shown_source = shown(source, &[&request.source_language, &request.target_language]);
        Ok(Plan { settings, lexicon, source, target, domain, skill, shown_source })
    }

    async fn translated(&self, context: &Context, plan: &Plan, text: &str) -> Translated {
        let mut translated = lexical(plan, text);
        let is_for_people = plan.source.is_human() && plan.target.is_human();
        if plan.settings.language_system.text_llm
            && plan.settings.common.text.has_models()
            && is_for_people
            && is_poor(translated.coverage)
            && let Some(prose) = self.by_provider(context, plan, text).await
        {
            translated.translated_text = plan.skill.read(&prose);
            translated.confidence = (PROVIDER_CONFIDENCE * plan.skill.factor() * 1e4).round() / 1e4;
            translated.alternatives.clear();
        }
        translated
    }

    /// A provider's translation; the one of an earlier call where there is one.
    async fn by_provider(&self, context: &Context, plan: &Plan, text: &str) -> Option<String> {
        let tenant = tenant_part(context.tenant());
        let (source, target) = (plan.source, plan.target);
        let parts = [Part::Text("lang.prose.v1"), tenant, Part::Text(source.code), Part::Text(target.code)];
        let drawn = seed(&[&parts[..], &[Part::Text(text)]].concat());
        let place = key(&["_prose", context.tenant(), &format!("{drawn:016x}")]);
        if let Ok(Some(kept)) = self.contents.get_cached(context, &place).await {
            return Some(kept.value.template);
        }
        let prompt = format!(
            "Translate from {} to {}. Answer with the translation alone.\n\n{text}",
            source.human_name(),
            target.human_name()
        );
        let prose = prose::answer(context, &prompt, drawn).await?;
        let rule = |current: &Current<Content>| match &current.value {
            Some(kept) => Ok(Change::nothing(kept.template.clone())),
            None => Ok(Change::put(Content { template: prose.clone() }, prose.clone())
                .expires_at_ms(current.now_ms + PROSE_KEPT_MS)),
        };
        // Not to be kept is no reason not to be read.
        Some(self.contents.change(context, &place, rule).await.map_or_else(|_| prose.clone(), |done| done.reply))
    }

    /// The words of a domain, made anew after the settings have changed.
    fn lexicon(&self, settings: &Arc<Settings>, domain: &'static str) -> Arc<Lexicon> {
        let mut held = self.lexicons.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, lexicons) = match &mut *held {
            Some(held) if Arc::ptr_eq(&held.0, settings) => held,
            held => held.insert((settings.clone(), ByDomain::new())),
        };
        let made = || Arc::new(Lexicon::new(&settings.language_system, domain));
        lexicons.entry(domain).or_insert_with(made).clone()
    }
}

/// The translation by lexicon and rules alone.
fn lexical(plan: &Plan, text: &str) -> Translated {
    let detected_source_language = plan.shown_source.clone();
    if plan.source.is(plan.target) {
        let (translated_text, alternatives) = (text.to_owned(), Vec::new());
        return Translated { translated_text, detected_source_language, confidence: 1.0, alternatives, coverage: 1.0 };
    }
    let translation = translate::translate(&plan.lexicon, text, plan.source, plan.target);
    Translated {
        translated_text: translation.text(plan.skill),
        detected_source_language,
        confidence: plan.skill.confidence(translation.coverage),
        alternatives: translation.alternatives(plan.skill),
        coverage: translation.coverage,
    }
}

async fn announce(context: &Context, plan: &Plan, text: &str, translated: &Translated) -> Result<(), Fault> {
    let id = EventId::Text(context.request_id().to_owned());
    let notice = notice(context, COMPLETED, id, MESSAGE, translated)?
        .with("source", plan.source.code)
        .with("target", plan.target.code)
        .with("domain", plan.domain)
        .with("characters", text.chars().count().to_string());
    publish(context, notice).await;
    Ok(())
}

fn told(translated: Translated) -> Told {
    let Translated { translated_text, detected_source_language, confidence, alternatives, coverage } = translated;
    Told { meta: None, translated_text, detected_source_language, confidence, alternatives, error: None, coverage }
}

fn check_text(text: &str) -> Result<(), Fault> {
    if text.is_empty() {
        return Err(required("text"));
    }
    if text.chars().count() > TEXT_MAX {
        return Err(invalid("text", "too_long", format!("text has more than {TEXT_MAX} characters")));
    }
    Ok(())
}

/// The language that a field names.
fn known(field: &str, name: &str) -> Result<&'static Language, Fault> {
    if name.is_empty() {
        return Err(required(field));
    }
    Language::find(name)
        .ok_or_else(|| unknown(field, &format!("there is no language {name}"), field != "source_language"))
}

fn unknown(field: &str, message: &str, has_music: bool) -> Fault {
    let allowed = LANGUAGES.iter().filter(|language| has_music || language.kind != Kind::Music);
    unknown_value(field, message, &allowed.map(|language| language.code).collect::<Vec<_>>())
}

/// What a reply calls a language: by its code, and `common` to those who said so.
fn shown(language: &Language, said: &[&str]) -> String {
    let says_common = said.iter().any(|name| name.eq_ignore_ascii_case("common"));
    let is_common = language.is(Language::common()) && says_common;
    (if is_common { "common" } else { language.code }).to_owned()
}

fn skill(context: &BTreeMap<String, String>) -> Result<Skill, Fault> {
    const FIELD: &str = "context.skill_level";
    texts("context", context)?;
    let Some(text) = context.get("skill_level") else { return Ok(Skill::new(1.0)) };
    match text.trim().parse::<f64>() {
        Ok(level) if (0.0..=1.0).contains(&level) => Ok(Skill::new(level)),
        Ok(_) => Err(out_of_range(FIELD, 0, 1)),
        Err(_) => Err(invalid(FIELD, "bad_format", format!("{FIELD} must be a number"))),
    }
}
