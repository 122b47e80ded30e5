//! Unmodified drivers through weir: masked values arrive masked in each, and what is not protected arrives as it is.

use std::fs;
use std::process::Command;

use weir_tests::agent::{Done, done};
use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::{Agent, Lab, Postgres, Setup, Web, clients, policies};

/// Orders may be copied in bulk, on top of the policy that most tests use.
const COPIES: &str = "  - name: orders-in-bulk
    match: {who: [\"workload:app\"], sql: {effects: [copy_in, copy_out], tables: [orders]}}
    then: allow
";

struct Bench {
    agent: Agent,
    postgres: Postgres,
    lab: Lab,
}

fn bench(name: &str) -> Bench {
    let lab = Lab::new(name).unwrap();
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("shop.yaml", &(policies::shop(postgres.port) + COPIES));
    let agent = Agent::start(&lab, &setup).unwrap();
    Bench { agent, postgres, lab }
}

impl Bench {
    /// A script in a file, as workload `app`, with the server's address as its argument.
    fn script(&self, program: &str, name: &str, text: &str) -> Done {
        let file = self.lab.write(name, text).unwrap();
        self.agent.run(&[program, file.to_str().unwrap(), &self.postgres.url()]).unwrap()
    }
}

#[test]
fn python_drivers() {
    let bench = bench("clients-python");
    let python = clients::python().unwrap();
    for (name, text) in [
        ("psycopg.py", include_str!("scripts/psycopg.py")),
        ("asyncpg.py", include_str!("scripts/asyncpg.py")),
    ] {
        // A script must not be found instead of the library it imports.
        let seen = bench.script(python.to_str().unwrap(), &format!("try_{name}"), text);
        assert_eq!((seen.code, seen.out.trim()), (0, "done"), "{name}: {seen:?}");
        bench.postgres.admin("shop", "DELETE FROM orders WHERE id > 30").unwrap();
    }
}

#[test]
fn node_postgres() {
    let bench = bench("clients-node");
    let modules = clients::node().unwrap();
    let file = bench.lab.write("pg.js", include_str!("scripts/pg.js")).unwrap();
    let mut command = bench.agent.app(&["node", file.to_str().unwrap(), &bench.postgres.url()]).unwrap();
    let seen = done(command.env("NODE_PATH", modules.join("node_modules")).output().unwrap()).unwrap();
    assert_eq!((seen.code, seen.out.trim()), (0, "done"), "{seen:?}");
}

/// Where this test finds the server's address when it is itself the client, run again as a workload.
const ADDRESS: &str = "WEIR_TEST_CLIENT";

#[test]
fn tokio_postgres() {
    if let Ok(url) = std::env::var(ADDRESS) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(rust_client(&url));
    }
    let bench = bench("clients-rust");
    let own = std::env::current_exe().unwrap();
    let mut command = bench.agent.app(&[own.to_str().unwrap(), "--exact", "tokio_postgres"]).unwrap();
    let seen = done(command.env(ADDRESS, bench.postgres.url()).output().unwrap()).unwrap();
    assert!(seen.code == 0 && seen.out.contains("1 passed"), "{seen:?}");
}

async fn rust_client(url: &str) {
    let (mut client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    let driving = tokio::spawn(connection);
    let sql = "SELECT name, ssn, credit_card, note FROM customers WHERE id = $1";
    let statement = client.prepare(sql).await.unwrap();
    for (id, ssn, note) in [(1, "***-**-6789", Some("prefers tea")), (3, "***-**-9041", None)] {
        let row = client.query_one(&statement, &[&id]).await.unwrap();
        assert_eq!(row.get::<_, &str>(1), ssn);
        assert_eq!(row.get::<_, &str>(2), "[CARD]");
        assert_eq!(row.get::<_, Option<&str>>(3), note);
    }
    let ids: Vec<i32> = client.query_one("SELECT $1::int[]", &[&vec![1, 2, 3]]).await.unwrap().get(0);
    assert_eq!(ids, [1, 2, 3]);
    let transaction = client.transaction().await.unwrap();
    transaction.execute("INSERT INTO orders (id, customer) VALUES ($1, 1)", &[&500]).await.unwrap();
    let fault = transaction.query("SELECT 1 / $1::int", &[&0]).await.unwrap_err();
    assert_eq!(fault.code().unwrap().code(), "22012");
    transaction.rollback().await.unwrap();
    let denied = client.execute("DROP TABLE orders", &[]).await.unwrap_err();
    assert_eq!(denied.code().unwrap().code(), "42501");
    let count: i64 = client.query_one("SELECT count(*) FROM orders", &[]).await.unwrap().get(0);
    assert_eq!(count, 30);
    drop(client);
    driving.await.unwrap().unwrap();
}

#[test]
fn pgbench() {
    let bench = bench("clients-pgbench");
    let program = bench.postgres.bin().join("pgbench");
    let port = bench.postgres.port.to_string();
    let server = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "shop"];
    let mut fill = Command::new(&program);
    fill.args(["-i", "-q", "-s", "1"]).args(server).env("PGPASSWORD", PASSWORD);
    assert!(fill.output().unwrap().status.success());
    for mode in ["simple", "extended", "prepared"] {
        let load = [program.to_str().unwrap(), "-n", "-S", "-c", "2", "-t", "100", "-M", mode];
        let mut command = bench.agent.app(&[&load[..], &server].concat()).unwrap();
        let seen = done(command.env("PGPASSWORD", PASSWORD).output().unwrap()).unwrap();
        assert!(seen.out.contains("actually processed: 200/200"), "{mode}: {seen:?}");
    }
}

#[test]
fn web_clients() {
    let lab = Lab::new("clients-web").unwrap();
    let web = Web::start(&lab).unwrap();
    let setup = Setup::default()
        .policy("classes.yaml", policies::CLASSES)
        .policy("web.yaml", &policies::web(web.port));
    let agent = Agent::start(&lab, &setup).unwrap();
    let url = format!("http://127.0.0.1:{}", web.port);
    let python = clients::python().unwrap();
    let script = lab.write("web.py", include_str!("scripts/web.py")).unwrap();
    let seen = agent.run(&[python.to_str().unwrap(), script.to_str().unwrap(), &url]).unwrap();
    assert_eq!((seen.code, seen.out.trim()), (0, "done"), "{seen:?}");
    let log = fs::read_to_string(&web.log).unwrap();
    assert!(!log.contains("admin") && !log.contains("ada@"), "{log}");
}
