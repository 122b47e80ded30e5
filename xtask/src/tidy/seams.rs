//! Seams that the compiler cannot hold: where `unsafe` may stand, and who may issue receipts.

use super::{Fault, Source};

/// Paths (by their begin) that may hold `unsafe`, each with the reason.
const UNSAFE: &[(&str, &str)] = &[
    ("agent-ebpf/", "kernel programs read raw contexts and maps"),
    ("agent/src/kernel", "maps are shared with the kernel as plain memory"),
    ("agent/src/privilege", "prctl, seccomp and setns have no safe form"),
    ("agent/src/cli/run.rs", "what happens between fork and exec has no safe form"),
    (
        "tests/src/far.rs",
        "a packet socket and setns, to see what reaches a host that the tests make, have no safe form",
    ),
    ("tests/src/socket.rs", "TCP_INFO, SO_LINGER and poll(2) have no safe form in std"),
    ("tests/src/maps.rs", "bpf(2) has no safe form; the tests fill maps from outside"),
    ("tests/tests/inbound.rs", "a signal to a child of one's own has no safe form in std"),
    ("tests/src/process.rs", "signals to a child of one's own have no safe form in std"),
    ("agent/tests/fence/", "probes go round the fence by raw system calls"),
    ("tests/clickhouse/", "the engine is a C library"),
];

/// Paths that may call `Receipt::issue`: the ledger, and where it is defined. Tests may, too.
const ISSUE: &[&str] = &["agent/src/ledger", "agent/core/src/audit.rs"];

pub(super) fn check(source: &Source, faults: &mut Vec<Fault>) {
    if !source.is_rust() || source.path.starts_with("xtask/") {
        return;
    }
    if !UNSAFE.iter().any(|(path, _)| source.path.starts_with(path)) {
        let places: Vec<usize> =
            source.lines().filter(|(_, line)| has_word(line, "unsafe")).map(|(number, _)| number).collect();
        if let Some(first) = places.first() {
            let message =
                format!("unsafe on {} lines of a file that is not listed with a reason", places.len());
            faults.push(Fault::new(&source.path, *first, message));
        }
    }
    if !ISSUE.iter().any(|path| source.path.starts_with(path)) {
        for (number, _) in source.plain_lines().filter(|(_, line)| line.contains("Receipt::issue")) {
            faults.push(Fault::new(&source.path, number, "Receipt::issue is called by the ledger alone"));
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|part| part == word)
}
