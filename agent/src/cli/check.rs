//! `weir check`: what this host has, what is missing, what is lost without it, what to do.
//! It refuses to change anything: it reads /proc, /sys and the configured folders; what it loads into the kernel to ask for a
//! feature is two instructions, attached nowhere and dropped at once.

mod features;
mod patterns;
mod probe;
pub(super) mod units;

use std::process::ExitCode;

use serde_json::json;

use super::Common;
use crate::config::{Config, ConfigError};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

/// One thing that was looked at.
#[derive(Debug)]
struct Row {
    what: &'static str,
    state: State,
    found: String,
    /// What weir cannot do without it; empty when all is well.
    lost: &'static str,
    mend: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// weir runs, with less.
    Less,
    /// weir cannot run.
    Missing,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Good => "ok",
            State::Less => "less",
            State::Missing => "MISSING",
        }
    }
}

impl Row {
    fn good(what: &'static str, found: impl Into<String>) -> Row {
        Row { what, state: State::Good, found: found.into(), lost: "", mend: String::new() }
    }

    fn less(
        what: &'static str,
        found: impl Into<String>,
        lost: &'static str,
        mend: impl Into<String>,
    ) -> Row {
        Row { what, state: State::Less, found: found.into(), lost, mend: mend.into() }
    }

    fn missing(
        what: &'static str,
        found: impl Into<String>,
        lost: &'static str,
        mend: impl Into<String>,
    ) -> Row {
        Row { what, state: State::Missing, found: found.into(), lost, mend: mend.into() }
    }
}

pub(crate) fn run(common: &Common, _: Args) -> anyhow::Result<ExitCode> {
    let mut rows = probe::host();
    match Config::load(&common.config) {
        Ok(config) => {
            rows.push(Row::good("configuration", common.config.display().to_string()));
            rows.extend(probe::configured(&config));
            rows.push(patterns::row(&config));
            rows.extend(units::rows(&config));
        }
        Err(fault) => rows.push(unusable(&fault)),
    }
    if common.json {
        for row in &rows {
            println!(
                "{}",
                json!({"what": row.what, "state": row.state.name(), "found": row.found, "lost": row.lost, "do": row.mend})
            );
        }
    } else {
        print(&rows);
    }
    let can_run = rows.iter().all(|row| row.state != State::Missing);
    Ok(if can_run { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn unusable(fault: &ConfigError) -> Row {
    Row::missing(
        "configuration",
        fault.to_string(),
        "everything: the agent does not start",
        "write or mend the file",
    )
}

fn print(rows: &[Row]) {
    let mut table = super::table::new(&["what", "state", "found", "lost without it", "what to do"]);
    for row in rows {
        table.add_row([row.what, row.state.name(), &row.found, row.lost, &row.mend]);
    }
    println!("{table}");
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    match (count(State::Missing), count(State::Less)) {
        (0, 0) => println!("weir can do everything it knows on this host."),
        (0, less) => println!("weir can run here; {less} thing(s) less than it knows, named above."),
        (missing, _) => println!("weir cannot run here: {missing} thing(s) missing."),
    }
}
