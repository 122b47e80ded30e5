//! 200,000 rows in one result, discarded by the client: directly, through weir as they are, and masked.

use std::process::Command;

use anyhow::Result;
use weir_tests::postgres::{Options, PASSWORD, USER};
use weir_tests::{Agent, Lab, Postgres, Setup};

use super::pgbench::measured;
use super::report::{Goal, Report};
use super::rounds::{DIRECT, Rounds, Run};
use super::{Wish, client};

const ROWS: u32 = 200_000;
/// Contender and the database whose policy it runs under; all databases hold the same rows.
const THROUGH: [(&str, &str); 3] =
    [("weir unmasked", "plain"), ("weir masked", "columns"), ("weir masked, detectors", "detectors")];

pub(super) fn run(wish: &Wish, report: &mut Report) -> Result<()> {
    let lab = Lab::new("bench-rows")?;
    let postgres = Postgres::start(&lab, Options::default())?;
    postgres.admin("shop", PEOPLE)?;
    let mut setup = Setup::default().policy("classes.yaml", CLASSES);
    for ((_, database), masks) in THROUGH.iter().zip(["", COLUMNS, DETECTORS]) {
        postgres.admin("postgres", &format!("CREATE DATABASE {database} TEMPLATE shop"))?;
        setup = setup.policy(&format!("{database}.yaml"), &policy(database, postgres.port, masks));
    }
    let agent = Agent::start(&lab, &setup)?;
    let script = lab.write("rows.sql", "SELECT id, name, email, ssn, note FROM people;\n")?;
    let script = script.display().to_string();

    let run = |name: &str| -> Result<Run> {
        let database = THROUGH.iter().find(|(own, _)| *own == name).map(|(_, database)| *database);
        let (port, seconds) = (postgres.port.to_string(), wish.seconds.to_string());
        let words = client(&[
            "pgbench",
            "-n",
            "-f",
            &script,
            "-T",
            &seconds,
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            USER,
            database.unwrap_or("shop"),
        ]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = match database {
            Some(_) => agent.app(&words)?,
            None => {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]);
                command
            }
        };
        command.env("PGPASSWORD", PASSWORD).env("PGSSLMODE", "disable");
        let run = measured(command, database.map(|_| agent.pid()), || agent.settle())?;
        Ok(Run { acts: run.acts * f64::from(ROWS), rate: run.rate * f64::from(ROWS), ..run })
    };
    let mut names = vec![DIRECT];
    names.extend(THROUGH.map(|(name, _)| name));
    let rounds = Rounds::take("rows", &names, wish.rounds, run)?;
    let goals = [("weir masked", Goal::Time(2.0)), ("weir masked, detectors", Goal::Time(2.0))];
    report.add("200,000 rows of 5 columns, 2 masked; acts are rows", &rounds, &goals);
    Ok(())
}

fn policy(database: &str, port: u16, masks: &str) -> String {
    format!(
        "policy: {database}\n\
         target: {{protocol: postgres, host: 127.0.0.1, port: {port}, database: {database}}}\n\
         mode: enforce\n\
         default: deny\n\
         rules:\n  \
         - {{name: app-reads, match: {{who: [\"workload:app\"], sql: {{effects: [read, txn, session]}}}}, then: allow}}\n\
         {masks}"
    )
}

const CLASSES: &str = "
classes:
  ssn: {columns: ['*.*.ssn']}
  email: {columns: ['*.*.email']}
  any_ssn: {detect: [US_SSN]}
  any_email: {detect: [EMAIL_ADDRESS]}
  any_card: {detect: [CREDIT_CARD]}
";

const COLUMNS: &str = "
  - name: hide-columns
    match: {sql: {effects: [read]}}
    then: {mask: [{class: ssn, with: {partial: {last: 4}}}, {class: email, with: {hash: {len: 16}}}]}
";

const DETECTORS: &str = "
  - name: hide-columns-and-findings
    match: {sql: {effects: [read]}}
    then:
      mask:
        - {class: ssn, with: {partial: {last: 4}}}
        - {class: email, with: {hash: {len: 16}}}
        - {class: any_ssn, with: redact}
        - {class: any_email, with: redact}
        - {class: any_card, with: redact}
";

const PEOPLE: &str = "
CREATE TABLE people AS
SELECT n AS id, 'Person Number ' || n AS name, 'person' || n || '@example.com' AS email,
  to_char(n % 700 + 100, 'FM000') || '-' || to_char(n % 89 + 10, 'FM00') || '-' || to_char(n % 8999 + 1000, 'FM0000') AS ssn,
  'note ' || md5(n::text) AS note
FROM generate_series(1, 200000) n;
ANALYZE people;
";
