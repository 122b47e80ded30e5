//! `weir detach`: the one way to open the fence. It refuses while an agent runs: the running agent lifts it itself,
//! so that the audit row is written by the one who writes the ledger.

use std::process::ExitCode;

use super::Common;
use crate::config::Config;
use crate::kernel::{self, FenceError};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let Args {} = args;
    let config = Config::load(&common.config)?;
    let bpffs = config.fence.bpffs.display();
    match kernel::detach(&config.fence) {
        Ok(true) => println!("the fence at {bpffs} is lifted: labelled workloads go direct"),
        Ok(false) => println!("no fence is up at {bpffs}"),
        Err(FenceError::Held(_)) => anyhow::bail!("the agent of {bpffs} is running: stop it first"),
        Err(fault) => return Err(fault.into()),
    }
    Ok(ExitCode::SUCCESS)
}
