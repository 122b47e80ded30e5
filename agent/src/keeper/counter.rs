//! The counter: what the relaying process waits for, given out by a thread of its own. Keys and passwords stay on this
//! side; what goes over is a signature, a proof, or a secret that must stand in a request. It refuses secrets and files
//! that the policy in force does not name.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use weir_core::policy::SecretName;
use zeroize::Zeroizing;

use crate::app::Agent;
use crate::credential::{Exchange, Known, Prover, Stamp, scram};
use crate::lane;
use crate::lane::message::{Given, Request};
use crate::tls::LeafName;

/// Serves one relaying process until it ends.
pub(super) fn start(agent: &Arc<Agent>, end: OwnedFd) -> anyhow::Result<()> {
    let agent = Arc::clone(agent);
    let body = move || {
        let mut counter = Counter { agent: &agent, logins: HashMap::new(), next: 1 };
        while let Ok(Some((request, _))) = lane::receive_now::<Request>(&end) {
            let (given, fds) = counter.give(request);
            if lane::send_now(&end, &given, &fds).is_err() {
                break;
            }
            if let Given::Secret(value) = given {
                drop(Zeroizing::new(value));
            }
        }
    };
    std::thread::Builder::new().name("counter".into()).spawn(body).context("cannot start a thread")?;
    Ok(())
}

struct Counter<'a> {
    agent: &'a Agent,
    /// SCRAM exchanges under way.
    logins: HashMap<u64, Box<dyn Exchange + Send>>,
    next: u64,
}

impl Counter<'_> {
    fn give(&mut self, request: Request) -> (Given, Vec<OwnedFd>) {
        let given = match request {
            Request::Authority { path } => {
                return match self.authority(&path) {
                    Ok((stamp, file)) => (Given::Authority(stamp), vec![file]),
                    Err(fault) => (Given::Refused(fault.to_string()), Vec::new()),
                };
            }
            Request::Leaf { name, key } => self.leaf(&name, &key),
            Request::Secret { provider, name } => {
                self.secret(provider, name).map(|value| Given::Secret(value.to_vec()))
            }
            Request::Md5 { provider, name, user, salt } => self
                .secret(provider, name)
                .and_then(|password| Known(&password).md5(&user, salt))
                .map(|answer| Given::Secret(answer.to_vec())),
            Request::Scram { provider, name, binding } => {
                self.secret(provider, name).map(|password| self.begin(Box::new(scram(&password, binding))))
            }
            Request::ScramUpdate { login, message } => self.update(login, &message),
            Request::ScramFinish { login, message } => match self.logins.remove(&login) {
                Some(mut exchange) => exchange.finish(&message).map(|()| Given::Done),
                None => Err(UNKNOWN.into()),
            },
        };
        (given.unwrap_or_else(Given::Refused), Vec::new())
    }

    fn leaf(&self, name: &str, key: &[u8]) -> Result<Given, String> {
        let name = LeafName::parse(name).ok_or("this is no name for a certificate")?;
        let leaf = self.agent.authority.leaf_for(&name, key).map_err(|fault| fault.to_string())?;
        Ok(Given::Leaf(leaf.to_vec()))
    }

    fn secret(&self, provider: String, name: String) -> Result<Zeroizing<Vec<u8>>, String> {
        let name = SecretName { provider, name };
        if !self.agent.policy.load().secrets().any(|known| *known == name) {
            return Err(format!("no policy in force names the secret {}#{}", name.provider, name.name));
        }
        self.agent.secrets.secret(&name)
    }

    fn authority(&self, path: &str) -> io::Result<(Stamp, OwnedFd)> {
        if !self.agent.policy.load().authorities().any(|known| known == path) {
            return Err(io::Error::other("no policy in force names this file"));
        }
        let path = Path::new(path);
        let stamp = Stamp::of(path)?;
        Ok((stamp, lane::sealed(&std::fs::read(path)?)?))
    }

    fn begin(&mut self, exchange: Box<dyn Exchange + Send>) -> Given {
        // Logins that were never finished make room for those that come.
        if self.logins.len() >= LOGINS
            && let Some(oldest) = self.logins.keys().min().copied()
        {
            self.logins.remove(&oldest);
        }
        let login = self.next;
        self.next += 1;
        let message = exchange.message().to_vec();
        self.logins.insert(login, exchange);
        Given::Scram { login, message }
    }

    fn update(&mut self, login: u64, server: &[u8]) -> Result<Given, String> {
        let exchange = self.logins.get_mut(&login).ok_or(UNKNOWN)?;
        match exchange.update(server) {
            Ok(()) => Ok(Given::Scram { login, message: exchange.message().to_vec() }),
            Err(fault) => {
                self.logins.remove(&login);
                Err(fault)
            }
        }
    }
}

const UNKNOWN: &str = "this login is over";
/// SCRAM exchanges under way at once.
const LOGINS: usize = 4096;
