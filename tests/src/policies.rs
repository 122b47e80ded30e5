//! The policies that most tests and the demo run under, with the lab's ports put in.

/// Classes of protected values.
pub const CLASSES: &str = r#"
classes:
  ssn: {columns: ["*.*.ssn"], json: ["$..ssn"], detect: [US_SSN]}
  card: {columns: ["*.*.credit_card"], json: ["$..card"], detect: [CREDIT_CARD]}
  email: {columns: ["*.*.email"], json: ["$..email"], detect: [EMAIL_ADDRESS]}
  secret: {detect: [AWS_ACCESS_KEY, JWT, PRIVATE_KEY, LLM_API_KEY]}
"#;

/// The sample database: reads and writes pass masked, DROP is denied, DELETE waits for a DBA.
#[must_use]
pub fn shop(port: u16) -> String {
    format!(
        r#"
policy: shop
target: {{protocol: postgres, host: 127.0.0.1, port: {port}, database: shop}}
mode: enforce
default: deny
rules:
  - name: app-works
    match: {{who: ["workload:app"], sql: {{effects: [read, insert, update, txn, session, explain]}}}}
    then: allow
  - name: no-drop
    match: {{sql: {{effects: ["ddl:drop"]}}}}
    then: {{deny: "tables are not dropped from here"}}
  - name: deletes-need-a-dba
    match: {{sql: {{effects: [delete]}}}}
    then: {{approve: {{by: ["group:dba"], within: 2m}}}}
  - name: hide-identifiers
    match: {{sql: {{effects: [read]}}}}
    then:
      mask:
        - {{class: ssn, with: {{partial: {{last: 4}}}}}}
        - {{class: card, with: redact}}
        - {{class: email, with: {{hash: {{len: 16}}}}}}
"#
    )
}

/// The web server: reading passes masked, /admin is denied, secrets may not be sent.
#[must_use]
pub fn web(port: u16) -> String {
    format!(
        r#"
policy: web
target: {{protocol: http, host: "127.0.0.1:{port}"}}
mode: enforce
default: deny
rules:
  - {{name: app-calls, match: {{who: ["workload:app"], http: {{method: [GET, HEAD, POST]}}}}, then: allow}}
  - {{name: no-admin, match: {{http: {{path: ["/admin", "/admin/**"]}}}}, then: {{deny: "the admin pages are for people"}}}}
  - name: no-secrets-out
    match: {{text: {{in: request, classes: [secret]}}}}
    then: {{deny: "this request holds a secret"}}
  - name: hide-identifiers
    match: {{}}
    then:
      mask:
        - {{class: ssn, in: both, with: redact}}
        - {{class: card, in: both, with: redact}}
        - {{class: email, in: both, with: redact}}
"#
    )
}

/// The HTTPS server: weir puts the API key in, the workload never sees it.
#[must_use]
pub fn api(port: u16, ca: &str, engine: &str) -> String {
    format!(
        r#"
policy: api
target: {{protocol: http, host: "localhost:{port}"}}
mode: enforce
default: deny
tls: {{ca: "{ca}", engine: {engine}}}
inject: {{header: Authorization, value: "Bearer kv#api"}}
rules:
  - {{name: app-calls, match: {{who: ["workload:app"], http: {{method: [GET, POST]}}}}, then: allow}}
"#
    )
}
