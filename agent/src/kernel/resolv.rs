//! The DNS servers of the host, as resolv.conf(5) names them. It refuses lines it does not understand by ignoring
//! them, as the resolver does: a server that is missing here is a server that labelled tasks cannot ask.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use weir_ebpf::DNS_PORT;

/// Servers of `/etc/resolv.conf`; the local host when it names none, as the resolver does.
#[must_use]
pub fn servers() -> Vec<SocketAddr> {
    parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn parse(text: &str) -> Vec<SocketAddr> {
    let named = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().and_then(address)
    };
    let mut found: Vec<SocketAddr> = text.lines().filter_map(named).take(SERVERS).collect();
    if found.is_empty() {
        found.push(SocketAddr::from(([127, 0, 0, 1], DNS_PORT)));
    }
    found
}

/// An address, perhaps with a zone (`fe80::1%eth0`).
fn address(word: &str) -> Option<SocketAddr> {
    let (address, zone) = word.split_once('%').unwrap_or((word, ""));
    match address.parse().ok()? {
        IpAddr::V6(v6) if !zone.is_empty() => Some(SocketAddrV6::new(v6, DNS_PORT, 0, index(zone)?).into()),
        ip => Some(SocketAddr::new(ip, DNS_PORT)),
    }
}

/// A device by number or name.
fn index(zone: &str) -> Option<u32> {
    let read = || std::fs::read_to_string(format!("/sys/class/net/{zone}/ifindex")).ok();
    zone.parse().ok().or_else(|| read()?.trim().parse().ok())
}

/// More than the resolver itself reads (MAXNS is 3), for hosts with another one.
const SERVERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 10.0.0.2\nnameserver fe80::1%2\nnameserver x\n";
        assert_eq!(
            parse(text),
            ["10.0.0.2:53".parse::<SocketAddr>().unwrap(), "[fe80::1%2]:53".parse().unwrap()]
        );
        assert_eq!(parse(""), ["127.0.0.1:53".parse().unwrap()]);
    }
}
