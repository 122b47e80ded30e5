//! weir.yaml → [`Config`]. Unknown keys are errors that name file and line; sections that are not built are refused.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// The whole configuration, checked. Paths are as written; cgroup paths are relative to `fence.attach`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this host in every audit row; the host name when absent.
    #[serde(default = "host_name")]
    pub node: String,
    #[serde(default)]
    pub workloads: Vec<Workload>,
    /// Folder of policy files.
    pub policies: PathBuf,
    pub audit: Audit,
    #[serde(default)]
    pub tls: Tls,
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretProvider>,
    #[serde(default)]
    pub people: Vec<Person>,
    #[serde(default)]
    pub fence: Fence,
    #[serde(default)]
    pub dns: Dns,
    /// Unix socket on which the CLI talks to the agent.
    #[serde(default = "control_path")]
    pub control: PathBuf,
    #[serde(default)]
    identity: Option<serde_json::Value>,
    #[serde(default)]
    console: Option<serde_json::Value>,
    /// What it was read from.
    #[serde(skip)]
    pub text: String,
}

/// A label for the cgroups whose path matches; the first match wins.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    pub name: String,
    /// Path below `fence.attach`; `*` matches within one segment. Children of a match are labelled too.
    /// Absent: only `weir run --workload NAME` uses the label.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Person who answers for it.
    #[serde(default)]
    pub owner: String,
    /// What its rows carry as `identity_class`.
    #[serde(default)]
    pub class: IdentityClass,
    /// Unix sockets that it may connect to, by the path that it dials; absent: all but PostgreSQL's.
    #[serde(default)]
    pub unix: Option<Vec<PathBuf>>,
    /// May others open connections to it? Answers on them are not read.
    #[serde(default)]
    pub inbound: Inbound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inbound {
    #[default]
    Allow,
    Deny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentityClass {
    Human,
    #[default]
    Service,
    Ci,
    Agent,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Folder of the ledger.
    pub dir: PathBuf,
    /// Age after which rows leave the ledger (once shipped, where ClickHouse is configured).
    #[serde(default = "retention", deserialize_with = "duration")]
    pub retention: Duration,
    /// Most bytes the ledger may take; full means that new acts are refused.
    #[serde(default = "max_bytes", deserialize_with = "bytes")]
    pub max_bytes: u64,
    #[serde(default)]
    pub clickhouse: Option<ClickHouse>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    pub url: String,
    #[serde(default = "database")]
    pub database: String,
    #[serde(default = "default_user")]
    pub user: String,
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Folder of the host's CA.
    #[serde(default = "ca_dir")]
    pub dir: PathBuf,
}

impl Default for Tls {
    fn default() -> Self {
        Self { dir: ca_dir() }
    }
}

/// Where `provider#name` in policies is looked up.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum SecretProvider {
    /// A YAML map of names to values, readable by root only.
    File(PathBuf),
    /// Environment variables of the agent with this prefix.
    Env(String),
}

/// A person known without an identity provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    pub user: String,
    #[serde(default)]
    pub uids: Vec<u32>,
    #[serde(default)]
    pub groups: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fence {
    /// cgroup at which the hooks attach, below the v2 mount; `/` is the whole host.
    #[serde(default = "attach")]
    pub attach: String,
    /// bpffs folder of the pins.
    #[serde(default = "bpffs")]
    pub bpffs: PathBuf,
    /// Port of the listener; 0 picks a free one.
    #[serde(default)]
    pub port: u16,
    /// Layers without which the agent does not start; as `weir status` names them.
    #[serde(default)]
    pub require: Vec<String>,
}

impl Default for Fence {
    fn default() -> Self {
        Self { attach: attach(), bpffs: bpffs(), port: 0, require: Vec::new() }
    }
}

/// Whom the agent asks for names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// `IP:PORT`; workloads ask the same addresses at port 53. Empty: those of resolv.conf(5), at port 53.
    #[serde(default)]
    pub servers: Vec<SocketAddr>,
    /// Servers that live inside other network namespaces than the agent's, such as Docker's 127.0.0.11: asked there, at
    /// port 53. What they answer proves no name.
    #[serde(default)]
    pub inside: Vec<IpAddr>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {path}: write one (see README.md) or name it with --config")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Invalid { path: PathBuf, message: String },
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// Unreadable file, unknown key or wrong type (with line), a section that this build does not have,
    /// a workload name or person that occurs twice.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(path, text)
    }

    /// The same for a text that was read before.
    ///
    /// # Errors
    /// As [`Config::load`], but for reading.
    pub fn parse(path: &Path, text: String) -> Result<Config, ConfigError> {
        let invalid = |message: String| ConfigError::Invalid { path: path.into(), message };
        let config: Config = serde_saphyr::from_str(&text).map_err(|fault| invalid(fault.to_string()))?;
        Ok(Config { text, ..config.checked().map_err(invalid)? })
    }

    fn checked(self) -> Result<Config, String> {
        if self.identity.is_some() {
            return Err("`identity` is not built yet: remove the section; people come from `people`".into());
        }
        if self.console.is_some() {
            return Err("`console` is not built yet: remove the section; use `weir approvals`".into());
        }
        let mut names = std::collections::BTreeSet::new();
        for workload in &self.workloads {
            if workload.name.is_empty()
                || !workload.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
                || workload.name.starts_with('.')
            {
                return Err(format!(
                    "workload name {:?}: use letters, digits, '-', '_' and '.'",
                    workload.name
                ));
            }
            if !names.insert(&workload.name) {
                return Err(format!("workload {:?} is declared twice", workload.name));
            }
        }
        let mut uids = BTreeMap::new();
        for person in &self.people {
            for uid in &person.uids {
                if let Some(other) = uids.insert(*uid, &person.user) {
                    return Err(format!("uid {uid} belongs to both {other:?} and {:?}", person.user));
                }
            }
        }
        Ok(self)
    }

    /// The person whose uids hold `uid`.
    #[must_use]
    pub fn person(&self, uid: u32) -> Option<&Person> {
        self.people.iter().find(|person| person.uids.contains(&uid))
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".into(), |name| name.trim().to_owned())
}

