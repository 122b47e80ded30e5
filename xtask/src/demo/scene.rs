//! The servers, the policies and the agent of the demo.

use std::fs;

use anyhow::Result;
use weir_tests::clickhouse;
use weir_tests::process::free_port;
use weir_tests::provision::Provisioned;
use weir_tests::{Agent, Lab, Setup};

use super::Telling;

/// The API key that weir puts in; no workload may ever see it.
pub(super) const API_KEY: &str = "demo-key-73c1f5";

/// Dropped in this order: the agent first, the lab last.
pub(super) struct Scene {
    pub(super) agent: Agent,
    pub(super) database: Provisioned,
    pub(super) web: Provisioned,
    pub(super) _clickhouse: clickhouse::Server,
    pub(super) lab: Lab,
}

impl Scene {
    pub(super) fn set(telling: &mut Telling) -> Result<Scene> {
        telling.step("Setting the scene");
        let lab = Lab::new("demo")?;
        telling.say("PostgreSQL with 1,000 customers, made by vagrant/provision/postgres.sh");
        let database = Provisioned::start("postgres", &lab.dir().join("database"), free_port()?)?;
        telling.say("nginx with an HTTP and an HTTPS side, made by vagrant/provision/web.sh");
        let web = Provisioned::start("web", &lab.dir().join("web"), free_pair()?)?;
        telling.say(
            "ClickHouse: the engine in process, its HTTP interface by us (fetched by npm the first time)",
        );
        let clickhouse = clickhouse::start()?;
        let setup = Setup {
            clickhouse: Some(clickhouse.url.clone()),
            policies: vec![
                ("classes.yaml".into(), CLASSES.into()),
                ("database.yaml".into(), filled(DATABASE, &database, &web)),
                ("web.yaml".into(), filled(WEB, &database, &web)),
                ("api.yaml".into(), filled(API, &database, &web)),
            ],
            ..Setup::default()
        };
        let setup = setup.secret("api", API_KEY);
        telling.say("weir agent, its fence attached at a cgroup of the demo's own");
        let agent = Agent::start(&lab, &setup)?;
        Ok(Scene { agent, database, web, _clickhouse: clickhouse, lab })
    }

    pub(super) fn password(&self) -> Result<String> {
        self.database.read("app.pw")
    }

    /// What the web server saw.
    pub(super) fn witness(&self) -> String {
        fs::read_to_string(self.web.dir.join("access.log")).unwrap_or_default()
    }
}

/// A port whose successor is free too.
fn free_pair() -> Result<u16> {
    loop {
        let port = free_port()?;
        if port < u16::MAX && std::net::TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

fn filled(template: &str, database: &Provisioned, web: &Provisioned) -> String {
    template
        .replace("@database@", &database.port.to_string())
        .replace("@web@", &web.port.to_string())
        .replace("@api@", &(web.port + 1).to_string())
        .replace("@ca@", &web.dir.join("ca.pem").display().to_string())
}

const CLASSES: &str = r#"classes:
  ssn:   {columns: ["*.*.ssn"], json: ["$..ssn"], detect: [US_SSN]}
  card:  {columns: ["*.*.card"], json: ["$..card"], detect: [CREDIT_CARD]}
  email: {columns: ["*.*.email"], json: ["$..email"], detect: [EMAIL_ADDRESS]}
"#;

const DATABASE: &str = r#"policy: database
target: {protocol: postgres, host: 127.0.0.1, port: @database@, database: lab}
mode: enforce
default: deny
rules:
  - {name: app-works, match: {who: ["workload:app"], sql: {effects: [read, insert, update, txn, session, explain]}}, then: allow}
  - {name: no-drop, match: {sql: {effects: ["ddl:drop", truncate]}}, then: {deny: "tables are not dropped from here"}}
  - {name: deletes-need-a-dba, match: {sql: {effects: [delete]}}, then: {approve: {by: ["group:dba"], within: 5m}}}
  - name: hide-identifiers
    match: {}
    then:
      mask:
        - {class: ssn, with: {partial: {last: 4}}}
        - {class: card, with: redact}
        - {class: email, with: {hash: {len: 12}}}
"#;

const WEB: &str = r#"policy: web
target: {protocol: http, host: "127.0.0.1:@web@"}
mode: enforce
default: deny
rules:
  - {name: app-reads, match: {who: ["workload:app"], http: {method: [GET, HEAD]}}, then: allow}
  - {name: no-private-pages, match: {http: {path: ["/private/*"]}}, then: {deny: "the private pages are for people"}}
  - {name: hide-identifiers, match: {}, then: {mask: [{class: ssn, in: both, with: redact}, {class: card, in: both, with: redact}, {class: email, in: both, with: redact}]}}
"#;

const API: &str = r#"policy: api
target: {protocol: http, host: "localhost:@api@"}
mode: enforce
default: deny
tls: {ca: "@ca@"}
inject: {header: Authorization, value: "Bearer kv#api"}
rules:
  - {name: app-calls, match: {who: ["workload:app"], http: {method: [GET]}}, then: allow}
"#;
