//! Dialling the recorded address; upstream TLS.
