//! The counter: what the relaying process waits for, given out by a thread of its own. Keys and passwords stay on this
//! side; what goes over is a signature, a proof, or a secret that must stand in a request. It refuses secrets and files
//! that the policy in force does not name.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use weir_core::policy::{Inject, SecretName};
use zeroize::Zeroizing;

use super::Half;
use crate::app::Agent;
use crate::credential::{Exchange, Known, Prover, Stamp, scram};
use crate::lane;
use crate::lane::message::{Given, Request};
use crate::tls::LeafName;

/// Serves one relaying process until it ends.
pub(super) fn start(agent: &Arc<Agent>, half: &Arc<Half>, end: OwnedFd) -> anyhow::Result<()> {
    let (agent, half) = (Arc::clone(agent), Arc::clone(half));
    let body = move || {
        let mut counter = Counter {
            agent: &agent,
            logins: HashMap::new(),
            next: 1,
            key: Vec::new(),
            leaves: LEAVES_AT_ONCE,
            since: Instant::now(),
        };
        while let Ok(Some((request, _))) = lane::receive_now::<Request>(&end) {
            let (given, fds) = counter.give(request);
            let sent = lane::send_now(&end, &given, &fds);
            if let Given::Secret(value) = given {
                drop(Zeroizing::new(value));
            }
            // What is too long for a message is not given.
            let too_long = |fault: io::Error| lane::send_now(&end, &Given::Refused(fault.to_string()), &[]);
            if sent.or_else(too_long).is_err() {
                break;
            }
        }
        // Without it the relaying process serves no more.
        half.main.close();
    };
    std::thread::Builder::new().name("counter".into()).spawn(body).context("cannot start a thread")?;
    Ok(())
}

struct Counter<'a> {
    agent: &'a Agent,
    /// SCRAM exchanges under way.
    logins: HashMap<u64, Box<dyn Exchange + Send>>,
    next: u64,
    /// The key of the relaying process's leaves, once it has said it.
    key: Vec<u8>,
    /// Leaves that it may have now, and since when that was counted.
    leaves: f64,
    since: Instant,
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
                self.secret(provider, name, Use::Request).map(|value| Given::Secret(value.to_vec()))
            }
            Request::ClearText { provider, name } => {
                self.secret(provider, name, Use::ClearText).map(|value| Given::Secret(value.to_vec()))
            }
            Request::Md5 { provider, name, user, salt } => self
                .secret(provider, name, Use::Login)
                .and_then(|password| Known(&password).md5(&user, salt))
                .map(|answer| Given::Secret(answer.to_vec())),
            Request::Scram { provider, name, binding } => {
                let password = self.secret(provider, name, Use::Login);
                password.map(|password| self.begin(Box::new(scram(&password, binding))))
            }
            Request::ScramUpdate { login, message } => self.update(login, &message),
            Request::ScramFinish { login, message } => match self.logins.remove(&login) {
                Some(mut exchange) => exchange.finish(&message).map(|()| Given::Done),
                None => Err(UNKNOWN.into()),
            },
        };
        (given.unwrap_or_else(Given::Refused), Vec::new())
    }

    fn leaf(&mut self, name: &str, key: &[u8]) -> Result<Given, String> {
        let name = LeafName::parse(name).ok_or("this is no name for a certificate")?;
        if self.key.is_empty() {
            self.key = key.to_vec();
        }
        if self.key != key {
            return Err("the key of leaves does not change".into());
        }
        let gained = self.since.elapsed().as_secs_f64() * LEAVES_A_SECOND;
        (self.leaves, self.since) = ((self.leaves + gained).min(LEAVES_AT_ONCE), Instant::now());
        if self.leaves < 1.0 {
            return Err("more certificates of new names than are signed at once".into());
        }
        self.leaves -= 1.0;
        let leaf = self.agent.authority.leaf_for(&name, key).map_err(|fault| fault.to_string())?;
        Ok(Given::Leaf(leaf.to_vec()))
    }

    fn secret(&self, provider: String, name: String, wanted: Use) -> Result<Zeroizing<Vec<u8>>, String> {
        let name = SecretName { provider, name };
        let policy = self.agent.policy.load();
        let gives = |inject: &Inject| match (inject, wanted) {
            (Inject::Header { secret, .. }, Use::Request) => *secret == name,
            (Inject::Login { password, .. }, Use::Login) => *password == name,
            (Inject::Login { password, clear_text, .. }, Use::ClearText) => *clear_text && *password == name,
            (Inject::Header { .. }, _) | (Inject::Login { .. }, Use::Request) => false,
        };
        if policy.injects().any(gives) {
            return self.agent.secrets.secret(&name);
        }
        Err(match wanted {
            Use::ClearText => format!(
                "the server wants {}#{} in clear text: let it prove itself by SCRAM, or say `clear_text: true` beside \
                 `password`",
                name.provider, name.name
            ),
            Use::Request | Use::Login => {
                format!("no policy in force puts {}#{} in here", name.provider, name.name)
            }
        })
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
        // A proof for few rounds could be tried out against many passwords (RFC 7677, 4).
        if rounds(server).is_none_or(|rounds| rounds < ROUNDS) {
            self.logins.remove(&login);
            return Err(format!("the server asks for fewer than {ROUNDS} rounds of SCRAM"));
        }
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

/// What a secret is wanted for.
#[derive(Debug, Clone, Copy)]
enum Use {
    Request,
    Login,
    ClearText,
}

/// `i=` of a server's first message (RFC 5802, 5.1).
fn rounds(server: &[u8]) -> Option<u32> {
    std::str::from_utf8(server).ok()?.split(',').find_map(|part| part.strip_prefix("i="))?.parse().ok()
}

/// What servers use by default, and the least that RFC 7677 allows.
const ROUNDS: u32 = 4096;
/// Leaves that one relaying process may have at once, and then each second; each workload has less (`tls::leaves`).
const LEAVES_AT_ONCE: f64 = 4096.0;
const LEAVES_A_SECOND: f64 = 400.0;
const UNKNOWN: &str = "this login is over";
/// SCRAM exchanges under way at once.
const LOGINS: usize = 4096;
