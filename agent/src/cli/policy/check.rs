//! `weir policy check DIR`: the rules as they were understood, or every problem. Exit code 1 when there is one.

use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use serde_json::json;
use weir_core::policy::Policy;

use super::{Common, config, load};
use crate::bundle::BundleError;

pub(super) fn run(common: &Common, dir: &Path) -> anyhow::Result<ExitCode> {
    let config = config(common)?;
    match load(config.as_ref(), dir) {
        Ok(bundle) => {
            match common.json {
                true => println!("{}", as_json(&bundle.policy)),
                false => print(&bundle.policy, bundle.files.len(), config.is_some()),
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(BundleError::Problems { problems, .. }) if common.json => {
            for problem in problems {
                println!(
                    "{}",
                    json!({"file": &*problem.file, "line": problem.line, "message": problem.message})
                );
            }
            Ok(ExitCode::from(1))
        }
        Err(fault) => Err(fault.into()),
    }
}

fn print(policy: &Policy, files: usize, configured: bool) {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_header(["policy", "rule", "then", "mode", "match", "where"]);
    for rule in policy.rules() {
        let tests = match rule.tests.is_empty() {
            true => "everything".into(),
            false => rule.tests.join(", "),
        };
        let mode = if rule.monitored { "monitor" } else { "enforce" };
        let place = format!("{}:{}", rule.file, rule.line);
        table.add_row([
            rule.policy.to_string(),
            rule.rule.to_string(),
            rule.then.into(),
            mode.into(),
            tests,
            place,
        ]);
    }
    println!("{table}");
    println!(
        "{} rules of {} policies in {files} files; commit {}, sha256 {}",
        policy.rules().len(),
        policy.policies().count(),
        policy.commit(),
        policy.sha()
    );
    if !configured {
        println!(
            "no configuration: names of workloads, people, groups and secret providers were not checked (--config)"
        );
    }
}

fn as_json(policy: &Policy) -> serde_json::Value {
    let rules: Vec<_> = policy
        .rules()
        .into_iter()
        .map(|rule| {
            json!({
                "policy": &*rule.policy, "rule": &*rule.rule, "then": rule.then, "match": rule.tests,
                "mode": if rule.monitored { "monitor" } else { "enforce" }, "file": &*rule.file, "line": rule.line,
            })
        })
        .collect();
    json!({
        "rules": rules, "policies": policy.policies().collect::<Vec<_>>(), "names": policy.names(),
        "commit": policy.commit(), "sha256": policy.sha(),
    })
}
