//! Ranges of addresses in settings.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr, str::FromStr};

/// Addresses with a common beginning: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    first: IpAddr,
    prefix_bits: u32,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNetwork {
    #[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
    Unreadable(String),
    #[error("{given} is not the beginning of a network: did you mean {network}?")]
    NotItsFirst { given: String, network: Network },
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.first.is_ipv4() == address.is_ipv4() && masked(address, self.prefix_bits) == self.first
    }
}

fn bits(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with zeros behind its first bits.
fn masked(address: IpAddr, prefix_bits: u32) -> IpAddr {
    let rest = bits(address).saturating_sub(prefix_bits);
    match address {
        IpAddr::V4(ip) => IpAddr::V4((ip.to_bits() & u32::MAX.checked_shl(rest).unwrap_or(0)).into()),
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & u128::MAX.checked_shl(rest).unwrap_or(0)).into()),
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let unreadable = || BadNetwork::Unreadable(text.to_owned());
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| unreadable())?;
        // Peers are compared as what they are: an IPv4 address in IPv6 clothes would never match.
        let mapped = address.to_canonical() != address;
        let prefix_bits = prefix.map_or(Ok(bits(address)), str::parse).map_err(|_| unreadable())?;
        if mapped || prefix_bits > bits(address) {
            return Err(unreadable());
        }
        let network = Self { first: masked(address, prefix_bits), prefix_bits };
        if network.first == address {
            Ok(network)
        } else {
            Err(BadNetwork::NotItsFirst { given: text.to_owned(), network })
        }
    }
}

impl TryFrom<String> for Network {
    type Error = BadNetwork;

    fn try_from(text: String) -> Result<Self, BadNetwork> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix_bits == bits(self.first) {
            self.first.fmt(f)
        } else {
            write!(f, "{}/{}", self.first, self.prefix_bits)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_a_network_that_begins_like_it() {
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("192.0.2.0/25", "192.0.2.127") && !contains("192.0.2.0/25", "192.0.2.128"));
        assert!(contains("192.0.2.1", "192.0.2.1") && !contains("192.0.2.1", "192.0.2.2"));
        assert!(contains("0.0.0.0/0", "203.0.113.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "2001:db8::1") && !contains("::/0", "203.0.113.1"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.7"), "as a listener for both families sees it");
    }

    #[test]
    fn what_is_no_network_is_refused_and_a_slip_is_pointed_out() {
        for text in
            ["", "db1", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "10.0.0.0/-1", "::/129", "::ffff:10.0.0.1", "1/2/3"]
        {
            assert_eq!(text.parse::<Network>(), Err(BadNetwork::Unreadable(text.into())), "{text}");
        }
        let told = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert_eq!(told, "10.1.2.3/8 is not the beginning of a network: did you mean 10.0.0.0/8?");
    }

    proptest! {
        #[test]
        fn a_network_is_read_back_and_contains_its_own(address: IpAddr, prefix_bits in 0_u32..=128) {
            let address = address.to_canonical();
            let prefix_bits = prefix_bits.min(bits(address));
            let network = Network { first: masked(address, prefix_bits), prefix_bits };
            prop_assume!(network.first == network.first.to_canonical());
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            prop_assert!(network.contains(address));
        }
    }
}
