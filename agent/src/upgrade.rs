//! An upgrade in place: the agent makes sure that the new program could start, lets what is under way end, and executes
//! it as the same process, with its listening sockets. The fence stays up throughout, and connections wait in the queue.
//! It refuses to leave a working agent for a program that cannot read its configuration.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::app::Agent;
use crate::config::Config;
use crate::credential::Secrets;
use crate::kernel::inherit::Inheritance;
use crate::{bundle, kernel};

/// How long open connections may go on before the agent changes over; what is still open then is reset.
pub const DRAIN: Duration = Duration::from_secs(2);
/// How long the relaying process may take to end when no connection is open: questions may be under way.
pub const LAST: Duration = Duration::from_millis(500);
/// How long the new program may take to say that it could start.
const TRIAL: Duration = Duration::from_secs(30);

/// Loads what can be loaded beside a running agent: configuration, policies, secrets, the kernel programs.
///
/// # Errors
/// Whatever would keep the agent from starting with these files.
pub fn rehearse(config: &Path) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let missing =
        kernel::try_out(&config.fence).context("the kernel does not take this version's programs")?;
    let surroundings = bundle::surroundings(&config, &missing);
    bundle::load(&config.policies, &surroundings).map_err(|why| anyhow::anyhow!("{why}"))?;
    Secrets::load(&config.secrets).map_err(anyhow::Error::msg)?;
    Ok(())
}

/// The program on the disk, tried out with this agent's own arguments.
///
/// # Errors
/// It does not start, does not end in time, or says why it could not serve.
pub async fn try_out(program: &Path) -> anyhow::Result<()> {
    let mut trial = tokio::process::Command::new(program);
    trial.args(arguments()).arg(REHEARSE).kill_on_drop(true);
    let ended = tokio::time::timeout(TRIAL, trial.output())
        .await
        .with_context(|| {
            format!("{} does not say within {} s that it could start", program.display(), TRIAL.as_secs())
        })?
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !ended.status.success() {
        bail!("{} could not start: {}", program.display(), String::from_utf8_lossy(&ended.stderr).trim());
    }
    Ok(())
}

/// Waits until no connection is open, for [`DRAIN`] at most; returns how many still are.
pub(crate) async fn drain(agent: &Agent) -> u64 {
    let ended = async {
        loop {
            let left = agent.left.notified();
            if agent.connections.load(Ordering::SeqCst) == 0 {
                return;
            }
            left.await;
        }
    };
    let _ = tokio::time::timeout(DRAIN, ended).await;
    agent.connections.load(Ordering::SeqCst)
}

/// Becomes the new program. Returns only if it cannot.
pub(crate) fn become_new(agent: &Arc<Agent>, inheritance: Inheritance) -> anyhow::Error {
    let changed = || -> anyhow::Result<std::convert::Infallible> {
        agent.ledger.flush();
        agent.fence.bridge()?;
        let inherited = inheritance.bequeath()?;
        let fault = Command::new(&agent.program).args(arguments()).arg(INHERITED).arg(inherited).exec();
        Err(fault).with_context(|| format!("cannot execute {}", agent.program.display()))
    };
    match changed() {
        Ok(never) => match never {},
        Err(fault) => fault,
    }
}

/// Where the running program lies, also after another one was put in its place.
///
/// # Errors
/// /proc is not readable.
pub fn program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

/// What the process was started with, but for what an earlier upgrade added.
pub(crate) fn arguments() -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        match argument == INHERITED {
            true => drop(given.next()),
            false => kept.push(argument),
        }
    }
    kept
}

const INHERITED: &str = "--inherited";
const REHEARSE: &str = "--rehearse";
