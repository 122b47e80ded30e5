//! Words: a file says its idea first, names are the field's nouns, nothing is left undone, no machine of ours is named.

use super::{Fault, Source};

/// Parts of names that say nothing.
const EMPTY_WORDS: &[&str] = &["manager", "handler", "util", "utils", "helper", "helpers", "data", "info"];
/// Names that the field gave us.
const FIELD_NAMES: &[(&str, &str)] = &[
    ("DataRow", "a message of the PostgreSQL protocol"),
    ("data_row", "a message of the PostgreSQL protocol"),
    ("CopyData", "a message of the PostgreSQL protocol"),
    ("copy_data", "a message of the PostgreSQL protocol"),
    ("NoData", "a message of the PostgreSQL protocol"),
    ("no_data", "a message of the PostgreSQL protocol"),
    ("BPF_OBJ_GET_INFO_BY_FD", "a command of the kernel"),
];
/// Never in code; `#[ignore]` with a reason is no better than without.
const UNDONE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
/// Written in two parts, so that this file does not hold what it forbids.
const MACHINES: &[(&str, &str)] = &[("/wo", "rk/"), ("/ho", "me/"), ("/ro", "ot/"), ("/Use", "rs/")];
const TOOLS: &[(&str, &str)] =
    &[("co-authored", "-by:"), ("generated ", "with ["), ("claude", " code"), ("git", "hub copilot")];

pub(super) fn check(source: &Source, faults: &mut Vec<Fault>) {
    traces(source, faults);
    if !source.is_rust() {
        return;
    }
    if !source.text.starts_with("//! ") {
        faults.push(Fault::new(&source.path, 1, "the first line must be `//! <what this is>`"));
    }
    file_name(source, faults);
    for (number, line) in source.lines() {
        // Names of tests are sentences.
        for name in defined(line).filter(|_| number <= source.plain) {
            if let Some(empty) = empty_word(name) {
                faults.push(Fault::new(
                    &source.path,
                    number,
                    format!("{name}: `{empty}` says nothing; name the thing"),
                ));
            }
        }
        for undone in UNDONE.iter().filter(|undone| line.contains(**undone)) {
            faults.push(Fault::new(&source.path, number, format!("{undone} is not for a commit")));
        }
    }
}

fn file_name(source: &Source, faults: &mut Vec<Fault>) {
    let stems = source.path.trim_end_matches(".rs").split('/');
    for stem in stems {
        if let Some(empty) = empty_word(stem) {
            faults.push(Fault::new(&source.path, 1, format!("a file named {stem}: `{empty}` says nothing")));
        }
    }
}

/// Names that a line defines.
fn defined(line: &str) -> impl Iterator<Item = &str> {
    let words: Vec<&str> =
        line.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let keyword = |word: &str| {
        ["fn", "struct", "enum", "trait", "mod", "type", "const", "static", "union"].contains(&word)
    };
    let pairs: Vec<&str> = words.windows(2).filter(|pair| keyword(pair[0])).map(|pair| pair[1]).collect();
    pairs.into_iter()
}

/// The part of the name that says nothing.
fn empty_word(name: &str) -> Option<&'static str> {
    if FIELD_NAMES.iter().any(|(known, _)| *known == name) {
        return None;
    }
    if name.starts_with("get_") {
        return Some("get_");
    }
    let parts = parts(name);
    EMPTY_WORDS.iter().find(|empty| parts.iter().any(|part| part == *empty)).copied()
}

/// `RowHandler` and `row_handler` are `row`, `handler`.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut after_lower = false;
    for character in name.chars() {
        if matches!(character, '_' | '-' | '.') || (character.is_uppercase() && after_lower) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| character.is_alphanumeric()) {
            part.extend(character.to_lowercase());
        }
        after_lower = character.is_lowercase();
    }
    parts
}

/// Paths of a development machine and the marks that tools leave.
fn traces(source: &Source, faults: &mut Vec<Fault>) {
    // Locks and captures are made by machines; they name none of ours.
    if source.path.ends_with(".lock") || source.path.starts_with("tests/corpus/") {
        return;
    }
    for (number, line) in source.text.lines().enumerate() {
        for (head, tail) in MACHINES {
            let path = format!("{head}{tail}");
            let absolute =
                |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "~}_-./*)".contains(c));
            if line.match_indices(&path).any(|(at, _)| absolute(at)) {
                faults.push(Fault::new(
                    &source.path,
                    number + 1,
                    format!("{path}…: a path of a development machine"),
                ));
            }
        }
        let lower = line.to_lowercase();
        for (head, tail) in TOOLS.iter().filter(|(head, tail)| lower.contains(&format!("{head}{tail}"))) {
            faults.push(Fault::new(&source.path, number + 1, format!("{head}{tail}: the mark of a tool")));
        }
    }
}
