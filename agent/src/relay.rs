//! The relaying process: `process` is its life, `thread` receives connections, `connection` is one of them, `pump` moves
//! its bytes, `link` asks the keeper.

mod ahead;
mod buffer;
mod connection;
mod leg;
mod link;
mod postgres;
mod process;
mod pump;
mod rim;
mod secure;
mod sniffing;
mod surroundings;
mod thread;

pub(crate) use link::Link;
pub use process::run;
pub(crate) use process::{Relay, Thread};
