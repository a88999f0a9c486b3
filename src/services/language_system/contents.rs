//! Contents in several languages: their templates, stored or built in, and what was rendered of them a while ago.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::lexicon::Language;
use super::template::Template;
use super::{Languages, known, shown};
use crate::fault::{Code, Fault};
use crate::services::checks::{id, invalid, required, texts};
use crate::store::key;
use crate::worker::records::{Change, Current};
use crate::worker::{Context, Rule};

/// Longest template in bytes.
const TEMPLATE_MAX: usize = 64 * 1024;
/// Largest content with its variables that is worth remembering, in bytes.
const REMEMBERED_MAX: usize = 16 * 1024;
/// Contents that are there without being stored: id, and the template in English, French, Spanish and Italian.
const BUILT_IN: &[(&str, [&str; 4])] = &[
    (
        "ui.welcome",
        ["Welcome, {name}.", "Bienvenue, {name}.", "Te damos la bienvenida, {name}.", "Ti diamo il benvenuto, {name}."],
    ),
    (
        "ui.coins",
        [
            "{count, plural, one{# coin} other{# coins}}",
            "{count, plural, one{# pièce} other{# pièces}}",
            "{count, plural, one{# moneda} other{# monedas}}",
            "{count, plural, one{# moneta} other{# monete}}",
        ],
    ),
    (
        "deal.accepted",
        [
            "{family} accepts: {quantity} {drug}.",
            "{family} accepte : {quantity} {drug}.",
            "{family} acepta: {quantity} {drug}.",
            "{family} accetta: {quantity} {drug}.",
        ],
    ),
    (
        "death.notice",
        [
            "You died. The veil frays: {penalty}.",
            "Vous êtes mort. Le voile s’effiloche : {penalty}.",
            "Has muerto. El velo se deshilacha: {penalty}.",
            "Sei morto. Il velo si sfilaccia: {penalty}.",
        ],
    ),
];
/// Languages of the built-in templates.
const BUILT_IN_CODES: [&str; 4] = ["en", "fr", "es", "it"];

#[derive(Serialize, Deserialize)]
pub(super) struct Localize {
    content_id: String,
    target_language: String,
    variables: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Localized {
    localized_content: String,
    from_cache: bool,
    language_used: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct PutContent {
    content_id: String,
    language: String,
    template: String,
}

/// What the store holds of a content in a language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) template: String,
}

/// Tenant, content, language, revision of the template, variables.
type Rendering = (String, String, &'static str, u64, BTreeMap<String, String>);

/// Contents that this replica has rendered, the oldest first.
#[derive(Default)]
pub(super) struct Rendered(Mutex<(HashMap<Rendering, String>, VecDeque<Rendering>)>);

impl Rendered {
    fn get(&self, rendering: &Rendering) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.get(rendering).cloned()
    }

    /// Remembers a content, and forgets the oldest ones beyond `max`.
    fn put(&self, rendering: Rendering, content: &str, max: usize) {
        let size: usize = rendering.4.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size + content.len() > REMEMBERED_MAX || max == 0 {
            return;
        }
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (contents, order) = &mut *held;
        if contents.insert(rendering.clone(), content.to_owned()).is_none() {
            order.push_back(rendering);
        }
        while order.len() > max {
            if let Some(oldest) = order.pop_front() {
                contents.remove(&oldest);
            }
        }
    }
}

impl Languages {
    pub(super) async fn localize(self: Arc<Self>, context: Context, request: Localize) -> Result<Localized, Fault> {
        id("content_id", &request.content_id)?;
        let target = known("target_language", &request.target_language)?;
        texts("variables", &request.variables)?;
        let mut found = self.template(&context, &request.content_id, target).await?;
        let mut used = target;
        if found.is_none() && !target.is(Language::common()) {
            used = Language::common();
            found = self.template(&context, &request.content_id, used).await?;
            if found.is_some() {
                context.label("fallback_language", used.code);
            }
        }
        let Some((template, revision)) = found else {
            let text = format!("no content {}", request.content_id);
            return Err(Fault::client(Code::NotFound, text).detail("field", "content_id"));
        };
        let language_used = shown(used, &[&request.target_language]);
        let rendering = (context.tenant().to_owned(), request.content_id, used.code, revision, request.variables);
        if let Some(localized_content) = self.rendered.get(&rendering) {
            return Ok(Localized { localized_content, from_cache: true, language_used });
        }
        let template = Template::parse(&template)
            .map_err(|text| Fault::ours(Code::Internal, "a stored template cannot be read").internal(text))?;
        let localized_content = template.render(used.code, &rendering.4)?;
        let max = self.settings.now().language_system.render_cache;
        self.rendered.put(rendering, &localized_content, max);
        Ok(Localized { localized_content, from_cache: false, language_used })
    }

