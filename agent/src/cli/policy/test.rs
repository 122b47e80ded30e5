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
    let policy = load(config.as_ref(), dir)?.policy;
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
    policy: &Policy,
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
