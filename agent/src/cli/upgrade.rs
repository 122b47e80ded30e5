//! `weir upgrade`: the running agent becomes the program that now lies where it was started from. It refuses, and the old
//! one goes on, when the new one cannot start with the configuration as it is.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::json;

use super::Common;
use crate::config::Config;
use crate::control::client::Client;
use crate::control::status::Status;
use crate::control::{Request, Response};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(common: &Common, _args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    let before = status(&config)?;
    match Client::connect(&config.control)?.ask(&Request::Upgrade)? {
        Response::Upgrading => {}
        _ => bail!("the agent answered something else"),
    }
    let asked = Instant::now();
    let after = loop {
        // The control socket outlives the change: an answer comes from the old agent or from the new one.
        match status(&config) {
            Ok(now) if now.ledger.epoch != before.ledger.epoch => break now,
            Ok(_) => {}
            Err(fault) if asked.elapsed() > PATIENCE => return Err(fault),
            Err(_) => {}
        }
        if asked.elapsed() > PATIENCE {
            bail!("the agent has not come back within {} s; see its log", PATIENCE.as_secs());
        }
        std::thread::sleep(PAUSE);
    };
    let took = asked.elapsed().as_millis();
    if common.json {
        println!(
            "{}",
            json!({"from": before.version, "to": after.version, "pid": after.pid, "took_ms": took})
        );
    } else {
        println!("weir {} is now {} (pid {}), after {took} ms", before.version, after.version, after.pid);
    }
    Ok(ExitCode::SUCCESS)
}

fn status(config: &Config) -> anyhow::Result<Status> {
    match Client::connect(&config.control)?.ask(&Request::Status)? {
        Response::Status(status) => Ok(*status),
        _ => bail!("the agent answered something else"),
    }
}

/// The old agent drains for two seconds, and the new one has ten to start.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two questions: the agent has no way to call back through its own replacement.
const PAUSE: Duration = Duration::from_millis(20);