    /// A content's template in a language, and its revision; 0 of those that are built in.
    async fn template(
        &self,
        context: &Context,
        content_id: &str,
        language: &Language,
    ) -> Result<Option<(String, u64)>, Fault> {
        let place = key(&[context.tenant(), content_id, language.code]);
        if let Some(found) = self.contents.get_cached(context, &place).await? {
            return Ok(Some((found.value.template, found.revision)));
        }
        Ok(built_in(content_id, language).map(|template| (template.to_owned(), 0)))
    }
}

/// A template under its content and the code of its language, whatever the request calls that.
pub(super) fn put_content(_: Context, request: PutContent) -> Result<(Vec<String>, impl Rule<Content, ()>), Fault> {
    id("content_id", &request.content_id)?;
    let language = known("language", &request.language)?;
    if request.template.is_empty() {
        return Err(required("template"));
    }
    if request.template.len() > TEMPLATE_MAX {
        let text = format!("template has more than {TEMPLATE_MAX} bytes");
        return Err(invalid("template", "too_long", text));
    }
    Template::parse(&request.template).map_err(|text| invalid("template", "bad_format", text))?;
    let after = Content { template: request.template };
    let rule = move |current: &Current<Content>| {
        Ok(match current.value.as_ref() == Some(&after) {
            true => Change::nothing(()),
            false => Change::put(after.clone(), ()),
        })
    };
    Ok((vec![request.content_id, language.code.to_owned()], rule))
}

fn built_in(content_id: &str, language: &Language) -> Option<&'static str> {
    let (_, templates) = BUILT_IN.iter().find(|row| row.0 == content_id)?;
    let column = BUILT_IN_CODES.iter().position(|code| *code == language.code)?;
    Some(templates[column])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_template_can_be_read() {
        for (content_id, templates) in BUILT_IN {
            for template in templates {
                assert!(Template::parse(template).is_ok(), "{content_id}: {template}");
            }
        }
        let french = Language::find("fr").unwrap();
        assert_eq!(built_in("ui.coins", french), Some("{count, plural, one{# pièce} other{# pièces}}"));
        assert_eq!(built_in("ui.coins", Language::find("lich").unwrap()), None);
    }

    #[test]
    fn the_oldest_rendering_is_forgotten_first() {
        let rendering = |name: &str, revision| (String::new(), name.to_owned(), "en", revision, BTreeMap::new());
        let rendered = Rendered::default();
        for name in ["a", "b", "a", "c"] {
            rendered.put(rendering(name, 1), name, 2);
        }
        let held = ["a", "b", "c"].map(|name| rendered.get(&rendering(name, 1)));
        assert_eq!(held, [None, Some("b".to_owned()), Some("c".to_owned())]);
        assert_eq!(rendered.get(&rendering("b", 2)), None);
        rendered.put(rendering("large", 1), &"x".repeat(REMEMBERED_MAX + 1), 2);
        rendered.put(rendering("off", 1), "off", 0);
        assert_eq!(["large", "off"].map(|name| rendered.get(&rendering(name, 1))), [None, None]);
    }
}
