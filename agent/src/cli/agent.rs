//! `weir agent`: the daemon.

use std::process::ExitCode;

use anyhow::Context;

use super::Common;
use crate::config::Config;
use crate::kernel::inherit::Inheritance;
use crate::{app, privilege, relay, upgrade};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Descriptors from the program that this process was before `weir upgrade`.
    #[arg(long, hide = true)]
    inherited: Option<String>,
    /// Be the process that reads what workloads and servers say; its standard input is the lane to the agent.
    #[arg(long, hide = true)]
    relay: bool,
    /// Load everything that can be loaded beside a running agent, and end.
    #[arg(long)]
    rehearse: bool,
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let inheritance = args.inherited.as_deref().map(Inheritance::adopt).transpose()?;
    if args.rehearse {
        upgrade::rehearse(&common.config)?;
        return Ok(ExitCode::SUCCESS);
    }
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if args.relay {
        relay::run(&common.config)?;
        return Ok(ExitCode::SUCCESS);
    }
    privilege::reduce::to_what_is_needed().context("giving up what is not needed")?;
    app::run(Config::load(&common.config)?, inheritance.unwrap_or_default())?;
    Ok(ExitCode::SUCCESS)
}
