//! Section `body-broker-integration`.

use super::Keys;

/// The player's trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyBrokerIntegration {
    /// Offers need owned parts.
    pub strict_inventory: bool,
    /// Completed deals credit the drug in payment.
    pub credit_wallet: bool,
}

impl BodyBrokerIntegration {
    pub(super) fn read(keys: &mut Keys) -> BodyBrokerIntegration {
        BodyBrokerIntegration {
            strict_inventory: keys.key("strict_inventory", "offers need owned parts").truth(false),
            credit_wallet: keys.key("credit_wallet", "completed deals credit the drug in payment").truth(false),
        }
    }
}
