//! The DNS servers that workloads may ask: the keeper reads which, and both halves find a question's among them.
//! It refuses every other.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::lane::message::{Resolver, Resolvers};
use crate::{config, kernel};

/// See the module.
#[derive(Debug)]
pub struct Servers {
    /// From the configuration; `None` follows resolv.conf(5).
    fixed: Option<Vec<SocketAddr>>,
    current: ArcSwap<Vec<SocketAddr>>,
    inside: Vec<IpAddr>,
    /// Cookie of the agent's network namespace.
    own: u64,
}

impl Servers {
    #[must_use]
    pub fn new(config: &config::Dns, own: u64) -> Servers {
        let fixed = (!config.servers.is_empty()).then(|| config.servers.clone());
        let current = fixed.clone().unwrap_or_else(kernel::resolv::servers);
        Servers { fixed, current: ArcSwap::from_pointee(current), inside: config.inside.clone(), own }
    }

    /// Reads them again. Returns them if they have changed.
    pub fn refresh(&self) -> Option<Resolvers> {
        let now = self.fixed.clone().unwrap_or_else(kernel::resolv::servers);
        (**self.current.load() != now).then(|| {
            self.current.store(Arc::new(now));
            self.now()
        })
    }

    #[must_use]
    pub fn now(&self) -> Resolvers {
        Resolvers { servers: (**self.current.load()).clone(), inside: self.inside.clone(), own: self.own }
    }
}

impl Resolvers {
    /// The server that a question from this network namespace to this address is for.
    #[must_use]
    pub fn of(&self, asked: IpAddr, netns: u64) -> Option<Resolver> {
        let host = self.servers.iter().find(|server| server.ip().to_canonical() == asked);
        if netns != self.own && self.inside.contains(&asked) {
            let address = SocketAddr::new(asked, weir_ebpf::DNS_PORT);
            return Some(Resolver { address, netns: Some(netns) });
        }
        host.map(|address| Resolver { address: *address, netns: None })
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(&self, resolver: &Resolver) -> bool {
        match resolver.netns {
            None => self.servers.contains(&resolver.address),
            Some(netns) => self.of(resolver.address.ip(), netns) == Some(*resolver),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_inside_is_asked_where_the_question_comes_from_and_only_there() {
        let resolvers = Resolvers {
            servers: vec!["10.0.0.2:5353".parse().unwrap()],
            inside: vec!["127.0.0.11".parse().unwrap()],
            own: 1,
        };
        let ask = |address: &str, netns| resolvers.of(address.parse().unwrap(), netns);
        let host = Resolver { address: "10.0.0.2:5353".parse().unwrap(), netns: None };
        assert_eq!((ask("10.0.0.2", 1), ask("10.0.0.2", 7)), (Some(host), Some(host)));
        let inside = Resolver { address: "127.0.0.11:53".parse().unwrap(), netns: Some(7) };
        assert_eq!((ask("127.0.0.11", 7), ask("127.0.0.11", 1)), (Some(inside), None));
        assert!(resolvers.has(&host) && resolvers.has(&inside));
        for forged in [
            Resolver { netns: Some(1), ..inside },
            Resolver { netns: None, ..inside },
            Resolver { address: "127.0.0.11:80".parse().unwrap(), ..inside },
            Resolver { address: "9.9.9.9:53".parse().unwrap(), netns: None },
        ] {
            assert!(!resolvers.has(&forged), "{forged:?}");
        }
    }
}
