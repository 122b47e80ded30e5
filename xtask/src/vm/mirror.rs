//! Debian's kernels through apt, with lists and a cache of our own, from the mirrors that this host already uses.
//! It refuses to name a mirror itself, and to change what apt knows of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Suites that have kernels of their own, by the suite of the host's that shows where they are.
const ARCHIVE: [&str; 2] = ["bookworm-backports", "trixie-backports"];
const SECURITY: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
/// Whose presence says that a source is Debian's archive.
const RELEASES: [&str; 8] =
    ["bullseye", "bookworm", "trixie", "forky", "oldstable", "stable", "testing", "unstable"];

/// apt with a state of its own.
pub(super) struct Mirror {
    folder: PathBuf,
}

impl Mirror {
    pub(super) fn open(folder: &Path) -> Result<Mirror> {
        let sources = host_sources();
        let lines = lines(&sources);
        if lines.is_empty() {
            bail!("this host's apt sources name no mirror of Debian; give kernels with --deb FILE");
        }
        let folder = folder.join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("sources.list"), lines.join("\n") + "\n")?;
        let mirror = Mirror { folder };
        eprintln!("vm: reading {} package lists …", lines.len());
        // A suite that has gone makes this fail; the others are read all the same.
        if !mirror.apt("apt-get").args(["update", "-qq"]).status().context("cannot start apt-get")?.success()
        {
            eprintln!("vm: not every package list could be read; going on with the rest");
        }
        Ok(mirror)
    }

    /// Names of all kernel packages on offer.
    pub(super) fn kernels(&self) -> Result<Vec<String>> {
        let mut search = self.apt("apt-cache");
        search.args(["search", "--names-only", "^linux-image-[0-9].*-cloud-amd64"]);
        let output = search.output().context("cannot start apt-cache")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.split_whitespace().next());
        let kernels: Vec<String> = names.map(str::to_owned).collect();
        if kernels.is_empty() {
            bail!("the mirrors of this host offer no kernel");
        }
        Ok(kernels)
    }

    /// The package's file, downloaded once.
    pub(super) fn download(&self, package: &str) -> Result<PathBuf> {
        let debs = self.folder.join("debs").join(package);
        let find = || {
            let files = fs::read_dir(&debs).into_iter().flatten().flatten().map(|entry| entry.path());
            files.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "deb"))
        };
        if let Some(deb) = find() {
            return Ok(deb);
        }
        fs::create_dir_all(&debs)?;
        let status = self.apt("apt-get").args(["download", "-qq", package]).current_dir(&debs).status()?;
        if !status.success() {
            bail!("`apt-get download {package}` failed");
        }
        find().with_context(|| format!("apt-get downloaded no {package}"))
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        let paths = [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::Status", "status"),
            ("Dir::Cache", "cache"),
        ];
        for (option, path) in paths {
            apt.arg("-o").arg(format!("{option}={}", self.folder.join(path).display()));
        }
        // The lists' owner is whoever runs this; only the packages' lists are wanted.
        apt.args(["-o", "Dir::Etc::SourceParts=-", "-o", "APT::Sandbox::User="]);
        apt.args([
            "-o",
            "Acquire::Languages=none",
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        ]);
        apt
    }
}

/// Where a host gets packages from: address, suite, and the key it is signed by.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suite: String,
    key: Option<String>,
}

fn host_sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let parts = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    paths.push("/etc/apt/sources.list".into());
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap_or_default();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("sources") => sources.extend(stanzas(&text)),
            Some("list") => sources.extend(text.lines().filter_map(one_line)),
            _ => {}
        }
    }
    sources
}

/// `deb [signed-by=KEY] URI SUITE COMPONENT…` (sources.list(5)).
fn one_line(line: &str) -> Option<Source> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let key = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    Some(Source { uri: words.next()?.into(), suite: words.next()?.into(), key: key.map(Into::into) })
}

/// The same in deb822 form. A key written out in place is left out: apt's own keys are tried then.
fn stanzas(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            let mut lines = stanza.lines().filter(|line| !line.starts_with('#'));
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map_or("", str::trim)
        };
        let is_off = field("Enabled") == "no" || !field("Types").split_whitespace().any(|kind| kind == "deb");
        if is_off {
            continue;
        }
        let key = Some(field("Signed-By")).filter(|key| key.starts_with('/')).map(str::to_owned);
        for uri in field("URIs").split_whitespace() {
            for suite in field("Suites").split_whitespace() {
                sources.push(Source { uri: uri.into(), suite: suite.into(), key: key.clone() });
            }
        }
    }
    sources
}

/// The private list: suites with kernels, at the host's own mirrors.
fn lines(sources: &[Source]) -> Vec<String> {
    let archive = sources.iter().find(|source| RELEASES.contains(&source.suite.as_str()));
    let is_security = |source: &&Source| {
        source.suite.strip_suffix("-security").is_some_and(|release| RELEASES.contains(&release))
    };
    let line = |source: &Source, suite: &str| {
        let key = source.key.as_ref().map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
        format!("deb {key}{} {suite} main", source.uri)
    };
    let archive = archive.into_iter().flat_map(|source| ARCHIVE.map(|suite| line(source, suite)));
    let security = sources.iter().find(is_security);
    archive.chain(security.into_iter().flat_map(|source| SECURITY.map(|suite| line(source, suite)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_sources_are_read() {
        let old =
            one_line("deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main").unwrap();
        assert_eq!((old.suite.as_str(), old.key.as_deref()), ("bookworm", Some("/k.gpg")));
        assert_eq!(one_line("deb http://m.example/d sid main").unwrap().key, None);
        assert_eq!(one_line("# deb http://m.example/d sid main"), None);
        assert_eq!(one_line("deb-src http://m.example/d sid main"), None);
        let text = "Types: deb\n# a remark\nURIs: http://m.example/debian\nSuites: trixie trixie-updates\n\
                    Signed-By: /k.gpg\n\nTypes: deb-src\nURIs: http://m.example/s\nSuites: trixie\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://m.example/n\nSuites: trixie\n";
        let found = stanzas(text);
        assert_eq!(
            found.iter().map(|source| &*source.suite).collect::<Vec<_>>(),
            ["trixie", "trixie-updates"]
        );
    }

    #[test]
    fn the_private_list_stays_with_the_hosts_mirrors() {
        let source = |uri: &str, suite: &str| Source { uri: uri.into(), suite: suite.into(), key: None };
        let host = [
            source("http://other.example", "stable-tools"),
            source("http://m.example/debian", "bookworm"),
            source("http://m.example/security", "bookworm-security"),
        ];
        let lines = lines(&host);
        assert_eq!(lines.len(), ARCHIVE.len() + SECURITY.len());
        assert!(lines.contains(&"deb http://m.example/debian trixie-backports main".to_owned()));
        assert!(lines.contains(&"deb http://m.example/security bullseye-security main".to_owned()));
        assert!(super::lines(&host[..1]).is_empty());
    }
}
