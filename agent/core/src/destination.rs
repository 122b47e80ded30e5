//! Where a connection goes: one canonical form for v4, v6 and v4-mapped addresses, and the names known for it.
//! It refuses to believe a name: every name carries the evidence for it.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// The recorded original destination and the names known for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    address: SocketAddr,
    names: Vec<Name>,
}

/// A host name (lower case, no trailing dot) and why it is believed to belong to the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub host: String,
    pub evidence: Evidence,
}

/// How a name came to be connected with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The workload said so (SNI, Host): good for denying, never for admitting.
    Claimed,
    /// The agent's own look-up of the name returned this address.
    LookedUp,
    /// The server at this address proved the name with a certificate that verified.
    Certificate,
}

impl Destination {
    /// Canonicalises v4-mapped v6 addresses to v4, so that one address has one form.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        Self { address: SocketAddr::new(ip, address.port()), names: Vec::new() }
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Adds a name or raises its evidence; the host is folded to lower case without a trailing dot.
    pub fn learn(&mut self, host: &str, evidence: Evidence) {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match self.names.iter_mut().find(|name| name.host == host) {
            Some(name) => name.evidence = name.evidence.max(evidence),
            None => self.names.push(Name { host, evidence }),
        }
    }

    /// The best-proved name, for audit rows and messages.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.names.iter().max_by_key(|name| name.evidence).map(|name| name.host.as_str())
    }
}
