//! The roster: a file a service, each a row of methods over plain structs. A service knows its context and its store,
//! and neither HTTP nor the bus nor another service.

mod ai_integration;
mod ai_router;
mod background;
pub mod buckets;
mod capabilities;
mod capability_registry;
mod checks;
pub mod events;
mod model_management;
mod notices;
mod paging;
mod performance_mode;
mod player_settings;
mod priorities;
mod quest_system;
mod seed;
pub mod settings;
mod state_manager;
mod text;
mod time_manager;
mod weather_manager;
mod world_state;

use crate::fault::Fault;
use crate::store::Store;
use crate::worker::Service;

pub use settings::{LiveSettings, Settings};

/// Version that the services say in discovery.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// All services on one store, which gets their buckets and logs where it has none yet; without those that
/// `common.without` names.
pub async fn roster(store: &Store, settings: &LiveSettings) -> Result<Vec<Service>, Fault> {
    events::provide(store).await?;
    let mut services = vec![
        ai_integration::service(store, settings).await?,
        state_manager::service(store).await?,
        quest_system::service(store).await?,
        player_settings::service(store, settings).await?,
        performance_mode::service(store, settings).await?,
        model_management::service(store, settings).await?,
        ai_router::service(),
        capability_registry::service(store, settings).await?,
        time_manager::service(store, settings).await?,
        weather_manager::service(store, settings).await?,
        world_state::service(store, settings).await?,
    ];
    let without = &settings.now().common.without;
    services.retain(|service| !without.iter().any(|name| name == service.name()));
    Ok(services)
}
