//! The loopback hop at scale: 60,000 connections held open at once through the hooks, by the fence's own harness.
//! It refuses to pass when one of them failed.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Wish;
use super::report::{Goal, Report};

/// More than one process's descriptors, and twice the ports of one address.
const CONNECTIONS: u64 = 60_000;

pub(super) fn run(wish: &Wish, report: &mut Report) -> Result<()> {
    let rounds = (0..wish.rounds).map(|_| measure()).collect::<Result<Vec<Value>>>()?;
    let median = |field: &str| {
        let mut figures: Vec<f64> = rounds.iter().filter_map(|round| round[field].as_f64()).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let case = "connect, 60,000 connections held open";
    let empty = median("first_p99_ns");
    report.hook(case, "without the fence, median", median("direct_p50_ns"), None);
    report.hook(case, "without the fence, 99th percentile", median("direct_p99_ns"), None);
    report.hook(case, "the first, median", median("first_p50_ns"), None);
    report.hook(case, "the first, 99th percentile", empty, None);
    report.hook(case, "the last, median", median("last_p50_ns"), None);
    report.hook(case, "the last, 99th percentile", median("last_p99_ns"), Some(Goal::Hook(2.0 * empty)));
    Ok(())
}

fn measure() -> Result<Value> {
    let mut harness = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    harness
        .args(["test", "--quiet", "--package", "weir", "--test", "fence"])
        .env("WEIR_HOP", CONNECTIONS.to_string());
    let output = harness.output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let told =
        text.lines().find(|line| line.starts_with('{')).with_context(|| format!("no figures: {text}"))?;
    let told: Value = serde_json::from_str(told)?;
    if told["failed"] != 0 || told["connections"] != CONNECTIONS {
        bail!("connections failed: {told}");
    }
    eprintln!("bench: hop: {told}");
    Ok(told)
}
