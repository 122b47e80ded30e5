//! http1: to be filled in.
