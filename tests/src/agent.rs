//! A running `weir agent` in a lab, and unmodified commands run as one of its workloads.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::lab::Lab;
use crate::process::{PATIENCE, Server, until};

/// What an agent is started with. The workload `app` always exists.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    /// File name → text of the policy folder.
    pub policies: Vec<(String, String)>,
    /// Secrets of provider `kv`.
    pub secrets: Vec<(String, String)>,
    /// Further lines of weir.yaml.
    pub extra: String,
    /// `audit.clickhouse.url`.
    pub clickhouse: Option<String>,
}

/// An agent whose socket answers.
#[derive(Debug)]
pub struct Agent {
    server: Server,
    pub config: PathBuf,
    pub policies: PathBuf,
    pub log: PathBuf,
    pub control: PathBuf,
}

/// What a finished command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Setup {
    /// One policy file.
    #[must_use]
    pub fn policy(mut self, name: &str, text: &str) -> Setup {
        self.policies.push((name.into(), text.into()));
        self
    }

    #[must_use]
    pub fn secret(mut self, name: &str, value: &str) -> Setup {
        self.secrets.push((name.into(), value.into()));
        self
    }
}

impl Agent {
    /// Writes the configuration and starts the agent.
    ///
    /// # Errors
    /// The binary is missing, or the agent ends instead of answering (its log is in the message).
    pub fn start(lab: &Lab, setup: &Setup) -> anyhow::Result<Agent> {
        let policies = lab.dir().join("policies");
        fs::create_dir_all(&policies)?;
        for (name, text) in &setup.policies {
            lab.write(&format!("policies/{name}"), text)?;
        }
        let config = lab.write("weir.yaml", &configuration(lab, setup)?)?;
        Self::restart(lab, config, policies)
    }

    /// Starts an agent on a configuration that is already there.
    ///
    /// # Errors
    /// As [`Agent::start`].
    pub fn restart(lab: &Lab, config: PathBuf, policies: PathBuf) -> anyhow::Result<Agent> {
        let log = lab.dir().join("agent.log");
        let control = lab.dir().join("weir.sock");
        let mut command = Command::new(weir()?);
        command.arg("agent").arg("--config").arg(&config).env("RUST_BACKTRACE", "1");
        let mut server = Server::start(&mut command, &log)?;
        until("the agent answers", || !server.runs() || status(&config).is_ok_and(|done| done.code == 0))
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        if !server.runs() {
            bail!("the agent ended:\n{}", fs::read_to_string(&log)?);
        }
        Ok(Agent { server, config, policies, log, control })
    }

    /// `weir ARGS` against this agent.
    ///
    /// # Errors
    /// The binary cannot be started.
    pub fn weir(&self, arguments: &[&str]) -> anyhow::Result<Done> {
        done(Command::new(weir()?).args(arguments).arg("--config").arg(&self.config).output()?)
    }

    /// `weir run --workload app -- COMMAND`, to be extended and started by the caller.
    ///
    /// # Errors
    /// The binary is missing.
    pub fn app(&self, command: &[&str]) -> anyhow::Result<Command> {
        self.workload("app", command)
    }

    /// The same for another workload.
    ///
    /// # Errors
    /// The binary is missing.
    pub fn workload(&self, workload: &str, command: &[&str]) -> anyhow::Result<Command> {
        let mut run = Command::new(weir()?);
        run.arg("run").arg("--config").arg(&self.config).args(["--workload", workload, "--"]).args(command);
        Ok(run)
    }

