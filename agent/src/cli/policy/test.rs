//! `weir policy test DIR`: runs the cases of every `*_test.yaml` with a frozen clock. Exit code 1 on any failure.
//! It refuses files that test nothing: no case, no act, or nothing expected.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::json;
use weir_core::policy::{Node, Policy, Problem, Value};

use super::{Common, config, load};
use crate::bundle::{documents, folder};
use crate::config::Config;
use case::Case;

mod case;
mod expect;

/// What became of one case.
struct Report {
    file: Arc<str>,
    line: u32,
    name: String,
    /// Empty when the case passed.
    failures: Vec<String>,
}

pub(super) fn run(common: &Common, dir: &Path) -> anyhow::Result<ExitCode> {
    let config = config(common)?;
    let policy = Arc::new(load(config.as_ref(), dir)?.policy);
    let files = folder::tests(dir)?;
    anyhow::ensure!(!files.is_empty(), "{}: no test file here (*_test.yaml)", dir.display());
    let mut problems = Vec::new();
    let mut reports = Vec::new();
    for path in files {
        let name: Arc<str> = path.strip_prefix(dir).unwrap_or(&path).to_string_lossy().into();
        match folder::text(&path) {
            Ok(text) => file(&name, &text, &policy, config.as_ref(), &mut problems, &mut reports),
            Err(message) => problems.push(Problem::new(&name, 0, message)),
        }
    }
    let failed = reports.iter().filter(|report| !report.failures.is_empty()).count();
    for report in &reports {
        print(common.json, report);
    }
    for problem in &problems {
        match common.json {
            true => println!(
                "{}",
                json!({"file": &*problem.file, "line": problem.line, "problem": problem.message})
            ),
            false => println!("error {problem}"),
        }
    }
    if !common.json {
        println!("{} passed, {failed} failed, {} errors", reports.len() - failed, problems.len());
    }
    Ok(ExitCode::from(u8::from(failed > 0 || !problems.is_empty())))
}

fn file(
    name: &Arc<str>,
    text: &str,
    policy: &Arc<Policy>,
    config: Option<&Config>,
    problems: &mut Vec<Problem>,
    reports: &mut Vec<Report>,
) {
    let before = problems.len();
    let documents = documents(name, text, problems);
    let mut cases = 0;
    for document in &documents {
        let Some(Value::List(items)) = document.root.field("cases").map(|node| &node.value) else { continue };
        for item in items {
            cases += 1;
            match Case::read(&document.root, item, policy, config) {
                Ok(case) => reports.push(Report {
                    file: name.clone(),
                    line: item.line,
                    name: case.name.clone(),
                    failures: case.run(policy),
                }),
                Err((line, message)) => problems.push(Problem::new(name, line, message)),
            }
        }
    }
    for document in &documents {
        for (line, key) in
            strangers(&document.root, &["policy", "clock", "as", "dst", "database", "catalog", "cases"])
        {
            problems.push(Problem::new(name, line, format!("unknown key {key:?} in a test file")));
        }
    }
    if cases == 0 && problems.len() == before {
        problems.push(Problem::new(name, 0, "the file tests nothing: it has no cases"));
    }
}

fn print(json: bool, report: &Report) {
    let passed = report.failures.is_empty();
    if json {
        println!(
            "{}",
            json!({"file": &*report.file, "line": report.line, "case": report.name, "passed": passed, "failures": report.failures})
        );
        return;
    }
    if passed {
        println!("ok    {}:{} {}", report.file, report.line, report.name);
        return;
    }
    println!("FAIL  {}:{} {}", report.file, report.line, report.name);
    for failure in &report.failures {
        println!("      {failure}");
    }
}

/// Keys of a map that are not in `known`.
fn strangers<'a>(node: &'a Node, known: &[&str]) -> Vec<(u32, &'a str)> {
    let Value::Map(entries) = &node.value else { return Vec::new() };
    let unknown = entries.iter().filter(|(key, _)| !known.contains(&key.text.as_str()));
    unknown.map(|(key, _)| (key.line, key.text.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_core::policy::Surroundings;

    fn shipped() -> Policy {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        crate::bundle::load(&folder, &Surroundings::default()).unwrap().policy
    }

    fn ran(text: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let (mut problems, mut reports) = (Vec::new(), Vec::new());
        file(&Arc::from("x_test.yaml"), text, &Arc::new(shipped()), None, &mut problems, &mut reports);
        let problems = problems.iter().map(ToString::to_string).collect();
        (problems, reports.into_iter().map(|report| report.failures).collect())
    }

    #[test]
    fn the_shipped_packs_pass_their_own_tests() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
        let policy = Arc::new(shipped());
        for path in folder::tests(&folder).unwrap() {
            let (mut problems, mut reports) = (Vec::new(), Vec::new());
            let text = folder::text(&path).unwrap();
            file(&Arc::from("packs"), &text, &policy, None, &mut problems, &mut reports);
            assert!(problems.is_empty(), "{problems:?}");
            assert!(reports.len() > 10, "{path:?}");
            for report in reports {
                assert!(
                    report.failures.is_empty(),
                    "{}:{} {:?}",
                    path.display(),
                    report.line,
                    report.failures
                );
            }
        }
    }

    #[test]
    fn a_wrong_expectation_fails_and_says_why() {
        let (problems, failures) = ran("policy: database\nclock: 2026-11-20T10:00:00Z\ncases:\n  \
             - {as: {groups: [engineering]}, sql: \"SELECT 1\", expect: {decision: deny, mask: []}}\n");
        assert!(problems.is_empty(), "{problems:?}");
        let text = failures.concat().join("; ");
        assert!(text.contains("expected deny, got allow") && text.contains("was not expected"), "{text}");
    }

    #[test]
    fn files_that_test_nothing_are_errors() {
        for (text, part) in [
            ("policy: database\nclock: 2026-11-20T10:00:00Z\n", "tests nothing"),
            ("policy: database\nclock: 2026-11-20T10:00:00Z\ncases: [{sql: x}]\n", "expects nothing"),
            (
                "policy: database\nclock: 2026-11-20T10:00:00Z\ncases: [{expect: {decision: deny}}]\n",
                "has no act",
            ),
            ("policy: database\ncases: [{sql: x, expect: {decision: deny}}]\n", "frozen time"),
            (
                "policy: nope\nclock: 2026-11-20T10:00:00Z\ncases: [{sql: x, expect: {decision: deny}}]\n",
                "no policy is named",
            ),
            (
                "policy: database\nclock: 2026-11-20T10:00:00Z\ncases: [{sql: x, expect: {}}]\n",
                "expect is empty",
            ),
            ("cases: [{sq: x}]\n", "unknown key"),
        ] {
            let (problems, reports) = ran(text);
            assert!(problems.iter().any(|problem| problem.contains(part)), "{text}: {problems:?}");
            assert!(reports.is_empty());
        }
    }
}
