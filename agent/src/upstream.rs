//! The leg to the server: dial the recorded address, secure it with a certificate that is really verified, PostgreSQL's SSLRequest.
//! It refuses to go on where a certificate is not good, and never falls back from TLS to plain text on its own.

#[cfg(feature = "boring")]
mod boringssl;
mod dial;
mod meter;
mod postgres;
mod secure;
#[cfg(test)]
mod tests;
mod trust;
mod wire;

pub use dial::{DialError, Origin, connect, dial, dial_in, socket};
pub use meter::{Meter, Metered};
pub use postgres::{PostgresError, PostgresLeg, Purpose, postgres_leg, postgres_tls};
pub use secure::{Connector, SecureError, UpstreamTls};
pub use trust::{Trust, TrustError};
pub use wire::{Wire, is_truncation};
