//! Proofs that somebody knows a password, made where the password is. It refuses to show it, but for a server that wants
//! it in clear text over verified TLS.

use std::io;

use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use zeroize::{Zeroize, Zeroizing};

use crate::lane::message::Binding;

/// Answers a server that asks for a password.
pub trait Prover: Send + Sync {
    /// # Errors
    /// There is no such password.
    fn clear_text(&self) -> Result<Zeroizing<Vec<u8>>, String>;
    /// # Errors
    /// There is no such password.
    fn md5(&self, user: &str, salt: [u8; 4]) -> Result<Zeroizing<Vec<u8>>, String>;
    /// Begins an exchange.
    ///
    /// # Errors
    /// There is no such password.
    fn scram(&self, binding: Binding) -> Result<Box<dyn Exchange + Send + '_>, String>;
}

/// One SCRAM exchange (RFC 5802, 5).
pub trait Exchange {
    /// What to send next.
    fn message(&self) -> &[u8];
    /// # Errors
    /// The server broke the protocol.
    fn update(&mut self, server: &[u8]) -> Result<(), String>;
    /// # Errors
    /// The server could not prove that it knows the password.
    fn finish(&mut self, server: &[u8]) -> Result<(), String>;
}

/// A password that is here.
pub struct Known<'a>(pub &'a [u8]);

impl std::fmt::Debug for Known<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Known")
    }
}

impl Prover for Known<'_> {
    fn clear_text(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        Ok(Zeroizing::new(self.0.to_vec()))
    }

    fn md5(&self, user: &str, salt: [u8; 4]) -> Result<Zeroizing<Vec<u8>>, String> {
        let mut answer = md5_hash(user.as_bytes(), self.0, salt);
        let bytes = Zeroizing::new(answer.as_bytes().to_vec());
        answer.zeroize();
        Ok(bytes)
    }

    fn scram(&self, binding: Binding) -> Result<Box<dyn Exchange + Send + '_>, String> {
        Ok(Box::new(scram(self.0, binding)))
    }
}

/// An exchange with a password, which it keeps for itself.
#[must_use]
pub fn scram(password: &[u8], binding: Binding) -> impl Exchange + Send + use<> {
    let binding = match binding {
        Binding::EndPoint(hash) => ChannelBinding::tls_server_end_point(hash),
        Binding::Unrequested => ChannelBinding::unrequested(),
        Binding::Unsupported => ChannelBinding::unsupported(),
    };
    ScramSha256::new(password, binding)
}

impl Exchange for ScramSha256 {
    fn message(&self) -> &[u8] {
        ScramSha256::message(self)
    }

    fn update(&mut self, server: &[u8]) -> Result<(), String> {
        ScramSha256::update(self, server).map_err(|fault: io::Error| fault.to_string())
    }

    fn finish(&mut self, server: &[u8]) -> Result<(), String> {
        ScramSha256::finish(self, server).map_err(|fault: io::Error| fault.to_string())
    }
}
