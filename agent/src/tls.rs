//! The host CA, leaves, client-side TLS.
