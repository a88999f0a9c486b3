//! Networks by address and prefix: whose word about clients counts.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A set of addresses: single ones, and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// True where an address is in one of them. IPv4 in the clothes of IPv6 (`::ffff:10.0.0.1`) is IPv4. The unspecified
    /// address is nobody's, and so in none.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !address.is_unspecified() && self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Networks {
        Networks(networks.into_iter().collect())
    }
}

/// Reads `10.0.0.0/8`, `fd00::/8`, `192.0.2.7`.
pub fn network(text: &str) -> Result<IpNet, String> {
    let single = IpAddr::from_str(text).map(|address| IpNet::from(address.to_canonical()));
    single
        .or_else(|_| IpNet::from_str(text).map(canonical))
        .map_err(|_| format!("`{text}` is no address and no network: expected one such as 192.0.2.7 or 10.0.0.0/8"))
}

/// A network of IPv4 addresses in the clothes of IPv6 (`::ffff:10.0.0.0/104`) as one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let v4 = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    v4.and_then(|(address, prefix)| IpNet::new(address.into(), prefix).ok()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_trusted_even_where_everybody_is() {
        let everybody: Networks = ["0.0.0.0/0", "::/0"].map(|text| network(text).unwrap()).into_iter().collect();
        for (address, is_in) in
            [("192.0.2.7", true), ("fe80::1", true), ("0.0.0.0", false), ("::", false), ("::ffff:0.0.0.0", false)]
        {
            assert_eq!(everybody.contain(address.parse().unwrap()), is_in, "{address}");
        }
    }

    #[test]
    fn addresses_and_networks_of_both_kinds() {
        let networks: Networks =
            ["10.1.2.3/8", "192.0.2.7", "fd00::/8", "::ffff:198.51.100.1", "::ffff:203.0.113.0/120"]
                .map(|text| network(text).unwrap())
                .into_iter()
                .collect();
        for (address, is_in) in [
            ("10.200.0.1", true),
            ("::ffff:10.200.0.1", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd12::1", true),
            ("fe80::1", false),
            ("198.51.100.1", true),
            ("203.0.113.9", true),
            ("203.0.114.9", false),
        ] {
            assert_eq!(networks.contain(address.parse().unwrap()), is_in, "{address}");
        }
        for text in ["", "10.0.0.0/33", "proxy", "10.0.0/8"] {
            let expected =
                format!("`{text}` is no address and no network: expected one such as 192.0.2.7 or 10.0.0.0/8");
            assert_eq!(network(text), Err(expected));
        }
    }
}
