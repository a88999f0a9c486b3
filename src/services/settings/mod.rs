//! `services.yaml`: one section a service, and `common`. Each key is one line of its section's `read`, from which come
//! its value, its default, its problems and its place in the JSON Schema. Services read their section once a call.

mod ai_integration;
mod auth;
mod body_broker_integration;
mod capability_registry;
mod common;
mod environmental_narrative;
mod event_bus;
mod knowledge_base;
mod language_system;
mod live;
mod model_management;
mod npc_behavior;
mod orchestration;
mod payment;
mod performance_mode;
mod player_settings;
mod quest_system;
mod router;
mod story_teller;
mod time_manager;
mod weather_manager;
mod workflows;
mod world_state;

use std::time::Duration;

use crate::written::problem::{Place, Problem};
use crate::written::{Keys, Node, Pinned, Report, Secret, SecretReader, SecretSource, Tree, read};

pub use ai_integration::{AiIntegration, Batch, TierSettings};
pub use auth::Auth;
pub use body_broker_integration::BodyBrokerIntegration;
pub use capability_registry::CapabilityRegistry;
pub use common::{Breaker, Common, Provider, ProviderKind, TextSettings};
pub use environmental_narrative::EnvironmentalNarrative;
pub use event_bus::EventBus;
pub use knowledge_base::{KnowledgeBase, Vectors};
pub use language_system::{Concept, LanguageSystem};
pub use live::LiveSettings;
pub use model_management::{ModelManagement, ModelRow};
pub use npc_behavior::NpcBehavior;
pub use orchestration::Orchestration;
pub use payment::{Coupon, CouponCode, Discount, Payment};
pub use performance_mode::PerformanceMode;
pub use player_settings::{Flag, PlayerSettings, UnknownKeys};
pub use quest_system::QuestSystem;
pub use router::Router;
pub use story_teller::StoryTeller;
pub use time_manager::{GameTime, TimeManager};
pub use weather_manager::WeatherManager;
pub use workflows::workflow_files;
pub use world_state::WorldState;

/// Names of all services, which are the sections' names too.
pub const NAMES: [&str; 22] = [
    "ai-integration",
    "model-management",
    "state-manager",
    "quest-system",
    "npc-behavior",
    "world-state",
    "orchestration",
    "router",
    "event-bus",
    "time-manager",
    "weather-manager",
    "auth",
    "settings",
    "payment",
    "performance-mode",
    "capability-registry",
    "ai-router",
    "knowledge-base",
    "language-system",
    "environmental-narrative",
    "story-teller",
    "body-broker-integration",
];

/// What services can be told. [`Settings::default`] needs no file, and nothing outside of this process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What holds for all services.
    pub common: Common,
    /// Section `ai-integration`.
    pub ai_integration: AiIntegration,
    /// Section `model-management`.
    pub model_management: ModelManagement,
    /// Section `quest-system`.
    pub quest_system: QuestSystem,
    /// Section `npc-behavior`.
    pub npc_behavior: NpcBehavior,
    /// Section `world-state`.
    pub world_state: WorldState,
    /// Section `orchestration`.
    pub orchestration: Orchestration,
    /// Section `router`.
    pub router: Router,
    /// Section `event-bus`.
    pub event_bus: EventBus,
    /// Section `time-manager`.
    pub time_manager: TimeManager,
    /// Section `weather-manager`.
    pub weather_manager: WeatherManager,
    /// Section `auth`.
    pub auth: Auth,
    /// Section `settings`: the players' settings.
    pub settings: PlayerSettings,
    /// Section `payment`.
    pub payment: Payment,
    /// Section `performance-mode`.
    pub performance_mode: PerformanceMode,
    /// Section `capability-registry`.
    pub capability_registry: CapabilityRegistry,
    /// Section `knowledge-base`.
    pub knowledge_base: KnowledgeBase,
    /// Section `language-system`.
    pub language_system: LanguageSystem,
    /// Section `environmental-narrative`.
    pub environmental_narrative: EnvironmentalNarrative,
    /// Section `story-teller`.
    pub story_teller: StoryTeller,
    /// Section `body-broker-integration`.
    pub body_broker_integration: BodyBrokerIntegration,
    /// What only a restart changes.
    pinned: Vec<Pinned>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::of_tree("", &nothing(), None).0
    }
}

impl Settings {
    /// Reads a file's text; everything wrong with it at once. Secrets are checked for their form, and not read.
    pub fn parse(file: &str, text: &str) -> Result<Settings, Vec<Problem>> {
        Settings::parse_with(file, text, None)
    }

