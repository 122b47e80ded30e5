//! The counter, as the relaying process sees it: a lane of its own, on which a thread waits for what the keeper gives. It
//! refuses answers of another kind than was asked for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use weir_core::policy::SecretName;
use zeroize::Zeroizing;

use super::message::{Binding, Given, Request};
use crate::credential::{Exchange, Prover, Stamp};
use crate::lane;

/// Where a thread waits for what the keeper gives: tens of microseconds, some milliseconds for a proof.
#[derive(Debug)]
pub struct Counter(Mutex<OwnedFd>);

impl Counter {
    #[must_use]
    pub fn new(end: OwnedFd) -> Counter {
        Counter(Mutex::new(end))
    }

    fn ask(&self, request: &Request) -> Result<(Given, Vec<OwnedFd>), String> {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |fault: io::Error| format!("the keeper does not answer: {fault}");
        lane::send_now(&end, request, &[]).map_err(gone)?;
        match lane::receive_now(&end).map_err(gone)? {
            Some((Given::Refused(why), _)) => Err(why),
            Some(given) => Ok(given),
            None => Err("the keeper is gone".into()),
        }
    }

    /// A leaf's certificate for a name and a public key, both as [`Request::Leaf`] has them.
    ///
    /// # Errors
    /// In the keeper's words.
    pub fn leaf(&self, name: String, key: Vec<u8>) -> Result<Vec<u8>, String> {
        match self.ask(&Request::Leaf { name, key })? {
            (Given::Leaf(der), _) => Ok(der),
            _ => Err(UNEXPECTED.into()),
        }
    }

    /// # Errors
    /// In the keeper's words, without a value.
    pub fn secret(&self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, String> {
        let SecretName { provider, name } = name.clone();
        match self.ask(&Request::Secret { provider, name })? {
            (Given::Secret(value), _) => Ok(Zeroizing::new(value)),
            _ => Err(UNEXPECTED.into()),
        }
    }

    /// The `ca` file of a target, and its state.
    ///
    /// # Errors
    /// It cannot be read, or no policy names it.
    pub fn authority(&self, path: &str) -> io::Result<(Stamp, Vec<u8>)> {
        match self.ask(&Request::Authority { path: path.into() }).map_err(io::Error::other)? {
            (Given::Authority(stamp), mut fds) => {
                let file = fds.pop().ok_or_else(|| io::Error::other(UNEXPECTED))?;
                Ok((stamp, lane::unsealed(file)?))
            }
            _ => Err(io::Error::other(UNEXPECTED)),
        }
    }
}

/// Proves with a password that stays with the keeper.
#[derive(Debug)]
pub(crate) struct KeptPassword<'a> {
    pub(crate) counter: &'a Counter,
    pub(crate) name: &'a SecretName,
}

#[derive(Debug)]
struct KeptExchange<'a> {
    counter: &'a Counter,
    login: u64,
    message: Vec<u8>,
}

impl Prover for KeptPassword<'_> {
    fn clear_text(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let SecretName { provider, name } = self.name.clone();
        match self.counter.ask(&Request::ClearText { provider, name })? {
            (Given::Secret(value), _) => Ok(Zeroizing::new(value)),
            _ => Err(UNEXPECTED.into()),
        }
    }

    fn md5(&self, user: &str, salt: [u8; 4]) -> Result<Zeroizing<Vec<u8>>, String> {
        let SecretName { provider, name } = self.name.clone();
        match self.counter.ask(&Request::Md5 { provider, name, user: user.into(), salt })? {
            (Given::Secret(answer), _) => Ok(Zeroizing::new(answer)),
            _ => Err(UNEXPECTED.into()),
        }
    }

    fn scram(&self, binding: Binding) -> Result<Box<dyn Exchange + Send + '_>, String> {
        let SecretName { provider, name } = self.name.clone();
        match self.counter.ask(&Request::Scram { provider, name, binding })? {
            (Given::Scram { login, message }, _) => {
                Ok(Box::new(KeptExchange { counter: self.counter, login, message }))
            }
            _ => Err(UNEXPECTED.into()),
        }
    }
}

impl Exchange for KeptExchange<'_> {
    fn message(&self) -> &[u8] {
        &self.message
    }

    fn update(&mut self, server: &[u8]) -> Result<(), String> {
        match self.counter.ask(&Request::ScramUpdate { login: self.login, message: server.into() })? {
            (Given::Scram { message, .. }, _) => {
                self.message = message;
                Ok(())
            }
            _ => Err(UNEXPECTED.into()),
        }
    }

    fn finish(&mut self, server: &[u8]) -> Result<(), String> {
        match self.counter.ask(&Request::ScramFinish { login: self.login, message: server.into() })? {
            (Given::Done, _) => Ok(()),
            _ => Err(UNEXPECTED.into()),
        }
    }
}

pub(crate) const UNEXPECTED: &str = "the keeper answered something else";