fn duration<'de, D: serde::Deserializer<'de>>(source: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(source)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("{text:?} is no duration: write a number and s, m, h or d"))
    })
}

/// `90s`, `15m`, `8h`, `30d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale).map(Duration::from_secs)
}

fn bytes<'de, D: serde::Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Number(u64),
        Text(String),
    }
    let text = match Size::deserialize(source)? {
        Size::Number(number) => return Ok(number),
        Size::Text(text) => text,
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let scale = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => 0,
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)) {
        Some(size) if scale > 0 => Ok(size),
        _ => Err(serde::de::Error::custom(format!(
            "{text:?} is no size: write a number and B, KiB, MiB or GiB"
        ))),
    }
}

fn control_path() -> PathBuf {
    "/run/weir/weir.sock".into()
}

fn ca_dir() -> PathBuf {
    "/var/lib/weir/ca".into()
}

fn attach() -> String {
    "/".into()
}

fn bpffs() -> PathBuf {
    "/sys/fs/bpf/weir".into()
}

fn database() -> String {
    "weir".into()
}

fn default_user() -> String {
    "default".into()
}

fn retention() -> Duration {
    Duration::from_secs(30 * 86_400)
}

fn max_bytes() -> u64 {
    10 << 30
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "policies: /p\naudit: {dir: /a}\n";

    fn read(text: &str) -> Result<Config, String> {
        serde_saphyr::from_str::<Config>(text).map_err(|fault| fault.to_string())?.checked()
    }

    #[test]
    fn a_minimal_file_has_defaults() {
        let config = read(MINIMAL).unwrap();
        assert_eq!(config.fence.attach, "/");
        assert_eq!(config.audit.retention, Duration::from_secs(2_592_000));
    }

    #[test]
    fn an_unknown_key_names_its_line() {
        let fault = read(&format!("{MINIMAL}polices: /x\n")).unwrap_err();
        assert!(fault.contains("polices") && fault.contains('3'), "{fault}");
    }

    #[test]
    fn sections_that_are_not_built_are_refused() {
        assert!(
            read(&format!("{MINIMAL}console: {{listen: \"127.0.0.1:1\"}}\n"))
                .unwrap_err()
                .contains("not built")
        );
        assert!(read(&format!("{MINIMAL}identity: {{}}\n")).unwrap_err().contains("not built"));
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(parse_duration("8h"), Some(Duration::from_secs(28_800)));
        assert_eq!(parse_duration("8"), None);
        let config = read("policies: /p\naudit: {dir: /a, max_bytes: 64MiB}\n").unwrap();
        assert_eq!(config.audit.max_bytes, 64 << 20);
        assert!(read("policies: /p\naudit: {dir: /a, max_bytes: 64XB}\n").is_err());
    }

    #[test]
    fn dns_servers_have_an_address_and_a_port() {
        assert!(read(MINIMAL).unwrap().dns.servers.is_empty());
        let config =
            read(&format!("{MINIMAL}dns: {{servers: [\"10.0.0.2:5353\", \"[::1]:53\"]}}\n")).unwrap();
        assert_eq!(config.dns.servers[0].port(), 5353);
        let inside = read(&format!("{MINIMAL}dns: {{inside: [127.0.0.11]}}\n")).unwrap();
        assert_eq!(inside.dns.inside[0].to_string(), "127.0.0.11");
        for wrong in ["10.0.0.2", "ns.example:53"] {
            assert!(read(&format!("{MINIMAL}dns: {{servers: [\"{wrong}\"]}}\n")).is_err(), "{wrong}");
        }
        assert!(read(&format!("{MINIMAL}dns: {{server: []}}\n")).is_err());
    }

    #[test]
    fn twins_are_refused() {
        let twice = format!("{MINIMAL}workloads: [{{name: a}}, {{name: a}}]\n");
        assert!(read(&twice).unwrap_err().contains("twice"));
    }
}
