//! `weir agent`: the daemon.

use std::process::ExitCode;

use super::Common;
use crate::app;
use crate::config::Config;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, _args: Args) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    app::run(Config::load(&common.config)?)?;
    Ok(ExitCode::SUCCESS)
}
