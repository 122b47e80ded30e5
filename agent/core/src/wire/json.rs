//! json: to be filled in.
