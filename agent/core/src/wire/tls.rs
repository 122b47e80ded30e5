//! tls: to be filled in.
