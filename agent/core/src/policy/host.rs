//! Which destinations a pattern means: names, `*.suffix`, addresses, networks, each with an optional port.
//! It refuses to take a name on the workload's word: a claimed name reaches rules that restrict, never rules that admit.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::destination::{Destination, Evidence};

/// One entry of `host:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPattern {
    pub(super) host: Host,
    pub(super) port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Host {
    Any,
    Name(String),
    /// With the leading dot: any name below it, at any depth, not the name itself.
    Below(String),
    Address(IpAddr),
    Network(IpAddr, u8),
}

/// How well it is known that a connection goes where a pattern says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    No,
    Claimed,
    LookedUp,
    Certificate,
    /// The address itself is in the pattern.
    Address,
}

impl Reach {
    pub(super) fn admits(self) -> bool {
        self > Reach::Claimed
    }

    pub(super) fn restricts(self) -> bool {
        self > Reach::No
    }
}

impl HostPattern {
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn new(text: &str) -> Result<HostPattern, String> {
        let (host, port) = split_port(text)?;
        let host = Host::new(host)?;
        Ok(HostPattern { host, port })
    }

    pub(super) fn reach(&self, destination: &Destination, request_host: Option<&str>) -> Reach {
        if self.port.is_some_and(|port| port != destination.port()) {
            return Reach::No;
        }
        match &self.host {
            Host::Any => Reach::Address,
            Host::Address(address) if *address == destination.ip() => Reach::Address,
            Host::Network(network, bits) if contains(*network, *bits, destination.ip()) => Reach::Address,
            Host::Address(_) | Host::Network(..) => Reach::No,
            Host::Name(_) | Host::Below(_) => self.host.named(destination, request_host),
        }
    }

    /// A literal address with a port of its own: what a credential may go to without a certificate.
    pub(super) fn is_literal(&self) -> bool {
        matches!(self.host, Host::Address(_)) && self.port.is_some()
    }
}

impl Host {
    fn new(text: &str) -> Result<Host, String> {
        if text == "*" {
            return Ok(Host::Any);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Host::Address(address.to_canonical()));
        }
        if let Some((network, bits)) = text.split_once('/') {
            return network_of(network, bits)
                .ok_or_else(|| alloc::format!("{text:?} is no network: write ADDRESS/BITS"));
        }
        let name = text.trim_end_matches('.').to_ascii_lowercase();
        let (below, plain) = match name.strip_prefix('*') {
            Some(rest) if rest.starts_with('.') => (true, rest.trim_start_matches('.')),
            Some(_) => {
                return Err(alloc::format!("{text:?}: `*` stands only in front, as in \"*.example.com\""));
            }
            None => (false, name.as_str()),
        };
        let sound = !plain.is_empty()
            && plain.len() <= 253
            && plain.split('.').all(|label| !label.is_empty() && label.len() <= 63)
            && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !sound {
            return Err(alloc::format!(
                "{text:?} is no host: write a name, \"*.name\", an address or a network"
            ));
        }
        // `10.1` and `1.2.3.4.5` look like addresses that would never match.
        if plain.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(alloc::format!("{text:?} is neither a name nor a whole address"));
        }
        Ok(if below { Host::Below(alloc::format!(".{plain}")) } else { Host::Name(plain.to_string()) })
    }

    /// The exact name, where the pattern is one.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Host::Name(name) => Some(name),
            Host::Any | Host::Below(_) | Host::Address(_) | Host::Network(..) => None,
        }
    }

    /// Some destination in the pattern.
    pub(super) fn sample(&self) -> String {
        match self {
            Host::Any => String::from("192.0.2.1"),
            Host::Name(name) => name.clone(),
            Host::Below(suffix) => alloc::format!("sample{suffix}"),
            Host::Address(address) | Host::Network(address, _) => address.to_string(),
        }
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        match self {
            Host::Name(own) => own == name,
            Host::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Host::Any => true,
            Host::Address(own) => name.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == *own),
            Host::Network(network, bits) => {
                name.parse::<IpAddr>().is_ok_and(|address| contains(*network, *bits, address.to_canonical()))
            }
        }
    }

    /// An HTTP request is for the name in its Host field, so another name of the same address does not admit it;
    /// a Host field that repeats the address is for whatever the address is.
    fn named(&self, destination: &Destination, request_host: Option<&str>) -> Reach {
        let asked = request_host.filter(|host| {
            !host.is_empty() && host.parse::<IpAddr>().map(|ip| ip.to_canonical()) != Ok(destination.ip())
        });
        let mut reach = Reach::No;
        for name in destination.names().iter().filter(|name| self.is_name(&name.host)) {
            let proved = asked.is_none_or(|asked| asked.eq_ignore_ascii_case(&name.host));
            reach = reach.max(match name.evidence {
                Evidence::LookedUp if proved => Reach::LookedUp,
                Evidence::Certificate if proved => Reach::Certificate,
                Evidence::LookedUp | Evidence::Certificate | Evidence::Claimed => Reach::Claimed,
            });
        }
        match asked {
            Some(asked) if self.is_name(&asked.to_ascii_lowercase()) => reach.max(Reach::Claimed),
            Some(_) | None => reach,
        }
    }
}

