//! postgres: to be filled in.
