//! TLS towards workloads: the host's CA, leaves minted for one name each, the handshake, what a client's distrust looks like.
//! It refuses to mint for a name that is none, to share the CA's key with a leaf, and to take early data (0-RTT).

mod authority;
mod leaves;
mod prefixed;
mod terminate;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub use authority::{Authority, AuthorityError, CaFacts};
pub use leaves::{LeafError, LeafName, Leaves};
pub use prefixed::Prefixed;
pub use terminate::{AcceptError, Distrust, HANDSHAKE, Termination, Terminator, alert};

/// aws-lc-rs with post-quantum key exchange first: the one provider of both legs.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}
