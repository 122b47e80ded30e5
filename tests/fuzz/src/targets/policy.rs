//! Policies: any tree of lists, maps and scalars is compiled or refused with problems that name a line.

use std::sync::Arc;

use weir_core::policy::{Document, Key, Node, Policy, Surroundings, Value, Version};

pub const SEEDS: &[&[u8]] = &[CLASSES, APPDB, LLM];

/// Trees are written like YAML, two blanks a level; only what a tree needs is read.
const CLASSES: &[u8] = b"classes:\n  email:\n    detect:\n      - EMAIL_ADDRESS\n    columns:\n      - *.*.email\n  mrn:\n    pattern: MRN-[0-9]{7}\n";

pub const APPDB: &[u8] = b"policy: appdb\ntarget:\n  protocol: postgres\n  host: 127.0.0.1\nrules:\n  -\n    name: reads\n    match:\n      sql:\n        effects:\n          - read\n          - txn\n          - session\n    then: allow\n";

pub const LLM: &[u8] = b"policy: llm\ntarget:\n  protocol: http\n  host: 127.0.0.1\nrules:\n  -\n    name: all\n    match:\n      http:\n        method:\n          - GET\n          - POST\n    then: allow\n";

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let lines = text.lines().count().max(1);
    if let Err(problems) = compile(&[text]) {
        assert!(!problems.is_empty(), "refused without a reason");
        assert!(problems.iter().all(|problem| problem.line as usize <= lines));
    }
}

/// A bundle of one document a text.
pub fn compile(texts: &[&str]) -> Result<Policy, Vec<weir_core::policy::Problem>> {
    let documents: Vec<Document> =
        texts.iter().map(|text| Document { file: Arc::from("fuzz.yaml"), root: tree(text) }).collect();
    let version = Version { commit: "none".into(), sha: String::new() };
    Policy::compile(&documents, &Surroundings::default(), version)
}

fn tree(text: &str) -> Node {
    let lines: Vec<Line<'_>> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(number, line)| Line {
            number,
            indent: (line.len() - line.trim_start_matches(' ').len()).min(64),
            text: line.trim(),
        })
        .collect();
    block(&mut lines.as_slice(), 0, 1)
}

#[derive(Clone, Copy)]
struct Line<'a> {
    number: u32,
    indent: usize,
    text: &'a str,
}

/// The node that the next lines make, as long as they are indented by `indent` or more.
fn block(lines: &mut &[Line<'_>], indent: usize, number: u32) -> Node {
    let (mut items, mut entries) = (Vec::new(), Vec::new());
    while let Some((line, rest)) = lines.split_first().filter(|(line, _)| line.indent >= indent) {
        *lines = rest;
        if let Some(item) = line.text.strip_prefix('-') {
            items.push(value(item.trim(), lines, *line));
        } else {
            let (key, text) = line.text.split_once(':').unwrap_or((line.text, ""));
            let key = Key { line: line.number, text: key.trim().to_owned() };
            entries.push((key, value(text.trim(), lines, *line)));
        }
    }
    let value = match (items.is_empty(), entries.is_empty()) {
        (true, true) => Value::Null,
        (false, _) => Value::List(items),
        (true, false) => Value::Map(entries),
    };
    Node { line: number, value }
}

/// What stands behind a key or a dash: a scalar, or a block of its own.
fn value(text: &str, lines: &mut &[Line<'_>], line: Line<'_>) -> Node {
    if text.is_empty() {
        block(lines, line.indent + 1, line.number)
    } else {
        Node { line: line.number, value: Value::Scalar(text.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_seeds_are_policies() {
        for seed in super::SEEDS {
            let text = std::str::from_utf8(seed).unwrap();
            // Classes alone are no bundle.
            let texts = if text.starts_with("policy:") {
                vec![text]
            } else {
                vec![text, std::str::from_utf8(super::APPDB).unwrap()]
            };
            let compiled = super::compile(&texts);
            assert!(compiled.is_ok(), "{text}: {:?}", compiled.err());
        }
    }
}
