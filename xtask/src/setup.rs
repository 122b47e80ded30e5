//! What a fresh machine lacks: packages of the distribution and a toolchain for the kernel programs. Fast when all is
//! there. It refuses to start services, and to touch anything outside apt, rustup and ~/.cache/weir.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

mod packages;
mod toolchain;

/// Installs what is missing and says so.
pub fn run() -> Result<()> {
    packages::install()?;
    toolchain::install()?;
    println!("setup: all is there");
    Ok(())
}

/// Installs what is missing of these packages (name, why) and says so.
pub fn need(packages: &[(&str, &str)]) -> Result<()> {
    packages::install_these(packages)
}

/// Folder of what is built here, outside the checkout so that every checkout shares it.
fn cache() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".cache/weir"))
}

/// Says what is done and why, then does it.
fn step(why: &str, command: &mut Command) -> Result<()> {
    println!("setup: {why}\n       $ {}", line(command));
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !status.success() {
        bail!("`{}` ended with {status}", line(command));
    }
    Ok(())
}

/// What a command prints, or `None` when it cannot run or fails.
fn ask(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
