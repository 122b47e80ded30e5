//! Decides everything, does nothing: bytes, clock readings and answers go in; bytes, records and questions come out.
//! It refuses to know sockets, files, clocks and randomness, and the compiler enforces that: the crate is `no_std`.
//!
//! The four laws this crate keeps (see ARCHITECTURE.md):
//! 1. Pure in the middle.
//! 2. No byte without a witness: a server only gets [`session::Cleared`], a workload only [`session::Masked`].
//! 3. Written before done: an act leaves after its record has a [`audit::Receipt`].
//! 4. Closed when in doubt.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod action;
pub mod approval;
pub mod audit;
pub mod destination;
pub mod detect;
pub mod identity;
pub mod limits;
pub mod lookup;
pub mod mask;
pub mod policy;
pub mod session;
pub mod sniff;
pub mod sql;
pub mod wire;
