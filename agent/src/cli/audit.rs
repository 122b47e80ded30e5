//! `weir audit`: ask, follow, prove and hand over the trail. It refuses to change anything.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;

use super::Common;

mod export;
mod query;
mod sheet;
mod tail;
mod verify;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Ask in SQL. Table `audit`; views acts, denials, approvals, masks, destinations, workloads, admin, would.
    Query(query::Args),
    /// Show the newest records, and follow.
    Tail(tail::Args),
    /// Prove that nothing was changed, removed or added; exit 1 names the first bad record.
    Verify(verify::Args),
    /// Write the trail to a file that `weir audit verify --file` proves anywhere.
    Export(export::Args),
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    match args.what {
        What::Query(args) => query::run(common, &args),
        What::Tail(args) => tail::run(common, &args),
        What::Verify(args) => verify::run(common, &args),
        What::Export(args) => export::run(common, &args),
    }
}

/// How long a command waits for a live agent to store what it has written.
const PATIENCE: Duration = Duration::from_secs(10);
