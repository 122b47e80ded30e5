//! `weir detach`: the one way to open the fence, recorded before it opens. A running agent is asked to do it; without one
//! the ledger is opened here. It refuses to open what it cannot record.

use std::process::ExitCode;

use anyhow::bail;
use weir_core::audit::{Durability, Kind, Record};

use super::Common;
use crate::config::Config;
use crate::control::client::Client;
use crate::control::{Request, Response};
use crate::ledger::{Appending, Ledger};
use crate::{clock, kernel};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Why; it goes into the audit.
    #[arg(long, default_value = "")]
    reason: String,
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let lifted = match Client::connect(&config.control) {
        Ok(mut agent) => match agent.ask(&Request::Detach { reason: args.reason })? {
            Response::Detached => true,
            _ => bail!("the agent answered something else"),
        },
        Err(_) => without_agent(&config, args.reason)?,
    };
    if lifted {
        println!("the fence at {} is lifted: labelled workloads go direct", config.fence.bpffs.display());
    } else {
        println!("no fence is up at {}", config.fence.bpffs.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn without_agent(config: &Config, reason: String) -> anyhow::Result<bool> {
    if !kernel::is_up(&config.fence) {
        return Ok(false);
    }
    let uid = rustix::process::getuid().as_raw();
    let who = config.person(uid).map_or_else(|| format!("uid {uid}"), |person| person.user.clone());
    let ledger = Ledger::open(&config.audit, &config.node)?;
    let record = Record {
        ts: clock::wall_ns(),
        kind: Kind::Admin,
        method: "detach".into(),
        user: who,
        reason,
        durability: Durability::Strict,
        ..Record::default()
    };
    match ledger.append(&record) {
        Appending::Done(_) => {}
        Appending::Waiting(pending) => {
            pending.wait().map_err(anyhow::Error::msg)?;
        }
        Appending::Refused(why) => bail!("the audit row cannot be written, so the fence stays: {why}"),
    }
    Ok(kernel::detach(&config.fence)?)
}
