//! Unmodified clients of other languages, installed once into a cache: a Python environment and a Node folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// Exact versions, so that a run means the same next year.
const PYTHON: &[&str] = &["psycopg[binary]==3.3.9", "asyncpg==0.32.0", "requests==2.34.2", "httpx==0.28.1"];
const NODE: &[&str] = &["pg@8.23.1"];

/// Where downloads that several checkouts share are kept: `WEIR_CACHE`, else `~/.cache/weir`.
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("WEIR_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/weir"),
        PathBuf::from,
    )
}

/// A Python with psycopg, asyncpg, requests and httpx.
///
/// # Errors
/// python3 or its venv module is missing, or the packages cannot be had.
pub fn python() -> anyhow::Result<PathBuf> {
    let home = cache().join("python");
    let python = home.join("bin/python");
    once(&home, &PYTHON.join(" "), || {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON))
    })?;
    Ok(python)
}

/// A folder whose `node_modules` holds node-postgres; run node in it.
///
/// # Errors
/// npm is missing, or the packages cannot be had.
pub fn node() -> anyhow::Result<PathBuf> {
    let home = cache().join("node");
    once(&home, &NODE.join(" "), || {
        fs::create_dir_all(&home)?;
        fs::write(home.join("package.json"), "{\"private\": true}")?;
        run(Command::new("npm")
            .current_dir(&home)
            .args(["install", "--no-audit", "--no-fund", "--silent"])
            .args(NODE))
    })?;
    Ok(home)
}

/// Runs `install` unless this very list was installed before; two processes take turns.
fn once(home: &Path, list: &str, install: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    fs::create_dir_all(cache())?;
    let lock = fs::File::create(home.with_extension("lock"))?;
    lock.lock()?;
    let stamp = home.with_extension("installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == list) {
        return Ok(());
    }
    install()?;
    fs::write(&stamp, list)?;
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
