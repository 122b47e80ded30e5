//! The host's DNS servers, as the keeper knows them. It refuses to open a socket to any other.

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{config, kernel};

/// See the module.
#[derive(Debug)]
pub struct Servers {
    /// From the configuration; `None` follows resolv.conf(5).
    fixed: Option<Vec<SocketAddr>>,
    current: ArcSwap<Vec<SocketAddr>>,
}

impl Servers {
    #[must_use]
    pub fn new(config: &config::Dns) -> Servers {
        let fixed = (!config.servers.is_empty()).then(|| config.servers.clone());
        let current = fixed.clone().unwrap_or_else(kernel::resolv::servers);
        Servers { fixed, current: ArcSwap::from_pointee(current) }
    }

    /// Reads them again. Returns them if they have changed.
    pub fn refresh(&self) -> Option<Vec<SocketAddr>> {
        let now = self.fixed.clone().unwrap_or_else(kernel::resolv::servers);
        (**self.current.load() != now).then(|| {
            self.current.store(Arc::new(now.clone()));
            now
        })
    }

    #[must_use]
    pub fn now(&self) -> Vec<SocketAddr> {
        (**self.current.load()).clone()
    }
}
