//! The DNS servers of the host, as resolv.conf(5) names them. It refuses lines it does not understand by ignoring
//! them, as the resolver does: a server that is missing here is a server that labelled tasks cannot ask.

use std::net::IpAddr;

/// Servers of `/etc/resolv.conf`; the local host when it names none, as the resolver does.
#[must_use]
pub fn servers() -> Vec<IpAddr> {
    parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn parse(text: &str) -> Vec<IpAddr> {
    let named = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().and_then(address)
    };
    let mut found: Vec<IpAddr> = text.lines().filter_map(named).take(SERVERS).collect();
    if found.is_empty() {
        found.push(IpAddr::from([127, 0, 0, 1]));
    }
    found
}

/// An address, perhaps with a zone (`fe80::1%eth0`), which the map does not hold.
fn address(word: &str) -> Option<IpAddr> {
    word.split('%').next()?.parse().ok()
}

/// More than the resolver itself reads (MAXNS is 3), for hosts with another one.
const SERVERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_resolver_reads_them() {
        let text = "# nameserver 9.9.9.9\nsearch example.com\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver x\n";
        assert_eq!(parse(text), ["10.0.0.2".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
        assert_eq!(parse(""), [IpAddr::from([127, 0, 0, 1])]);
    }
}
