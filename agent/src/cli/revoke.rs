//! `weir revoke`: ends the open connections of a workload, a person or a process tree at once. It refuses to promise more:
//! whether they may connect again is for the policy to say.

use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use super::Common;
use crate::config::Config;
use crate::control::client::Client;
use crate::control::{Request, Response};
use crate::live::Whose;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("whose").required(true).multiple(false)))]
pub(crate) struct Args {
    /// All connections of this workload.
    #[arg(long, group = "whose")]
    workload: Option<String>,
    /// All connections of this person (a user of `people`).
    #[arg(long, group = "whose")]
    user: Option<String>,
    /// All connections of this process and its descendants.
    #[arg(long, group = "whose")]
    pid: Option<u32>,
    /// Why; it goes into the audit.
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let whose = match (args.workload, args.user, args.pid) {
        (Some(name), _, _) if !config.workloads.iter().any(|workload| workload.name == name) => {
            bail!("{} has no workload {name:?}", common.config.display())
        }
        (Some(name), _, _) => Whose::Workload(name),
        (None, Some(user), _) => Whose::User(user),
        (None, None, Some(pid)) => Whose::Process(pid),
        (None, None, None) => bail!("say whose: --workload, --user or --pid"),
    };
    let request = Request::Revoke { whose, reason: args.reason };
    let Response::Revoked { connections } = Client::connect(&config.control)?.ask(&request)? else {
        bail!("the agent answered something else");
    };
    if common.json {
        println!("{}", json!({"connections": connections}));
    } else {
        println!("{connections} connections ended");
    }
    Ok(ExitCode::SUCCESS)
}
