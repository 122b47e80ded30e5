//! The steps of the demo, each with what must come out of it.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use weir_tests::Done;
use weir_tests::agent::{done, weir};
use weir_tests::process::until;

use super::Telling;
use super::scene::{API_KEY, Scene};

pub(super) fn all(scene: &Scene, telling: &mut Telling) -> Result<()> {
    masked_rows(scene, telling)?;
    blocked_drop(scene, telling)?;
    http(scene, telling)?;
    injected_key(scene, telling)?;
    held_delete(scene, telling)?;
    audit(scene, telling)
}

fn masked_rows(scene: &Scene, telling: &mut Telling) -> Result<()> {
    const SQL: &str = "SELECT name, email, ssn, card FROM customers ORDER BY id LIMIT 3";
    telling.step("psql sees masked rows");
    let direct = psql(scene, Command::new("psql"), SQL)?;
    telling.say(&format!("without weir   $ psql -c \"{SQL}\""));
    telling.say(&direct.out);
    ensure!(direct.out.contains("900-12-3456"), "the control must see the real value: {direct:?}");
    let masked = psql(scene, scene.agent.app(&["psql"])?, SQL)?;
    telling.say(&format!("as workload    $ weir run --workload app -- psql -c \"{SQL}\""));
    telling.say(&masked.out);
    ensure!(masked.code == 0, "{masked:?}");
    ensure!(masked.out.contains("***-**-3456") && masked.out.contains("[CARD]"), "{masked:?}");
    ensure!(!masked.out.contains("900-12-3456") && !masked.out.contains("ada@acme.example"), "{masked:?}");
    telling.figure("masked_rows", masked.out.matches("[CARD]").count());
    Ok(())
}

fn blocked_drop(scene: &Scene, telling: &mut Telling) -> Result<()> {
    telling.step("a DROP is an error, and the session lives on");
    let seen = psql(scene, scene.agent.app(&["psql"])?, "DROP TABLE orders")?;
    telling.say("$ psql -c 'DROP TABLE orders'");
    telling.say(&seen.err);
    ensure!(seen.err.contains("tables are not dropped from here"), "{seen:?}");
    let count = psql(scene, scene.agent.app(&["psql"])?, "SELECT count(*) FROM orders")?;
    ensure!(count.out.contains("5000"), "the table must still be there: {count:?}");
    telling.say("$ psql -c 'SELECT count(*) FROM orders'");
    telling.say(&count.out);
    telling.figure("drop_blocked", true);
    Ok(())
}

fn http(scene: &Scene, telling: &mut Telling) -> Result<()> {
    telling.step("curl: one request blocked, one answer masked");
    let base = format!("http://127.0.0.1:{}", scene.web.port);
    let private = format!("{base}/private/");
    let blocked = finished(scene.agent.app(&["curl", "-sS", "-w", "\n%{http_code}\n", &private])?)?;
    telling.say("$ curl …/private/");
    telling.say(&blocked.out);
    ensure!(blocked.out.contains("weir_denied") && blocked.out.contains("403"), "{blocked:?}");
    ensure!(!scene.witness().contains("/private/"), "the server must not have seen it");
    let customers = format!("{base}/customers.json");
    let masked = finished(scene.agent.app(&["curl", "-sS", &customers])?)?;
    telling.say("$ curl …/customers.json");
    telling.say(&masked.out);
    ensure!(masked.out.contains("[CARD]") && masked.out.contains("[EMAIL]"), "{masked:?}");
    ensure!(!masked.out.contains("4111") && !masked.out.contains("@acme"), "{masked:?}");
    telling.figure("http_blocked", true);
    telling.figure("http_values_masked", masked.out.matches('[').count() - 1);
    Ok(())
}

fn injected_key(scene: &Scene, telling: &mut Telling) -> Result<()> {
    telling.step("an HTTPS call gets a key that the workload never sees");
    let url = format!("https://localhost:{}/index.txt", scene.web.port + 1);
    let seen = finished(scene.agent.app(&["curl", "-sS", &url])?)?;
    telling.say(&format!("$ curl {url}"));
    telling.say(&seen.out);
    ensure!(seen.code == 0 && seen.out.contains("the lab is up"), "{seen:?}");
    until("the web server has logged the call", || scene.witness().contains("/index.txt"))?;
    let line =
        scene.witness().lines().rfind(|line| line.contains("/index.txt")).unwrap_or_default().to_owned();
    telling.say(&format!("the server's log: {}", line.replace(API_KEY, "demo-key-…")));
    ensure!(line.contains(&format!("authorization=\"Bearer {API_KEY}\"")), "{line}");
    telling.figure("key_injected", true);
    Ok(())
}

