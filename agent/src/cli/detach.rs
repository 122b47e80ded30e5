//! `weir detach`.

use std::process::ExitCode;

use super::Common;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let _ = (common, args);
    anyhow::bail!("this build cannot do that yet")
}
