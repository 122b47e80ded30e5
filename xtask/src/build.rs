//! Builds the product, with cargo's own progress on standard error.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The binary that tests and the demo run.
pub fn weir() -> Result<()> {
    eprintln!("building weir (the first time takes some minutes: BoringSSL, PostgreSQL's grammar, SQLite) …");
    cargo(&["build", "--package", "weir"])
}

/// `cargo ARGS` in the checkout's root.
pub fn cargo(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = command.args(arguments).current_dir(root()).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