fn held_delete(scene: &Scene, telling: &mut Telling) -> Result<()> {
    telling.step("a DELETE waits until somebody approves it");
    let mut waiting = client(scene, scene.agent.app(&["psql"])?, "DELETE FROM orders WHERE id = 1")?;
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("psql")?;
    let began = Instant::now();
    telling.say("$ psql -c 'DELETE FROM orders WHERE id = 1'    (waits)");
    let list = || scene.agent.weir(&["approvals", "list", "--json"]).map(|done| done.out).unwrap_or_default();
    until("the DELETE is at the desk", || list().contains("DELETE FROM orders"))?;
    telling.say("in another terminal $ weir approvals list");
    telling.say(&scene.agent.weir(&["approvals", "list"])?.out);
    let still_there = psql(scene, Command::new("psql"), "SELECT count(*) FROM orders")?;
    ensure!(still_there.out.contains("5000"), "nothing may be deleted before the approval: {still_there:?}");
    let question: serde_json::Value = serde_json::from_str(list().lines().next().unwrap_or_default())?;
    let id = question["id"].as_str().context("no id")?;
    let approve =
        format!("{} approvals approve {id} --config {}", weir()?.display(), scene.agent.config.display());
    telling.say(&format!("in another terminal $ {approve}"));
    telling.let_somebody_else("or press Enter here to have it approved for you")?;
    if list().contains(id) {
        let approved = scene.agent.weir(&["approvals", "approve", id, "--reason", "agreed in the demo"])?;
        ensure!(approved.code == 0, "{approved:?}");
    }
    let seen = done(waiting.wait_with_output()?)?;
    telling.say(&seen.out);
    ensure!(seen.out.contains("DELETE 1"), "{seen:?}");
    telling.figure("delete_held_ms", u64::try_from(began.elapsed().as_millis())?);
    Ok(())
}

fn audit(scene: &Scene, telling: &mut Telling) -> Result<()> {
    telling.step("the audit of all that");
    const SQL: &str = "SELECT seq, workload, protocol, decision, rule, coalesce(nullif(statement, ''), method || ' ' || path) AS act \
                       FROM audit WHERE kind = 'verdict' AND rule NOT IN ('', 'default') ORDER BY seq";
    let table = scene.agent.weir(&["audit", "query", SQL])?;
    ensure!(table.code == 0, "{table:?}");
    telling.say(&format!("$ weir audit query \"{SQL}\""));
    telling.say(&table.out);
    let rows = scene
        .agent
        .audit("SELECT decision, count(*) AS n FROM audit WHERE kind = 'verdict' GROUP BY decision")?;
    for wanted in ["masked", "denied", "approved"] {
        ensure!(rows.iter().any(|row| row["decision"] == wanted), "no {wanted} row: {rows:?}");
    }
    let raw = scene.agent.audit("SELECT raw FROM audit")?;
    let spilt = raw.iter().any(|row| row.to_string().contains(API_KEY));
    ensure!(!spilt, "the key must not be in the audit");
    let verified = scene.agent.weir(&["audit", "verify"])?;
    telling.say("$ weir audit verify");
    telling.say(&verified.out);
    ensure!(verified.code == 0, "{verified:?}");
    let count = raw.len();
    let mut shipped = Done { code: 0, out: String::new(), err: String::new() };
    until("ClickHouse has every row", || {
        let query = ["audit", "query", "--clickhouse", "--json", "SELECT count() AS n FROM audit"];
        shipped = scene.agent.weir(&query).unwrap_or_else(|_| shipped.clone());
        serde_json::from_str::<serde_json::Value>(shipped.out.trim()).is_ok_and(|row| {
            row["n"].to_string().trim_matches('"').parse::<usize>().is_ok_and(|n| n >= count)
        })
    })
    .with_context(|| format!("{shipped:?}"))?;
    telling.say(&format!("and all {count} rows are in ClickHouse (weir audit query --clickhouse …)"));
    telling.figure("audit_rows", count);
    telling.figure("clickhouse", true);
    telling.say(&format!("configuration, policies and ledger were in {}", scene.lab.dir().display()));
    Ok(())
}

/// `psql` against the lab's database, whatever runs it.
fn client(scene: &Scene, mut command: Command, sql: &str) -> Result<Command> {
    command.args(["-X", "-h", "127.0.0.1", "-U", "app", "-d", "lab"]);
    command.args(["-p", &scene.database.port.to_string(), "-c", sql]);
    command.env("PGPASSWORD", scene.password()?);
    Ok(command)
}

fn psql(scene: &Scene, command: Command, sql: &str) -> Result<Done> {
    finished(client(scene, command, sql)?)
}

fn finished(mut command: Command) -> Result<Done> {
    done(command.output().with_context(|| format!("{:?}", command.get_program()))?)
}