    /// The defaults with single keys changed, by path: `ai-integration.tiers.T1.parallel` to a JSON value. The same
    /// checks as for a file hold; problems name the path as their file.
    pub fn with<'p>(
        keys: impl IntoIterator<Item = (&'p str, &'p serde_json::Value)>,
    ) -> Result<Settings, Vec<Problem>> {
        let mut root = nothing();
        let mut names = Vec::new();
        for (line, (path, value)) in keys.into_iter().enumerate() {
            let place = (line + 1, 1);
            root.put(&path.split('.').collect::<Vec<_>>(), Tree::of_json(value, place));
            names.push(path);
        }
        let (settings, mut problems) = Settings::of_tree("", &root, None);
        for problem in &mut problems {
            let name = names.get(problem.place.line - 1).copied().unwrap_or_default();
            problem.place = Place::new(name, 1, 1);
        }
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// The file's JSON Schema, for editors.
    pub fn json_schema() -> String {
        let (_, mut schema) = Report::new("", None).read(&nothing(), Settings::read);
        schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
        schema["title"] = "services.yaml of tidegate".into();
        serde_json::to_string_pretty(&schema).unwrap_or_default()
    }

    fn parse_with(file: &str, text: &str, secrets: Option<SecretReader>) -> Result<Settings, Vec<Problem>> {
        let root = read::<Tree>(file, text).map_err(|problem| vec![problem])?.unwrap_or_else(nothing);
        let (settings, problems) = Settings::of_tree(file, &root, secrets);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// Where the secrets are that a text names.
    fn secrets_of(file: &str, text: &str) -> Vec<SecretSource> {
        let Ok(Some(root)) = read::<Tree>(file, text) else { return Vec::new() };
        let mut report = Report::new(file, None);
        report.read(&root, Settings::read);
        report.secret_sources
    }

    fn of_tree(file: &str, root: &Tree, secrets: Option<SecretReader>) -> (Settings, Vec<Problem>) {
        let mut report = Report::new(file, secrets);
        let (mut settings, _) = report.read(root, Settings::read);
        settings.pinned = report.pinned;
        (settings, report.problems)
    }

    fn read(keys: &mut Keys) -> Settings {
        // Two services have no keys of their own; their sections may stand there all the same.
        keys.key("state-manager", "no keys of its own").section(|_| ());
        keys.key("ai-router", "no keys of its own").section(|_| ());
        let settings = Settings {
            common: keys.key("common", "all services").section(Common::read),
            ai_integration: keys.key("ai-integration", "text generation").section(AiIntegration::read),
            model_management: keys.key("model-management", "the registry of models").section(ModelManagement::read),
            quest_system: keys.key("quest-system", "quests").section(QuestSystem::read),
            npc_behavior: keys.key("npc-behavior", "plans of characters").section(NpcBehavior::read),
            world_state: keys.key("world-state", "worlds").section(WorldState::read),
            orchestration: keys.key("orchestration", "workflows").section(Orchestration::read),
            router: keys.key("router", "calls by name").section(Router::read),
            event_bus: keys.key("event-bus", "events of callers").section(EventBus::read),
            time_manager: keys.key("time-manager", "game time").section(TimeManager::read),
            weather_manager: keys.key("weather-manager", "weather").section(WeatherManager::read),
            auth: keys.key("auth", "sessions and shared limits").section(Auth::read),
            settings: keys.key("settings", "the players' settings").section(PlayerSettings::read),
            payment: keys.key("payment", "wallets and coupons").section(Payment::read),
            performance_mode: keys.key("performance-mode", "modes of performance").section(PerformanceMode::read),
            capability_registry: keys
                .key("capability-registry", "which services are there")
                .section(CapabilityRegistry::read),
            knowledge_base: keys.key("knowledge-base", "documents and search").section(KnowledgeBase::read),
            language_system: keys.key("language-system", "languages").section(LanguageSystem::read),
            environmental_narrative: keys
                .key("environmental-narrative", "what places tell")
                .section(EnvironmentalNarrative::read),
            story_teller: keys.key("story-teller", "stories").section(StoryTeller::read),
            body_broker_integration: keys
                .key("body-broker-integration", "the player's trade")
                .section(BodyBrokerIntegration::read),
            pinned: Vec::new(),
        };
        let text = &settings.common.text;
        let is_known = |name: &str| name == Provider::built_in().name || text.provider(name).is_some();
        if let Some((model, name)) = settings.ai_integration.models.iter().find(|(_, name)| !is_known(name)) {
            let problem = format!("`models` sends `{model}` to `{name}`, which `common.text.providers` does not have");
            keys.problem("ai-integration", problem);
        }
        settings
    }

    /// The values that differ from those in force although only a restart can change them.
    fn refused_changes(&self, file: &str, in_force: &Settings) -> Vec<Problem> {
        let changed = self
            .pinned
            .iter()
            .filter(|new| in_force.pinned.iter().any(|old| old.path == new.path && old.value != new.value));
        let problem = |new: &Pinned| {
            Problem::new(Place::new(file, new.place.0, new.place.1), format!("`{}` needs a restart", new.path))
                .hint("restart this process, or set it back to the value in force")
        };
        changed.map(problem).collect()
    }
}

/// An empty file.
fn nothing() -> Tree {
    Tree { place: (1, 1), node: Node::Nothing }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// `text.llm` of the services that write prose.
fn llm(keys: &mut Keys) -> bool {
    keys.key("text", "prose").section(|keys| keys.key("llm", "prose by `svc.ai.llm.v1.infer`").truth(false))
}
