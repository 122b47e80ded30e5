//! One connection: sockets and Session.
