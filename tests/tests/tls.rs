//! HTTPS through weir: a CA that clients trust, a credential that they never see, and certificates that must verify.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use weir_tests::agent::{Done, done, weir};
use weir_tests::process::until;
use weir_tests::web::Certificate;
use weir_tests::{Agent, Lab, Setup, Web, clients, policies};

const KEY: &str = "lab-key-5f1c9e";

struct Bench {
    agent: Agent,
    web: Web,
    // Last: it removes what the others use.
    lab: Lab,
}

/// The policy trusts nginx's CA, unless it is told of another one.
fn bench(name: &str, engine: &str, ca: impl FnOnce(&Lab, &Web) -> PathBuf) -> Bench {
    let lab = Lab::new(name).unwrap();
    let web = Web::start(&lab).unwrap();
    let ca = ca(&lab, &web);
    let policy = policies::api(web.tls_port, ca.to_str().unwrap(), engine);
    let setup = Setup::default().policy("api.yaml", &policy).secret("api", KEY);
    let agent = Agent::start(&lab, &setup).unwrap();
    Bench { agent, web, lab }
}

fn real(_: &Lab, web: &Web) -> PathBuf {
    web.ca.clone()
}

/// A CA that signed nothing here.
fn other(lab: &Lab) -> PathBuf {
    Certificate::make(&lab.dir().join("other"), &["localhost"]).unwrap().ca
}

impl Bench {
    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.web.tls_port)
    }

    fn run(&self, command: &[&str]) -> Done {
        self.agent.run(command).unwrap()
    }

    /// The one line that nginx logged about this path.
    fn line(&self, path: &str) -> String {
        let line = || self.web.seen().ok()?.lines().find(|line| line.contains(path)).map(str::to_owned);
        until(path, || line().is_some()).unwrap();
        line().unwrap()
    }
}

/// Runs its arguments where the host's trust store is a copy that holds weir's CA.
const WITH_CA_INSTALLED: &str = r#"
set -e
for folder in /etc/ssl/certs /usr/local/share/ca-certificates; do
    mkdir -p "$COPIES$folder"; cp -a "$folder/." "$COPIES$folder"; mount --bind "$COPIES$folder" "$folder"
done
"$WEIR" ca install --config "$CONFIG" >&2
exec "$@"
"#;

#[test]
fn the_installed_ca_is_enough_and_the_key_stays_out_of_sight() {
    let bench = bench("tls-system", "rustls", real);
    let url = bench.url("/v1/things");
    // None of the variables that `weir run` sets: only what the system trusts.
    let curl = ["env", "-u", "CURL_CA_BUNDLE", "-u", "SSL_CERT_FILE", "curl", "-sS", "--max-time", "30"];
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", WITH_CA_INSTALLED, "sh"]).arg(weir().unwrap());
    command.args(["run", "--workload", "app", "--config"]).arg(&bench.agent.config).arg("--").args(curl);
    command.args(["-H", "Authorization: Bearer own", &url]);
    command.env("COPIES", bench.lab.dir().join("trust")).env("WEIR", weir().unwrap());
    let answer = done(command.env("CONFIG", &bench.agent.config).output().unwrap()).unwrap();
    assert_eq!(answer.out, "{\"ok\": true}", "{answer:?}");
    let line = bench.line("/v1/things");
    assert!(line.contains(&format!("auth=\"Bearer {KEY}\"")), "{line}");
    assert!(!line.contains("own"), "{line}");

    // The same without the CA in the trust store is refused by curl itself.
    let distrust = bench.run(&[&curl[..], &[&url]].concat());
    assert_eq!(distrust.code, 60, "{distrust:?}");

    let environment = bench.run(&["env"]);
    assert!(environment.out.contains("SSL_CERT_FILE"), "{environment:?}");
    assert!(!environment.out.contains(KEY), "{environment:?}");
    let rows = bench.agent.audited("SELECT decision, host FROM audit WHERE path = '/v1/things'").unwrap();
    assert_eq!((&rows[0]["decision"], &rows[0]["host"]), (&"allowed".into(), &"localhost".into()));
    assert!(!bench.agent.written().unwrap().contains(KEY));
}

#[test]
fn the_other_engine_serves_the_same() {
    let bench = bench("tls-boring", "boring", real);
    let answer = bench.run(&["curl", "-sS", "--max-time", "30", &bench.url("/v1/things")]);
    assert_eq!(answer.out, "{\"ok\": true}", "{answer:?}");
    assert!(bench.line("/v1/things").contains(KEY));
}

