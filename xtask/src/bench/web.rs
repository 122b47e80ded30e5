//! A kilobyte over HTTP/1.1 keep-alive: nginx directly, through haproxy with its access log, through weir with audit.

use std::process::Command;

use anyhow::{Context, Result, bail};
use weir_tests::process::{Server, free_port, until};
use weir_tests::{Agent, Lab, Setup, Web};

use super::machine::Spent;
use super::pgbench::figure;
use super::report::{Goal, Report};
use super::rounds::{DIRECT, Rounds, Run};
use super::{Wish, client, output};

const HAPROXY: &str = "haproxy";
const WEIR: &str = "weir";
/// The same, and the answer is searched for protected values.
const SEARCHED: &str = "weir masking";

struct Stand {
    agent: Agent,
    haproxy: Server,
    haproxy_port: u16,
    web: Web,
    // Last: it removes what the others use.
    _lab: Lab,
}

pub(super) fn run(wish: &Wish, report: &mut Report) -> Result<()> {
    let stand = Stand::new()?;
    for connections in [1, 32] {
        let case = format!("HTTP/1.1 1 KB keep-alive, {connections} connections");
        let names = [DIRECT, HAPROXY, WEIR, SEARCHED];
        let rounds =
            Rounds::take(&case, &names, wish.rounds, |name| stand.run(name, connections, wish.seconds))?;
        report.add(&case, &rounds, &[(WEIR, Goal::Cost(20.0))]);
    }
    Ok(())
}

impl Stand {
    fn new() -> Result<Stand> {
        let lab = Lab::new("bench-http")?;
        let web = Web::start(&lab)?;
        let haproxy_port = free_port()?;
        let configuration = CONFIGURATION
            .replace("@port@", &haproxy_port.to_string())
            .replace("@server@", &web.port.to_string());
        let configuration = lab.write("haproxy.cfg", &configuration)?;
        let log = lab.dir().join("haproxy.log");
        let mut haproxy =
            Server::start(Command::new("haproxy").args(["-db", "-f"]).arg(configuration), &log)?;
        until("haproxy answers", || {
            !haproxy.runs() || std::net::TcpStream::connect(("127.0.0.1", haproxy_port)).is_ok()
        })?;
        if !haproxy.runs() {
            bail!("haproxy did not start: {}", std::fs::read_to_string(log)?);
        }
        let setup = Setup::default()
            .policy("classes.yaml", weir_tests::policies::CLASSES)
            .policy("web.yaml", &POLICY.replace("@port@", &web.port.to_string()));
        let agent = Agent::start(&lab, &setup)?;
        Ok(Stand { agent, haproxy, haproxy_port, web, _lab: lab })
    }

    fn run(&self, name: &str, connections: u32, seconds: u64) -> Result<Run> {
        let port = if name == HAPROXY { self.haproxy_port } else { self.web.port };
        let path = if name == SEARCHED { "searched" } else { "kilobyte" };
        let url = format!("http://127.0.0.1:{port}/{path}");
        let (connections, seconds) = (format!("-c{connections}"), format!("-d{seconds}s"));
        let words = client(&["wrk", "-t1", &connections, &seconds, &url]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (mut command, pid) = match name {
            WEIR | SEARCHED => (self.agent.app(&words)?, Some(self.agent.pid())),
            _ => {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]);
                (command, (name == HAPROXY).then(|| self.haproxy.pid()))
            }
        };
        let before = pid.map_or(Ok(Spent::default()), Spent::read)?;
        let text = output(&mut command)?;
        if text.contains("Non-2xx") || text.contains("Socket errors") {
            bail!("{name}: wrk saw errors:\n{text}");
        }
        self.agent.settle()?;
        let after = pid.map_or(Ok(Spent::default()), Spent::read)?;
        Ok(Run { acts: requests(&text)?, rate: figure(&text, "Requests/sec:")?, spent: after.since(before) })
    }
}

/// `  194238 requests in 5.00s, …`
pub(super) fn requests(text: &str) -> Result<f64> {
    let line = text.lines().find(|line| line.contains(" requests in "));
    let count = line.and_then(|line| line.split_whitespace().next());
    count.and_then(|count| count.parse().ok()).with_context(|| format!("no count of requests in:\n{text}"))
}

const CONFIGURATION: &str = "
global
  nbthread 1
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  http-reuse always
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen web
  bind 127.0.0.1:@port@
  server nginx 127.0.0.1:@server@
";

pub(super) const POLICY: &str = r#"
policy: web
target: {protocol: http, host: "127.0.0.1:@port@"}
mode: enforce
default: deny
rules:
  - {name: app-reads, match: {who: ["workload:app"], http: {method: [GET, HEAD]}}, then: allow}
  - {name: no-admin, match: {http: {path: ["/admin*"]}}, then: {deny: "the admin pages are for people"}}
  - name: hide-identifiers
    match: {http: {path: ["/searched"]}}
    then: {mask: [{class: ssn, with: redact}, {class: card, with: redact}, {class: email, with: redact}]}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_wrk_is_read() {
        let text = "  1 threads and 1 connections\n  19423 requests in 5.00s, 24.1MB read\nRequests/sec:   3884.02\n";
        assert_eq!(requests(text).unwrap(), 19423.0);
        assert_eq!(figure(text, "Requests/sec:").unwrap_or_default(), 3884.02);
    }
}
