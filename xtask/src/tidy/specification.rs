//! Each promise in SPECIFICATION.md names a test or bench that exists, or says that it is pending.

use std::collections::BTreeSet;

use super::{Fault, Source};

const FILE: &str = "SPECIFICATION.md";

pub(super) fn check(sources: &[Source], faults: &mut Vec<Fault>) {
    let Some(specification) = sources.iter().find(|source| source.path == FILE) else { return };
    let functions: BTreeSet<&str> = sources.iter().flat_map(|source| functions(&source.code)).collect();
    let paths: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    let exists = |name: &str| {
        let last = name.rsplit("::").next().unwrap_or(name).trim_end_matches("()");
        functions.contains(last) || paths.contains(name)
    };
    for (number, row) in rows(&specification.text) {
        let cell = row.trim_end().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let pending = cell.to_lowercase().contains("pending");
        if names.is_empty() && !pending {
            faults.push(Fault::new(FILE, number, "the last column names no `test` and does not say pending"));
        }
        for name in names.iter().filter(|name| !pending && !exists(name)) {
            faults.push(Fault::new(FILE, number, format!("no test is named {name}")));
        }
    }
}

/// Body rows of the tables, with their line numbers.
fn rows(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_body = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let (row, rule) = (
            line.starts_with('|'),
            line.starts_with("|-") || line.starts_with("| -") || line.starts_with("|:"),
        );
        let body = in_body && row && !rule;
        in_body = row && (in_body || rule);
        body.then_some((index + 1, line))
    })
}

fn functions(code: &str) -> impl Iterator<Item = &str> {
    code.match_indices("fn ").map(|(at, _)| {
        let name = &code[at + 3..];
        name.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default()
    })
}
