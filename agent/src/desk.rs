//! Held acts waiting for a human.
