//! Credentials that the workload never sees: where they are kept, and weir's own PostgreSQL login with them.
//! It refuses to print a secret: no type here shows one in Debug, Display or an error.

mod login;
mod mask_key;
mod proof;
mod secrets;
mod stamp;
#[cfg(test)]
mod tests;

pub use login::{Login, LoginError, postgres_login};
pub use mask_key::mask_key;
pub use proof::{Exchange, Known, Prover, scram};
pub use secrets::Secrets;
pub use stamp::Stamp;
