//! One connection: sockets and Session.

mod buffer;
mod pump;
