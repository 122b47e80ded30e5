//! Packages of Debian and Ubuntu. It refuses to let them start a service or make a database cluster.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{ask, step};

/// Alternatives separated by `|`, the first that the distribution has is taken; and what it is for.
const PACKAGES: [(&str, &str); 20] = [
    ("build-essential", "compiling C dependencies"),
    ("pkg-config", "finding libraries"),
    ("cmake", "building aws-lc"),
    ("clang", "building aws-lc and libpg_query"),
    ("libclang-dev", "bindings of libpg_query"),
    ("git", "policies are a git checkout"),
    ("curl", "tests: an unmodified HTTP client"),
    ("openssl", "tests: certificates"),
    ("iproute2", "tests: network namespaces"),
    ("systemd", "tests: systemd-analyze looks at the shipped units (it is not started)"),
    ("python3", "tests: unmodified clients"),
    ("python3-venv", "tests: unmodified Python clients in an environment of their own"),
    ("npm", "tests and demo: node-postgres, ClickHouse's engine"),
    ("nodejs", "tests: an unmodified Node client"),
    ("postgresql-15|postgresql", "tests: a real server (no cluster is made)"),
    ("postgresql-client-15|postgresql-client", "tests: psql"),
    ("nginx-light|nginx", "benchmarks: an HTTP peer (not started)"),
    ("haproxy", "benchmarks: a proxy peer (not started)"),
    ("pgbouncer", "benchmarks: a PostgreSQL peer (not started)"),
    ("wrk", "benchmarks: load"),
];

/// Everything that building and testing needs.
pub(super) fn install() -> Result<()> {
    install_these(&PACKAGES)
}

/// What of `packages` is missing.
pub(super) fn install_these(packages: &[(&str, &str)]) -> Result<()> {
    if ask("dpkg-query", &["--version"]).is_none() {
        let names: Vec<&str> = packages.iter().map(|(names, _)| *names).collect();
        bail!("this is no Debian or Ubuntu: install the counterparts of these by hand: {}", names.join(", "));
    }
    let missing: Vec<_> = packages.iter().filter(|(names, _)| !names.split('|').any(is_installed)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if ask("id", &["-u"]).as_deref() != Some("0") {
        bail!(
            "run as root to install: {}",
            missing.iter().map(|(names, _)| *names).collect::<Vec<_>>().join(", ")
        );
    }
    keep_clusters_unmade()?;
    let _quiet = QuietServices::begin()?;
    for (names, why) in &missing {
        println!("setup: {names}: {why}");
    }
    step("the package lists may be old", apt().args(["update", "-q"]))?;
    let wanted = missing.iter().map(|(names, _)| available(names)).collect::<Result<Vec<_>>>()?;
    let mut install = apt();
    install.args(["install", "-y", "-q", "--no-install-recommends"]).args(wanted);
    step("these packages are missing", &mut install)
}

fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// As a package, or from elsewhere: what counts is that it works.
fn is_installed(name: &str) -> bool {
    let works = match name {
        "npm" => ask("npm", &["--version"]).is_some(),
        "nodejs" => ask("node", &["--version"]).is_some(),
        "python3-venv" => ask("python3", &["-c", "import venv, ensurepip"]).is_some(),
        _ => false,
    };
    works || is_package(name)
}

fn is_package(name: &str) -> bool {
    ask("dpkg-query", &["-W", "-f=${Status}", name]).is_some_and(|status| status.ends_with(" installed"))
}

/// Of `apt-cache policy`: "Installed: (none)" says nothing about what could be installed.
fn has_candidate(policy: &str) -> bool {
    let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    candidate.is_some_and(|version| version != "(none)")
}

fn available(names: &str) -> Result<&str> {
    let has = |name: &&str| ask("apt-cache", &["policy", name]).is_some_and(|text| has_candidate(&text));
    names
        .split('|')
        .find(|name| has(name) || is_installed(name))
        .with_context(|| format!("no package {names} to be had"))
}

/// Debian makes and starts a cluster with the server's package unless it is told not to; tests make their own.
fn keep_clusters_unmade() -> Result<()> {
    let path = Path::new("/etc/postgresql-common/createcluster.conf");
    if path.exists() {
        return Ok(());
    }
    println!("setup: {}: no PostgreSQL cluster is to be made by the package", path.display());
    fs::create_dir_all("/etc/postgresql-common").context("/etc/postgresql-common")?;
    fs::write(path, "create_main_cluster = false\n").with_context(|| path.display().to_string())
}

/// While it lives, packages may not start their services (invoke-rc.d(8)). A policy of the host's own is left alone.
struct QuietServices {
    path: Option<&'static Path>,
}

impl QuietServices {
    fn begin() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let path = Path::new("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self { path: None });
        }
        fs::write(path, "#!/bin/sh\nexit 101\n").with_context(|| path.display().to_string())?;
        let quiet = Self { path: Some(path) };
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .with_context(|| path.display().to_string())?;
        Ok(quiet)
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if let Some(path) = self.path {
            // Left behind it would keep services from starting: say so.
            if let Err(fault) = fs::remove_file(path) {
                eprintln!("setup: remove {} by hand: {fault}", path.display());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_can_still_be_had() {
        let fresh = "build-essential:\n  Installed: (none)\n  Candidate: 12.9\n  Version table:\n";
        assert!(has_candidate(fresh));
        assert!(!has_candidate("ghost:\n  Installed: (none)\n  Candidate: (none)\n"));
        assert!(!has_candidate(""));
    }
}
