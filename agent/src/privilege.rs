//! What a process gives up before it runs anything. It refuses to give up half: a filter that cannot be set is an error.

pub mod confine;
pub mod guard;
pub mod reduce;
