//! One connection: sockets and Session. Start reading in `connection`; `pump` moves the bytes.

mod ahead;
mod buffer;
mod connection;
mod leg;
mod postgres;
mod pump;
mod rim;
mod secure;
mod sniffing;
mod surroundings;

pub(crate) use connection::{Connection, serve};
