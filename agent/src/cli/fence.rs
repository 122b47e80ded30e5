//! `weir fence`: raises the fence and leaves it closed, for the time at boot before the agent serves. Labelled workloads
//! that start early are refused instead of going direct. It refuses to touch the fence of a living agent.
//! With `--drop-ins` it raises nothing, and has labelled units wait for that time.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;

use super::Common;
use super::check::units;
use crate::config::Config;
use crate::kernel::{Fence, FenceError};
use crate::workload::Workloads;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Raise nothing; write a drop-in below this folder (/etc/systemd/system) for each labelled unit that does not wait
    /// for weir-fence.service.
    #[arg(long, value_name = "DIR")]
    drop_ins: Option<PathBuf>,
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    if let Some(folder) = args.drop_ins {
        return write_drop_ins(common, &config, &folder);
    }
    let labels = match Fence::raise(&config.fence) {
        Ok(fence) => {
            Workloads::new(&config)?.apply(&fence)?;
            fence.supersede(&config.fence);
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

fn write_drop_ins(common: &Common, config: &Config, folder: &Path) -> anyhow::Result<ExitCode> {
    let labelled = units::labelled(config, &Workloads::new(config)?)?;
    let mut written = Vec::new();
    // One of the early boot that waited for the fence would wait for itself: `weir check` names it.
    for unit in labelled.iter().filter(|unit| !unit.waits && !unit.is_early) {
        let path = folder.join(format!("{}.d/weir.conf", unit.name));
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            std::fs::write(&path, units::drop_in())
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        written.push(path);
    }
    if common.json {
        println!("{}", json!({"labelled": labelled.len(), "written": written}));
        return Ok(ExitCode::SUCCESS);
    }
    for path in &written {
        println!("{}", path.display());
    }
    match (labelled.len(), written.len()) {
        (0, _) => println!("no unit of this host's systemd is labelled by {}", common.config.display()),
        (units, 0) => println!("all {units} labelled units wait for the fence already"),
        (units, count) => println!(
            "{count} of {units} labelled units will wait for the fence after `systemctl daemon-reload`"
        ),
    }
    Ok(ExitCode::SUCCESS)
}