    /// Runs a command as workload `app` to its end.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, command: &[&str]) -> anyhow::Result<Done> {
        done(self.app(command)?.output()?)
    }

    /// Rows of the audit trail, as objects.
    ///
    /// # Errors
    /// The query failed.
    pub fn audit(&self, sql: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let answer = self.weir(&["audit", "query", "--json", sql])?;
        if answer.code != 0 {
            bail!("weir audit query: {}", answer.err);
        }
        answer.out.lines().map(|line| serde_json::from_str(line).context(line.to_owned())).collect()
    }

    /// The rows of a query that are still to come: asks until there is one.
    ///
    /// # Errors
    /// None came, or the query failed.
    pub fn audited(&self, sql: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let mut rows = Ok(Vec::new());
        let came = until(sql, || {
            rows = self.audit(sql);
            !matches!(&rows, Ok(rows) if rows.is_empty())
        });
        let found = rows?;
        came.map(|()| found).with_context(|| format!("the trail: {:?}", self.audit("SELECT raw FROM audit")))
    }

    /// Everything the agent wrote that outlives a connection: its log and every column of its trail.
    ///
    /// # Errors
    /// The log or the trail cannot be read.
    pub fn written(&self) -> anyhow::Result<String> {
        let rows = self.audit("SELECT raw FROM audit")?;
        Ok(format!("{}{rows:?}", fs::read_to_string(&self.log)?))
    }

    /// Waits for the question whose text holds `words` and answers it; yields its id.
    ///
    /// # Errors
    /// Nothing like it was asked, or the answer was not taken.
    pub fn approve(&self, words: &str) -> anyhow::Result<String> {
        let mut id = None;
        until("the act waits at the desk", || {
            let list = self.weir(&["approvals", "list", "--json"]).map(|list| list.out).unwrap_or_default();
            let asked = list.lines().find(|line| line.contains(words));
            id = asked
                .and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .and_then(|question| Some(question["id"].as_str()?.to_owned()));
            id.is_some()
        })?;
        let id = id.unwrap_or_default();
        let done = self.weir(&["approvals", "approve", &id])?;
        if done.code != 0 {
            bail!("weir approvals approve: {}", done.err);
        }
        Ok(id)
    }

    /// What `weir status` says.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn status(&self) -> anyhow::Result<serde_json::Value> {
        let said = self.weir(&["status", "--json"])?;
        serde_json::from_str(&said.out).with_context(|| format!("weir status: {said:?}"))
    }

    /// Waits until every row written so far is in the store.
    ///
    /// # Errors
    /// The agent does not answer, or is not done when patience is over.
    pub fn settle(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let status = self.status()?;
            if status["ledger"]["seq"] == status["ledger"]["stored_seq"] {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the ledger is still folding")
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// The one process, for signals.
    pub fn server(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// A finished process as text.
///
/// # Errors
/// None today; kept fallible for callers that chain.
pub fn done(output: Output) -> anyhow::Result<Done> {
    Ok(Done {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs a command to its end, with `script` on its standard input.
///
/// # Errors
/// It cannot be started, or does not read.
pub fn fed(command: &mut Command, script: &str) -> anyhow::Result<Done> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(script.as_bytes())?;
    done(child.wait_with_output()?)
}

fn status(config: &Path) -> anyhow::Result<Done> {
    done(Command::new(weir()?).arg("status").arg("--config").arg(config).output()?)
}

fn configuration(lab: &Lab, setup: &Setup) -> anyhow::Result<String> {
    use std::os::unix::fs::PermissionsExt;
    let dir = lab.dir().display();
    let mut text = format!(
        "node: lab\npolicies: {dir}/policies\ntls: {{dir: {dir}/ca}}\ncontrol: {dir}/weir.sock\n\
         fence: {{attach: {attach}, bpffs: {dir}/bpf}}\n",
        attach = lab.attach()
    );
    text.push_str("people: [{user: ops@lab.test, uids: [0], groups: [dba, engineering]}]\n");
    if !setup.extra.contains("workloads:") {
        text.push_str("workloads: [{name: app, owner: ada@lab.test}]\n");
    }
    match &setup.clickhouse {
        Some(url) => writeln!(text, "audit: {{dir: {dir}/audit, clickhouse: {{url: \"{url}\"}}}}")?,
        None => writeln!(text, "audit: {{dir: {dir}/audit}}")?,
    }
    if !setup.secrets.is_empty() {
        let mut secrets = String::new();
        for (name, value) in &setup.secrets {
            writeln!(secrets, "{name}: {value:?}")?;
        }
        let path = lab.write("secrets.yaml", &secrets)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        writeln!(text, "secrets: {{kv: {{file: {}}}}}", path.display())?;
    }
    text.push_str(&setup.extra);
    Ok(text)
}

/// The binary under test: `WEIR_BIN`, else the one that `cargo build` made.
///
/// # Errors
/// It has not been built.
pub fn weir() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return Ok(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let binary = target.join("debug/weir");
    if binary.exists() {
        return Ok(binary.canonicalize()?);
    }
    bail!("{} is not built; `cargo xtask test` builds it", binary.display())
}
