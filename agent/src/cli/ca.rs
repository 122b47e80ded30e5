//! `weir ca`: the host's CA, where clients find it, and whether this host's programs trust it.
//! It refuses to touch a file of the trust store that is not its own.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context, bail};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use super::Common;
use crate::config::Config;
use crate::tls::{Authority, CaFacts};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Subject, fingerprint, validity, files, and whether this host trusts it.
    Show,
    /// Print the certificate (PEM), or write it to a file.
    Export {
        #[arg(long)]
        out: Option<PathBuf>,
        /// The system's roots and ours in one file, for variables that replace the roots (`SSL_CERT_FILE`).
        #[arg(long)]
        bundle: bool,
    },
    /// Make the CA if there is none, and let this host's programs trust it (Debian's and Ubuntu's update-ca-certificates).
    Install {
        /// Take it out of the trust store again. The CA itself stays.
        #[arg(long)]
        uninstall: bool,
    },
}

pub(crate) fn run(common: &Common, args: Args) -> anyhow::Result<ExitCode> {
    let config = Config::load(&common.config)?;
    match args.action {
        Action::Show => show(&config, common.json)?,
        Action::Export { out, bundle } => export(&config, out.as_deref(), bundle)?,
        Action::Install { uninstall: true } => uninstall(&config, common.json)?,
        Action::Install { uninstall: false } => install(&config, common.json)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the roots that this host's OpenSSL programs read hold the certificate.
pub(super) fn is_trusted(facts: &CaFacts) -> bool {
    let Ok(text) = fs::read(SYSTEM_ROOTS) else { return false };
    CertificateDer::pem_slice_iter(&text).any(|root| root.is_ok_and(|root| *root == *facts.der))
}

fn show(config: &Config, json: bool) -> anyhow::Result<()> {
    let facts = read(config)?;
    let paths = [config.tls.dir.join("ca.pem"), config.tls.dir.join("bundle.pem")];
    let trusted = is_trusted(&facts);
    if json {
        println!(
            "{}",
            json!({
                "subject": facts.subject, "sha256": facts.fingerprint, "certificate": paths[0], "bundle": paths[1],
                "not_before": stamp(facts.not_before), "not_after": stamp(facts.not_after), "trusted": trusted,
            })
        );
        return Ok(());
    }
    println!("subject      {}", facts.subject);
    println!("sha-256      {}", facts.fingerprint);
    println!("valid        {} to {}", stamp(facts.not_before), stamp(facts.not_after));
    println!("certificate  {}", paths[0].display());
    println!("bundle       {} (the system's roots and ours)", paths[1].display());
    println!(
        "this host    {}",
        if trusted { "trusts it" } else { "does not trust it: run `weir ca install`" }
    );
    println!("\nPrograms with roots of their own need to be told:");
    for (variable, bundled, who) in VARIABLES {
        println!("  {variable}={}  # {who}", paths[usize::from(*bundled)].display());
    }
    Ok(())
}

fn export(config: &Config, out: Option<&Path>, bundle: bool) -> anyhow::Result<()> {
    let path = config.tls.dir.join(if bundle { "bundle.pem" } else { "ca.pem" });
    let text = fs::read(&path).with_context(|| format!("{}: {NO_CA}", path.display()))?;
    match out {
        Some(out) => fs::write(out, text).with_context(|| format!("cannot write {}", out.display())),
        None => io::stdout().write_all(&text).context("cannot print"),
    }
}

fn install(config: &Config, json: bool) -> anyhow::Result<()> {
    let authority = Authority::open_or_create(&config.tls.dir, &config.node)?;
    let path = installed(config);
    let text = fs::read(authority.certificate_path())?;
    fs::write(&path, text).with_context(|| {
        format!(
            "cannot write {}: is this root on Debian or Ubuntu, with ca-certificates installed?",
            path.display()
        )
    })?;
    update()?;
    if !is_trusted(authority.facts()) {
        bail!("{UPDATE} ran, and {SYSTEM_ROOTS} still lacks the CA");
    }
    told(json, &path, true);
    Ok(())
}

fn uninstall(config: &Config, json: bool) -> anyhow::Result<()> {
    let path = installed(config);
    match fs::remove_file(&path) {
        Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
            return Err(fault).with_context(|| format!("cannot remove {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    update()?;
    told(json, &path, false);
    Ok(())
}

fn told(json: bool, path: &Path, trusted: bool) {
    if json {
        println!("{}", json!({"file": path, "trusted": trusted}));
    } else if trusted {
        println!(
            "{} is in place: programs that read the system's roots trust the CA when they next start",
            path.display()
        );
    } else {
        println!("{} is gone: programs stop trusting the CA when they next start", path.display());
    }
}

fn update() -> anyhow::Result<()> {
    let done = Command::new(UPDATE).output().with_context(|| format!("cannot run {UPDATE}"))?;
    if !done.status.success() {
        bail!("{UPDATE} failed: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

fn read(config: &Config) -> anyhow::Result<CaFacts> {
    CaFacts::read(&config.tls.dir).context(NO_CA)
}

/// The name comes from the configuration, so it is kept to what a file name should hold.
fn installed(config: &Config) -> PathBuf {
    let safe = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    let node: String = config.node.chars().map(|letter| if safe(letter) { letter } else { '_' }).collect();
    Path::new(STORE).join(format!("weir-{node}.crt"))
}

fn stamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time)
        .map_or_else(|_| "?".into(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

const STORE: &str = "/usr/local/share/ca-certificates";
const UPDATE: &str = "update-ca-certificates";
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const NO_CA: &str = "there is no CA yet; `weir ca install` or the first start of the agent makes it";
/// Variables of clients that do not read the system's roots: name, whether it replaces (so needs the bundle), who reads it.
const VARIABLES: &[(&str, bool, &str)] = &[
    ("NODE_EXTRA_CA_CERTS", false, "Node.js"),
    ("REQUESTS_CA_BUNDLE", true, "Python requests"),
    ("SSL_CERT_FILE", true, "Python httpx, Go, Ruby, OpenSSL programs in containers"),
    ("PIP_CERT", true, "pip"),
    ("AWS_CA_BUNDLE", true, "AWS tools"),
    ("DENO_CERT", false, "Deno"),
    ("CARGO_HTTP_CAINFO", true, "cargo"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_cannot_leave_the_trust_store() {
        let mut config: Config =
            serde_saphyr::from_str("policies: /p\naudit: {dir: /a}\nnode: \"../../etc/x y\"\n").unwrap();
        assert_eq!(installed(&config), Path::new(STORE).join("weir-______etc_x_y.crt"));
        config.node = "web-1".into();
        assert!(installed(&config).ends_with("weir-web-1.crt"));
    }
}
