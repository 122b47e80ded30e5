//! `cargo xtask bench [NAME] [--rounds N] [--seconds S] [--json]`: weir beside no proxy and beside its peers, in turns.
//! It refuses to quote a time alone: every figure is a ratio within one round, or processor time for each act.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

mod fence;
mod hop;
mod machine;
mod pgbench;
mod pgbouncer;
mod report;
mod rounds;
mod rows;
mod web;

use report::Report;

/// One of the benches: it adds its cases to the report.
type Bench = fn(&Wish, &mut Report) -> Result<()>;

/// The benches by name.
const BENCHES: [(&str, Bench); 5] = [
    ("pgbench", pgbench::run),
    ("rows", rows::run),
    ("http", web::run),
    ("fence", fence::run),
    ("hop", hop::run),
];

/// Clients run on the first core; the server and whatever stands in front of it share the second, so that a proxy pays
/// for its work and not for waking another core.
const CLIENT_CORE: &str = "0";
const SERVER_CORE: &str = "1";

pub fn run(arguments: &[String]) -> Result<()> {
    let wish = Wish::parse(arguments)?;
    let pinned = machine::cores()? == SERVER_CORE;
    let binary = std::env::var_os("WEIR_BIN").map(PathBuf::from);
    let binary = binary.map_or_else(build, Ok)?;
    if !pinned {
        return Err(again(arguments, &binary));
    }
    let mut report = Report::new(machine::facts(&binary, &wish)?);
    for (name, bench) in BENCHES {
        if wish.only.as_deref().is_none_or(|only| only == name) {
            bench(&wish, &mut report).with_context(|| format!("bench {name}"))?;
        }
    }
    if wish.json {
        report.json()
    } else {
        report.print()
    }
    Ok(())
}

/// What the user asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    rounds: usize,
    /// Length of one run.
    seconds: u64,
    only: Option<String>,
    json: bool,
}

impl Wish {
    fn parse(arguments: &[String]) -> Result<Wish> {
        let mut wish = Wish { rounds: 7, seconds: 5, only: None, json: false };
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().with_context(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => wish.rounds = number(value()?)?,
                "--seconds" => wish.seconds = number(value()?)? as u64,
                "--json" => wish.json = true,
                option if option.starts_with('-') => bail!("bench knows no {option}"),
                name => wish.only = Some(name.to_owned()),
            }
        }
        match &wish.only {
            Some(only) if !BENCHES.iter().any(|(name, _)| name == only) => {
                let names = BENCHES.map(|(name, _)| name).join(", ");
                bail!("no bench is named {only}; there are: {names}")
            }
            Some(_) | None => Ok(wish),
        }
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse().ok().filter(|number| *number > 0).with_context(|| format!("{text} is no positive number"))
}

/// Builds what is measured: the binary as it is released.
fn build() -> Result<PathBuf> {
    eprintln!("bench: cargo build --release -p weir");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "-p", "weir"])
        .stdout(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("weir does not build");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/weir").canonicalize()?)
}

/// Starts over on the server's core: every server and proxy inherits it. Returns only when that fails.
fn again(arguments: &[String], binary: &Path) -> anyhow::Error {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(fault) => return fault.into(),
    };
    let fault = Command::new("taskset")
        .args(["-c", SERVER_CORE])
        .arg(own)
        .arg("bench")
        .args(arguments)
        .env("WEIR_BIN", binary)
        .exec();
    anyhow::Error::new(fault).context("cannot start taskset; benchmarks need two cores")
}

/// A command on the clients' core.
fn client(command: &[&str]) -> Vec<String> {
    ["taskset", "-c", CLIENT_CORE].iter().chain(command).map(|word| (*word).to_owned()).collect()
}

/// Runs a client to its end and returns what it printed.
fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Wish> {
        Wish::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_read_and_mistakes_named() {
        let wish = parse("http --rounds 3 --seconds 2 --json").unwrap();
        assert_eq!(wish, Wish { rounds: 3, seconds: 2, only: Some("http".into()), json: true });
        assert!(parse("nothing").unwrap_err().to_string().contains("pgbench, rows, http"));
        assert!(parse("--rounds 0").is_err());
        assert!(parse("--rounds").is_err());
        assert!(parse("--fast").is_err());
    }
}
