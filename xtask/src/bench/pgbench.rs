//! pgbench -S: one row by primary key, directly, through pgbouncer and through weir with masks and audit on.
//! It refuses to compare a pooler's mode that cannot do the same: prepared statements need session mode in old pgbouncers.

use std::process::Command;

use anyhow::{Context, Result};
use weir_tests::postgres::{Options, PASSWORD, USER};
use weir_tests::{Agent, Lab, Postgres, Setup, policies};

use super::machine::{Spent, version};
use super::pgbouncer::Pgbouncer;
use super::report::{Goal, Report};
use super::rounds::{DIRECT, Rounds, Run};
use super::{Wish, client, output};

const SESSION: &str = "pgbouncer session";
const TRANSACTION: &str = "pgbouncer transaction";
const WEIR: &str = "weir";
/// 200,000 accounts: they fit in the server's buffers.
const SCALE: &str = "2";

struct Stand {
    agent: Agent,
    pooler: Pgbouncer,
    postgres: Postgres,
    // Last: it removes what the others use.
    _lab: Lab,
}

pub(super) fn run(wish: &Wish, report: &mut Report) -> Result<()> {
    let stand = Stand::new()?;
    for mode in ["simple", "prepared"] {
        let names: &[&'static str] = if mode == "simple" || pools_prepared() {
            &[DIRECT, SESSION, WEIR, TRANSACTION]
        } else {
            &[DIRECT, SESSION, WEIR]
        };
        for clients in [1, 8] {
            let case = format!("pgbench -S {mode}, {clients} clients");
            let rounds = Rounds::take(&case, names, wish.rounds, |name| {
                stand.run(name, &["-M", mode], clients, wish.seconds)
            })?;
            report.add(&case, &rounds, &[(WEIR, Goal::Rate(SESSION, 0.9))]);
        }
    }
    let case = "pgbench -S, a connection each";
    let rounds = Rounds::take(case, &[DIRECT, SESSION, WEIR], wish.rounds, |name| {
        stand.run(name, &["-C"], 1, wish.seconds)
    })?;
    report.add(case, &rounds, &[]);
    Ok(())
}

impl Stand {
    fn new() -> Result<Stand> {
        let lab = Lab::new("bench-pgbench")?;
        let postgres = Postgres::start(&lab, Options::default())?;
        let setup = Setup::default()
            .policy("classes.yaml", policies::CLASSES)
            .policy("shop.yaml", &policies::shop(postgres.port));
        let agent = Agent::start(&lab, &setup)?;
        let pooler = Pgbouncer::start(&lab, &postgres)?;
        let stand = Stand { agent, pooler, postgres, _lab: lab };
        let tables = ["pgbench", "--initialize", "--quiet", "--scale", SCALE];
        output(&mut stand.direct(&tables, stand.postgres.port, "shop"))?;
        Ok(stand)
    }

    fn run(&self, name: &str, more: &[&str], clients: u32, seconds: u64) -> Result<Run> {
        let (clients, seconds) = (clients.to_string(), seconds.to_string());
        let load = [&["pgbench", "-n", "-S", "-c", &clients, "-T", &seconds], more].concat();
        let (command, pid) = match name {
            SESSION => (self.direct(&load, self.pooler.port, "session"), Some(self.pooler.pid())),
            TRANSACTION => (self.direct(&load, self.pooler.port, "transaction"), Some(self.pooler.pid())),
            WEIR => (self.labelled(&load)?, Some(self.agent.pid())),
            _ => (self.direct(&load, self.postgres.port, "shop"), None),
        };
        measured(command, pid, || if name == WEIR { self.agent.settle() } else { Ok(()) })
    }

    fn direct(&self, load: &[&str], port: u16, database: &str) -> Command {
        let port = port.to_string();
        let words = client(&[load, &["-h", "127.0.0.1", "-p", &port, "-U", USER, database]].concat());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("PGPASSWORD", PASSWORD).env("PGSSLMODE", "disable");
        command
    }

    fn labelled(&self, load: &[&str]) -> Result<Command> {
        let port = self.postgres.port.to_string();
        let words = client(&[load, &["-h", "127.0.0.1", "-p", &port, "-U", USER, "shop"]].concat());
        let mut command = self.agent.app(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        command.env("PGPASSWORD", PASSWORD).env("PGSSLMODE", "disable");
        Ok(command)
    }
}

/// Runs a pgbench; the proxy's time ends when `settle` says that nothing of it is left to do.
pub(super) fn measured(
    mut command: Command,
    pid: Option<u32>,
    settle: impl FnOnce() -> Result<()>,
) -> Result<Run> {
    let before = pid.map_or(Ok(Spent::default()), Spent::read)?;
    let text = output(&mut command)?;
    settle()?;
    let after = pid.map_or(Ok(Spent::default()), Spent::read)?;
    Ok(Run {
        acts: figure(&text, "number of transactions actually processed: ")?,
        rate: figure(&text, "tps = ")?,
        spent: after.since(before),
    })
}

/// The number that follows `name` in a client's report.
pub(super) fn figure(text: &str, name: &str) -> Result<f64> {
    let (_, rest) = text.split_once(name).with_context(|| format!("no {name:?} in:\n{text}"))?;
    let rest = rest.trim_start();
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
    rest[..end].parse().with_context(|| format!("no number after {name:?} in:\n{text}"))
}

/// pgbouncer keeps prepared statements in transaction mode since 1.21.
fn pools_prepared() -> bool {
    let text = version("pgbouncer", &["--version"]);
    let mut words = text.rsplit(' ').next().unwrap_or_default().split('.').map(str::parse::<u32>);
    match (words.next(), words.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (1, 21),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_a_report() {
        let text = "number of transactions actually processed: 19334\ntps = 3867.1 (without initial connection time)";
        assert_eq!(figure(text, "number of transactions actually processed: ").unwrap(), 19334.0);
        assert_eq!(figure(text, "tps = ").unwrap(), 3867.1);
        assert!(figure(text, "latency average = ").is_err());
    }
}
