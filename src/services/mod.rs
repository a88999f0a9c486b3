//! The roster: a file a service, each a row of methods over plain structs. A service knows its context and its store,
//! and neither HTTP nor the bus nor another service.

mod ai_integration;
mod ai_router;
mod auth;
mod background;
mod body_broker_integration;
pub mod buckets;
mod capabilities;
mod capability_registry;
mod checks;
mod common;
mod environmental_narrative;
mod event_bus;
pub mod events;
mod knowledge_base;
mod language_system;
mod model_management;
mod notices;
mod npc_behavior;
mod numbers;
mod orchestration;
mod paging;
mod payment;
mod performance_mode;
mod player_settings;
mod priorities;
mod prose;
mod quest_system;
mod registration;
mod router;
mod seed;
pub mod settings;
mod state_manager;
mod story_teller;
mod text;
mod time_manager;
mod weather_manager;
mod words;
mod world_state;

use crate::fault::Fault;
use crate::store::Store;
use crate::worker::Service;

pub use settings::{LiveSettings, Settings};

/// Version that the services say in discovery.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The roster: each service's name and its room. A room opens what its service keeps, and nothing else.
macro_rules! roster {
    ($($name:literal => $room:ident,)*) => {
        /// Names of the services that there are.
        pub const ROSTER: &[&str] = &[$($name,)*];

        /// The services that are wanted, on one store, which gets their buckets where it has none yet; the logs of
        /// their events as well, where there is any service at all.
        pub async fn roster(
            store: &Store,
            settings: &LiveSettings,
            is_wanted: impl Fn(&str) -> bool,
        ) -> Result<Vec<Service>, Fault> {
            if ROSTER.iter().any(|name| is_wanted(name)) {
                events::provide(store).await?;
            }
            let mut services = Vec::new();
            $(if is_wanted($name) {
                let service = $room::service(store, settings).await?;
                let registers = settings.now().common.register;
                services.push(if registers { registration::registered(service) } else { service });
            })*
            Ok(services)
        }
    };
}

roster! {
    "ai-integration" => ai_integration,
    "model-management" => model_management,
    "state-manager" => state_manager,
    "quest-system" => quest_system,
    "npc-behavior" => npc_behavior,
    "orchestration" => orchestration,
    "router" => router,
    "event-bus" => event_bus,
    "settings" => player_settings,
    "performance-mode" => performance_mode,
    "capability-registry" => capability_registry,
    "ai-router" => ai_router,
    "world-state" => world_state,
    "body-broker-integration" => body_broker_integration,
    "weather-manager" => weather_manager,
    "time-manager" => time_manager,
    "payment" => payment,
    "auth" => auth,
    "knowledge-base" => knowledge_base,
    "language-system" => language_system,
    "environmental-narrative" => environmental_narrative,
    "story-teller" => story_teller,
}
