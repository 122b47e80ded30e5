//! Dependencies run one way: between the modules of the core, and between our crates. The core knows no `std`.

use super::{Fault, Source};

/// What each module of the core may use. `session` ties everything together and is the only one that may.
const CORE: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("destination", &["limits"]),
    ("identity", &["limits"]),
    ("sniff", &["limits", "wire"]),
    ("wire", &["limits"]),
    ("lookup", &["limits", "wire"]),
    ("action", &["destination", "identity", "limits"]),
    ("sql", &["action", "limits"]),
    ("detect", &["limits"]),
    ("mask", &["detect", "limits"]),
    ("approval", &["limits"]),
    ("audit", &["destination", "identity", "limits"]),
    ("recording", &["audit", "limits"]),
    (
        "policy",
        &["action", "approval", "audit", "destination", "detect", "identity", "limits", "mask", "sql"],
    ),
];
/// Modules that may use every other one.
const ALL_KNOWING: &[&str] = &["session", "lib"];

/// What each crate of ours may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("weir-core", &[]),
    ("weir-ebpf", &[]),
    ("weir-sql", &["weir-core"]),
    ("weir", &["weir-core", "weir-sql", "weir-ebpf"]),
    // The demo plays in the lab of the black-box tests.
    ("xtask", &["weir-tests"]),
    ("weir-tests", &["weir", "weir-core", "weir-sql", "weir-ebpf"]),
    ("weir-fuzz", &["weir", "weir-core", "weir-sql"]),
];

pub(super) fn check(source: &Source, faults: &mut Vec<Fault>) {
    if let Some(inside) = source.path.strip_prefix("agent/core/src/") {
        inside_core(source, inside, faults);
    }
    if source.path.ends_with("Cargo.toml") {
        between_crates(source, faults);
    }
}

fn inside_core(source: &Source, inside: &str, faults: &mut Vec<Fault>) {
    for (number, line) in source.plain_lines() {
        if mentions(line, "std::") {
            faults.push(Fault::new(
                &source.path,
                number,
                "the core has no std: take it from `core` or `alloc`",
            ));
        }
    }
    let steps: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    let Some(module) = steps.first().filter(|module| !ALL_KNOWING.contains(module)) else { return };
    let allowed = CORE.iter().find(|(name, _)| name == module).map(|(_, allowed)| *allowed);
    let roots = ["crate::".to_owned(), "super::".repeat(steps.len())];
    for (number, used) in roots.iter().flat_map(|root| uses(source, root)) {
        let known = CORE.iter().any(|(name, _)| *name == used) || ALL_KNOWING.contains(&used.as_str());
        if used == *module || !known || number > source.plain {
            continue;
        }
        match allowed {
            Some(allowed) if allowed.contains(&used.as_str()) => {}
            Some(_) => faults.push(Fault::new(&source.path, number, format!("{module} may not use {used}"))),
            None => {
                faults.push(Fault::new(&source.path, number, format!("add {module} to the table of arrows")))
            }
        }
    }
}

/// The names that follow `root`, alone or in braces, with their lines.
fn uses(source: &Source, root: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices(root) {
        let before = source.code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let start = at + root.len();
        let rest = &source.code[start..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut fresh) = (1, true);
            for (offset, character) in group.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' => fresh = depth == 1 || fresh,
                    c if depth == 1 && fresh && (c.is_alphabetic() || c == '_') => {
                        found.push((source.line_of(start + 1 + offset), word(&group[offset..])));
                        fresh = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.push((source.line_of(start), word(rest)));
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// `path` stands in the line at the begin of a path.
fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

fn between_crates(source: &Source, faults: &mut Vec<Fault>) {
    let name = source
        .text
        .lines()
        .find_map(|line| line.strip_prefix("name = \""))
        .and_then(|rest| rest.split('"').next());
    let Some((name, allowed)) = CRATES.iter().find(|(known, _)| Some(*known) == name) else { return };
    let mut section = "";
    for (number, line) in source.text.lines().enumerate() {
        if line.starts_with('[') {
            section = line;
        }
        let dependency = line.split(['=', '.', ' ']).next().unwrap_or_default();
        let ours = CRATES.iter().any(|(known, _)| *known == dependency);
        if section.contains("dependencies]") && ours && !allowed.contains(&dependency) {
            faults.push(Fault::new(
                &source.path,
                number + 1,
                format!("{name} may not depend on {dependency}"),
            ));
        }
    }
}
