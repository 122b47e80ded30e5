//! Bytes ⇄ messages, one module a protocol: strict, bounded, and it forwards what it does not change byte for byte.
//! It refuses to know policy: what a message means is put into `action` by the session.

pub mod dns;
pub mod http1;
pub mod http2;
pub mod json;
pub mod postgres;
pub mod tls;
