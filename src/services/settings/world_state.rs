//! Section `world-state`.

use super::Keys;

/// Worlds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldState {
    /// The ticker of the simulation runs.
    pub simulation_enabled: bool,
}

impl WorldState {
    pub(super) fn read(keys: &mut Keys) -> WorldState {
        let simulation = keys.key("simulation", "the simulation of worlds");
        WorldState {
            simulation_enabled: simulation.section(|keys| keys.key("enabled", "its ticker runs").truth(false)),
        }
    }
}
