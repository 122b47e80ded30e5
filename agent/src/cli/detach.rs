//! `weir detach`: the one way to open the fence. It refuses while an agent runs: the running agent lifts it itself,
//! so that the audit row is written by the one who writes the ledger.

use std::process::ExitCode;

use super::Common;
use crate::config::Config;
use crate::kernel;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    let config = Config::load(&common.config)?;
    if kernel::detach(&config.fence)? {
        println!("the fence at {} is lifted: labelled workloads go direct", config.fence.bpffs.display());
    } else {
        println!("no fence is up at {}", config.fence.bpffs.display());
    }
    Ok(ExitCode::SUCCESS)
}