/// The best that any of the patterns says.
pub(super) fn best(patterns: &[HostPattern], destination: &Destination, request_host: Option<&str>) -> Reach {
    patterns.iter().map(|pattern| pattern.reach(destination, request_host)).max().unwrap_or(Reach::No)
}

fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let bad = || alloc::format!("{text:?}: the port is a number from 1 to 65535");
    let port = |digits: &str| digits.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(bad);
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(alloc::format!("{text:?}: `]` is missing"));
        };
        return match after.strip_prefix(':') {
            Some(digits) => Ok((host, Some(port(digits)?))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(bad()),
        };
    }
    match text.split_once(':') {
        // More than one colon and no brackets: a bare IPv6 address or network.
        Some((host, digits)) if !digits.contains(':') => Ok((host, Some(port(digits)?))),
        Some(_) | None => Ok((text, None)),
    }
}

fn network_of(network: &str, bits: &str) -> Option<Host> {
    let address = network.parse::<IpAddr>().ok()?;
    let bits = bits.parse::<u8>().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    (bits <= width).then_some(Host::Network(address, bits))
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

/// Exact names among the patterns, for the rim to look up.
pub(super) fn names(patterns: &[HostPattern]) -> Vec<&str> {
    patterns.iter().filter_map(|pattern| pattern.host.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &str, names: &[(&str, Evidence)]) -> Destination {
        let mut destination = Destination::new(address.parse().unwrap());
        names.iter().for_each(|(name, evidence)| destination.learn(name, *evidence));
        destination
    }

    fn reach(pattern: &str, destination: &Destination) -> Reach {
        HostPattern::new(pattern).unwrap().reach(destination, None)
    }

    #[test]
    fn addresses_networks_and_ports() {
        let to4 = to("10.1.2.3:5432", &[]);
        assert_eq!(reach("10.1.2.3", &to4), Reach::Address);
        assert_eq!(reach("10.1.2.3:5433", &to4), Reach::No);
        assert_eq!(reach("10.0.0.0/8", &to4), Reach::Address);
        assert_eq!(reach("11.0.0.0/8", &to4), Reach::No);
        assert_eq!(reach("0.0.0.0/0", &to4), Reach::Address);
        assert_eq!(reach("::ffff:10.1.2.3", &to4), Reach::Address);
        let to6 = to("[2001:db8::7]:443", &[]);
        assert_eq!(reach("[2001:db8::7]:443", &to6), Reach::Address);
        assert_eq!(reach("2001:db8::/32", &to6), Reach::Address);
        assert_eq!(reach("*", &to6), Reach::Address);
    }

    #[test]
    fn a_name_is_as_good_as_its_evidence() {
        for (evidence, expected) in [
            (Evidence::Claimed, Reach::Claimed),
            (Evidence::LookedUp, Reach::LookedUp),
            (Evidence::Certificate, Reach::Certificate),
        ] {
            let destination = to("10.0.0.1:443", &[("api.acme.example", evidence)]);
            assert_eq!(reach("api.acme.example", &destination), expected);
            assert_eq!(reach("*.acme.example", &destination), expected);
            assert_eq!(reach("acme.example", &destination), Reach::No);
        }
    }

    #[test]
    fn another_host_field_is_only_a_claim() {
        let destination = to("10.0.0.1:443", &[("a.example", Evidence::Certificate)]);
        let pattern = HostPattern::new("a.example").unwrap();
        assert_eq!(pattern.reach(&destination, Some("a.example")), Reach::Certificate);
        assert_eq!(pattern.reach(&destination, Some("b.example")), Reach::Claimed);
        assert_eq!(pattern.reach(&destination, Some("10.0.0.1")), Reach::Certificate);
        let other = HostPattern::new("b.example").unwrap();
        assert_eq!(other.reach(&destination, Some("b.example")), Reach::Claimed);
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", "a b", "*x.com", "a.*.com", "10.1", "10.0.0.0/33", "h:0", "h:70000", "[::1", "a..b"]
        {
            assert!(HostPattern::new(text).is_err(), "{text}");
        }
    }
}
