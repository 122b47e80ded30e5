//! `weir status`: layers, workloads, connections, policy, ledger, ClickHouse.

use std::process::ExitCode;

use anyhow::bail;

use super::{Common, table};
use crate::config::Config;
use crate::control::client::Client;
use crate::control::status::Status;
use crate::control::{Request, Response};
use crate::coverage::Coverage;
use crate::lane::message::Confined;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, _args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let Response::Status(status) = Client::connect(&config.control)?.ask(&Request::Status)? else {
        bail!("the agent answered something else");
    };
    if common.json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        print(&status);
    }
    let sound = status.ledger.fault.is_none()
        && status.policy.problems.is_empty()
        && status.fence_fault.is_none()
        && status.foreign_programs.is_empty()
        && !status.coverage_differs;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn confined(relay: &Confined) -> String {
    let landlock = match relay.landlock {
        0 => "no landlock here".into(),
        version => format!("landlock {version}"),
    };
    format!(
        "pid {}, uid {}, {} capabilities, {} system calls, {landlock}",
        relay.pid, relay.uid, relay.capabilities, relay.system_calls
    )
}

fn covered(coverage: &Coverage) -> String {
    let text = format!(
        "{} turned: {} published, {} taken, {} waiting, {} in handshake, {} given up, {} LOST, {} UNEXPLAINED",
        coverage.turned,
        coverage.published,
        coverage.accepted,
        coverage.waiting(),
        coverage.in_handshake,
        coverage.aborted,
        coverage.lost,
        coverage.unexplained()
    );
    text.replace(", 0 LOST", "").replace(", 0 UNEXPLAINED", ", none unexplained")
}

fn print(status: &Status) {
    let mut rows = table::new(&["", ""]);
    let mut row = |name: &str, value: String| {
        rows.add_row([name.to_owned(), value]);
    };
    row(
        "agent",
        format!("{} {} (pid {}), up {} s", status.node, status.version, status.pid, status.uptime_s),
    );
    row("relaying process", confined(&status.relay));
    row("layers", status.layers.join(", "));
    if !status.layers_missing.is_empty() {
        row("missing here", status.layers_missing.join(", "));
    }
    if let Some(fault) = &status.fence_fault {
        row("FENCE FAULT", fault.clone());
    }
    for program in &status.foreign_programs {
        row("FOREIGN PROGRAM", program.clone());
    }
    row("workloads", status.workloads.join(", "));
    row("connections", status.connections.to_string());
    row("coverage", covered(&status.coverage));
    row("network namespaces", (status.namespaces + 1).to_string());
    row("policy", format!("commit {}, sha256 {}", status.policy.commit, cut(&status.policy.sha256)));
    for problem in &status.policy.problems {
        row("NOT IN FORCE", problem.clone());
    }
    let ledger = &status.ledger;
    row(
        "ledger",
        format!(
            "epoch {}, seq {} ({} stored), {} of {} MiB",
            ledger.epoch,
            ledger.seq,
            ledger.stored_seq,
            ledger.bytes >> 20,
            ledger.max_bytes >> 20
        ),
    );
    if let Some(fault) = &ledger.fault {
        row("LEDGER FAULT", fault.clone());
    }
    match &status.clickhouse {
        Some(clickhouse) => {
            row("clickhouse", format!("{}, {} rows behind", clickhouse.url, clickhouse.lag_rows));
            if let Some(error) = &clickhouse.last_error {
                row("CLICKHOUSE FAULT", error.clone());
            }
        }
        None => row("clickhouse", "not configured: the ledger answers".into()),
    }
    row("approvals open", status.approvals_open.to_string());
    let counts: Vec<String> = status.fence.iter().map(|(name, count)| format!("{name} {count}")).collect();
    row("fence counts", counts.join(", "));
    row("not covered", status.not_covered.join("\n"));
    println!("{rows}");
}

fn cut(sha: &str) -> &str {
    sha.get(..12).unwrap_or(sha)
}
