//! `weir policy`: load and lint, explain a verdict, run policy tests. It needs no agent, and no configuration either:
//! without one any workload, person, group and provider of secrets is accepted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use weir_core::policy::Surroundings;

use super::Common;
use crate::bundle::{self, Bundle, BundleError};
use crate::config::Config;

mod check;
mod explain;
mod grammar;
mod scene;
mod test;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Load a policy folder: list its rules, or every problem with file and line.
    Check {
        /// Folder of policy files.
        dir: PathBuf,
    },
    /// Say how an act would be judged, and why.
    Explain(Box<explain::Args>),
    /// Run the tests (`*_test.yaml`) of a policy folder.
    Test {
        /// Folder of policy files.
        dir: PathBuf,
    },
    /// Judge recorded history with another policy.
    Shadow {
        /// Folder of policy files.
        dir: PathBuf,
    },
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Check { dir } => check::run(common, &dir),
        Command::Explain(args) => explain::run(common, &args),
        Command::Test { dir } => test::run(common, &dir),
        Command::Shadow { dir: _ } => {
            anyhow::bail!(
                "`weir policy shadow` is not built yet: run the policy with `mode: monitor` instead"
            )
        }
    }
}

/// The configuration where there is one; a broken one is an error, none is not.
fn config(common: &Common) -> anyhow::Result<Option<Config>> {
    match common.config.exists() {
        true => Ok(Some(Config::load(&common.config)?)),
        false => Ok(None),
    }
}

fn load(config: Option<&Config>, dir: &Path) -> Result<Bundle, BundleError> {
    let surroundings = config.map_or_else(Surroundings::default, |config| bundle::surroundings(config, &[]));
    bundle::load(dir, &surroundings)
}