#[test]
fn clients_of_other_languages_trust_the_bundle() {
    let bench = bench("tls-bundle", "rustls", real);
    let python = clients::python().unwrap();
    let python = python.to_str().unwrap();
    for library in ["requests", "httpx"] {
        let path = format!("/{library}");
        let script = format!("import {library}, sys; print({library}.get(sys.argv[1]).json()['ok'])");
        let answer = bench.run(&[python, "-c", &script, &bench.url(&path)]);
        assert_eq!(answer.out.trim(), "True", "{library}: {answer:?}");
        assert!(bench.line(&path).contains(KEY));
    }
    let script = "fetch(process.argv[1]).then(answer => answer.json()).then(body => console.log(body.ok))";
    let answer = bench.run(&["node", "-e", script, &bench.url("/node")]);
    assert_eq!(answer.out.trim(), "true", "{answer:?}");
    assert!(bench.line("/node").contains(KEY));
}

#[test]
fn names_that_disagree_and_clients_that_distrust_get_nowhere() {
    let bench = bench("tls-refusals", "rustls", real);
    let curl = ["curl", "-sS", "--max-time", "30"];
    let url = bench.url("/fronted");
    let fronted =
        bench.run(&[&curl[..], &["-w", "%{http_code}", "-H", "Host: elsewhere.test", &url]].concat());
    assert!(fronted.out.ends_with("421"), "{fronted:?}");

    let foreign = other(&bench.lab);
    let distrust = bench.run(&[&curl[..], &["--cacert", foreign.to_str().unwrap(), &url]].concat());
    assert_eq!(distrust.code, 60, "{distrust:?}");
    let sql = "SELECT decision, reason FROM audit WHERE kind = 'connection' AND decision = 'denied'";
    let rows = bench.agent.audited(sql).unwrap();
    assert!(rows[0]["reason"].as_str().unwrap().contains("CA"), "{rows:?}");

    bench.run(&[&curl[..], &[&bench.url("/after")]].concat());
    bench.line("/after");
    assert!(!bench.web.seen().unwrap().contains("fronted"));
}

/// The target says by which name its server proves itself; clients go on using the target's own.
#[test]
fn a_server_may_prove_itself_by_another_name() {
    let lab = Lab::new("tls-name").unwrap();
    let files = Certificate::make(&lab.dir().join("lb"), &["lb.lab.test"]).unwrap();
    let web = Web::start_with(&lab, &files).unwrap();
    let policy = policies::api(web.tls_port, files.ca.to_str().unwrap(), "rustls, name: lb.lab.test");
    let setup = Setup::default().policy("api.yaml", &policy).secret("api", KEY);
    let agent = Agent::start(&lab, &setup).unwrap();
    let bench = Bench { agent, web, lab };
    let curl = ["curl", "-sS", "--max-time", "30", "-w", "|%{http_code}"];
    let answer = bench.run(&[&curl[..], &[&bench.url("/named")]].concat());
    assert_eq!(answer.out, "{\"ok\": true}|200", "{answer:?}");
    assert!(bench.line("/named").contains(KEY));
    let fronted = bench.run(&[&curl[..], &["-H", "Host: elsewhere.test", &bench.url("/fronted")]].concat());
    assert!(fronted.out.ends_with("|421") && fronted.out.contains("tls.name"), "{fronted:?}");
    // The name that was verified is not one of the target's: no rule is for it.
    let other = bench.run(&[&curl[..], &["-H", "Host: lb.lab.test", &bench.url("/other")]].concat());
    assert!(other.out.ends_with("|403"), "{other:?}");
    bench.run(&[&curl[..], &[&bench.url("/last")]].concat());
    bench.line("/last");
    let seen = bench.web.seen().unwrap();
    assert!(!seen.contains("fronted") && !seen.contains("other"), "{seen}");
}

#[test]
fn a_server_that_does_not_verify_gets_no_request_and_no_key() {
    let bench = bench("tls-unverified", "rustls", |lab, _| other(lab));
    let answer = bench.run(&["curl", "-sS", "--max-time", "30", &bench.url("/secret")]);
    assert_ne!(answer.code, 0, "{answer:?}");
    let sql = "SELECT decision, reason FROM audit WHERE kind = 'connection' AND reason <> ''";
    let rows = bench.agent.audited(sql).unwrap();
    assert_eq!(rows[0]["decision"], "failed", "{rows:?}");
    assert!(rows[0]["reason"].as_str().unwrap().contains("certificate"), "{rows:?}");
    // Control: without weir, curl reaches the same server.
    let mut direct = Command::new("curl");
    direct.args(["-sS", &bench.url("/direct")]).arg("--cacert").arg(&bench.web.ca);
    assert_eq!(done(direct.output().unwrap()).unwrap().code, 0);
    bench.line("/direct");
    let seen = fs::read_to_string(&bench.web.log).unwrap();
    assert!(!seen.contains("secret") && !seen.contains(KEY), "{seen}");
}
