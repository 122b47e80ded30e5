//! Every parser that reads bytes from outside, each as one function from bytes to nothing; two drivers share the list.
//! It refuses drivers of its own kind per target: what fuzzes one parser fuzzes all.
//!
//! - `cargo xtask fuzz [--seconds N] [TARGET…]` runs libFuzzer where a C++ compiler is there, else plain mutations.
//! - `cargo test -p weir-fuzz` runs plain mutations for a moment, so that every test run fuzzes a little.
//!
//! A target panics when a promise is broken. Seeds are the files of `tests/corpus/<target>/` and the target's own.

pub mod mutate;
pub mod plain;
mod targets;

pub use targets::TARGETS;

/// A parser and what it is known to read.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs to begin with, besides the corpus.
    pub seeds: &'static [&'static [u8]],
}

impl Target {
    /// The target of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Target> {
        TARGETS.iter().find(|target| target.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{TARGETS, plain};

    /// Wall time for each target; `cargo xtask fuzz` takes longer.
    const MOMENT: Duration = Duration::from_millis(700);

    #[test]
    fn every_target_survives_a_moment_of_mutations() {
        for target in TARGETS {
            let report = plain::run(target, MOMENT, 1);
            assert!(report.is_ok(), "{}: {report:?}", target.name);
            assert!(report.is_ok_and(|report| report.runs > 10), "{} is too slow", target.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TARGETS.len());
    }
}
