//! The command line: one module a command. Exit codes: 0 done, 1 a check failed or was refused, 2 wrong use.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod agent;
mod approvals;
mod audit;
mod ca;
mod check;
mod detach;
mod fence;
mod policy;
mod revoke;
mod run;
mod status;
mod table;
mod upgrade;

/// A guard for what workloads send out.
#[derive(Debug, Parser)]
#[command(name = "weir", version, propagate_version = true)]
struct Cli {
    /// Configuration file.
    #[arg(long, global = true, default_value = "/etc/weir/weir.yaml", env = "WEIR_CONFIG")]
    config: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon.
    Agent(agent::Args),
    /// Raise the fence and leave it closed (at boot, before the agent).
    Fence(fence::Args),
    /// Say what this host has, what is missing, and what is lost without it.
    Check(check::Args),
    /// Run a command as a labelled workload.
    Run(run::Args),
    /// Layers, workloads, connections, policy, ledger, ClickHouse.
    Status(status::Args),
    /// Check, explain and test policies.
    Policy(policy::Args),
    /// Answer held acts.
    Approvals(approvals::Args),
    /// Ask, follow and prove the audit trail.
    Audit(audit::Args),
    /// The host's CA.
    Ca(ca::Args),
    /// End the open connections of a workload, a person or a process tree.
    Revoke(revoke::Args),
    /// Let the running agent become the program now on the disk, without refusing a connection.
    Upgrade(upgrade::Args),
    /// Lift the fence, audited.
    Detach(detach::Args),
}

/// Options that every command understands.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) config: PathBuf,
    pub(crate) json: bool,
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let common = Common { config: cli.config, json: cli.json };
    let done = match cli.command {
        Command::Agent(args) => agent::run(&common, args),
        Command::Fence(args) => fence::run(&common, args),
        Command::Check(args) => check::run(&common, args),
        Command::Run(args) => run::run(&common, args),
        Command::Status(args) => status::run(&common, args),
        Command::Policy(args) => policy::run(&common, args),
        Command::Approvals(args) => approvals::run(&common, args),
        Command::Audit(args) => audit::run(&common, args),
        Command::Ca(args) => ca::run(&common, args),
        Command::Revoke(args) => revoke::run(&common, args),
        Command::Upgrade(args) => upgrade::run(&common, args),
        Command::Detach(args) => detach::run(&common, args),
    };
    done.unwrap_or_else(|fault| {
        eprintln!("weir: {fault:#}");
        ExitCode::from(1)
    })
}
