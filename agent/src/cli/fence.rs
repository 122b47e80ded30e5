//! `weir fence`: raises the fence and leaves it closed, for the time at boot before the agent serves. Labelled workloads
//! that start early are refused instead of going direct. It refuses to touch the fence of a living agent.

use std::process::ExitCode;

use serde_json::json;

use super::Common;
use crate::config::Config;
use crate::kernel::{Fence, FenceError};
use crate::workload::Workloads;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, _args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let labels = match Fence::raise(&config.fence) {
        Ok(fence) => {
            Workloads::new(&config)?.apply(&fence)?;
            fence.leave()?;
            fence.labels()?.len()
        }
        Err(FenceError::Held(_)) => {
            let word = "a living agent holds the fence: nothing to do";
            println!(
                "{}",
                if common.json { json!({"raised": false, "why": word}).to_string() } else { word.into() }
            );
            return Ok(ExitCode::SUCCESS);
        }
        Err(fault) => return Err(fault.into()),
    };
    match common.json {
        true => println!("{}", json!({"raised": true, "labels": labels})),
        false => {
            println!("the fence is up and closed until `weir agent` serves; {labels} cgroups are labelled")
        }
    }
    Ok(ExitCode::SUCCESS)
}
