//! Listeners and the origin of an accepted connection.
