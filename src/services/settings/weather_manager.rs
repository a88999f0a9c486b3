//! Section `weather-manager`.

use super::Keys;

/// Weather.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeatherManager {
    /// The season is read from time-manager at the first use of a world; off = spring until a day event says otherwise.
    pub ask_time: bool,
}

impl WeatherManager {
    pub(super) fn read(keys: &mut Keys) -> WeatherManager {
        let key = keys.key("ask_time", "read the season from time-manager at the first use of a world");
        WeatherManager { ask_time: key.truth(true) }
    }
}
