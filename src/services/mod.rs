//! The roster: a file a service, each a row of methods over plain structs. A service knows its context and its store,
//! and neither HTTP nor the bus nor another service.

mod ai_integration;
pub mod buckets;
mod checks;
pub mod events;
mod notices;
mod paging;
mod quest_system;
mod seed;
mod state_manager;
mod text;

use crate::fault::Fault;
use crate::store::Store;
use crate::worker::Service;

pub use text::TextEndpoint;

/// Version that the services say in discovery.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What services can be told; the default needs nothing outside of this process.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where generated text comes from; the built-in engine without it, and where it fails.
    pub text: Option<TextEndpoint>,
}

/// All services on one store, which gets their buckets and logs where it has none yet.
pub async fn roster(store: &Store, settings: &Settings) -> Result<Vec<Service>, Fault> {
    events::provide(store).await?;
    Ok(vec![
        ai_integration::service(store, settings).await?,
        state_manager::service(store).await?,
        quest_system::service(store).await?,
    ])
}
