//! A private PostgreSQL: own folder, own user, own port, SCRAM only, gone with the lab.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::lab::Lab;
use crate::process::{Server, free_port, until};

/// Name and password of the database superuser of every lab.
pub const USER: &str = "postgres";
pub const PASSWORD: &str = "lab-secret";

/// A running server with the sample database `shop`.
#[derive(Debug)]
pub struct Postgres {
    _server: Server,
    pub port: u16,
    pub log: PathBuf,
    /// Folder of the unix socket.
    pub sockets: PathBuf,
    bin: PathBuf,
}

/// How the server is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options<'a> {
    /// Server certificate and key (PEM files); TLS is off without them.
    pub tls: Option<(&'a Path, &'a Path)>,
}

impl Postgres {
    /// Makes a cluster and the sample data, and starts it.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or does not come up (the log says why).
    pub fn start(lab: &Lab, options: Options<'_>) -> anyhow::Result<Postgres> {
        let bin = binaries()?;
        let home = lab.folder_of("postgres", "postgres")?;
        fs::write(home.join("password"), PASSWORD)?;
        let data = home.join("data");
        run(as_postgres(&bin.join("initdb"))?
            .args(["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username", USER, "--no-sync"])
            .arg("--pwfile")
            .arg(home.join("password"))
            .arg("-D")
            .arg(&data))?;
        let port = free_port()?;
        let log = home.join("log");
        let mut command = as_postgres(&bin.join("postgres"))?;
        command.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1,::1"]);
        command.args(["-c", "fsync=off", "-c", "max_connections=200", "-c", "shared_buffers=64MB"]);
        command.arg("-c").arg(format!("unix_socket_directories={}", home.display()));
        if let Some((certificate, key)) = options.tls {
            install(certificate, &home.join("server.crt"))?;
            install(key, &home.join("server.key"))?;
            command.args(["-c", "ssl=on"]);
            command.arg("-c").arg(format!("ssl_cert_file={}", home.join("server.crt").display()));
            command.arg("-c").arg(format!("ssl_key_file={}", home.join("server.key").display()));
        }
        let mut server = Server::start(&mut command, &log)?;
        let postgres_log = log.clone();
        until("PostgreSQL answers", || {
            !server.runs()
                || fs::read_to_string(&postgres_log).is_ok_and(|log| log.contains("ready to accept"))
        })?;
        if !server.runs() {
            bail!("PostgreSQL did not start: {}", fs::read_to_string(&log)?);
        }
        let postgres = Postgres { _server: server, port, log, sockets: home, bin };
        postgres.admin("postgres", "CREATE DATABASE shop")?;
        postgres.admin("shop", SAMPLE)?;
        Ok(postgres)
    }

    /// Runs SQL as the superuser, directly: not through weir.
    ///
    /// # Errors
    /// psql's own words.
    pub fn admin(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let output = Command::new(self.bin.join("psql"))
            .env("PGPASSWORD", PASSWORD)
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", USER, "-d", database, "-c", sql])
            .output()
            .context("cannot start psql")?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// The connection string an application would use.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://{USER}:{PASSWORD}@127.0.0.1:{}/shop", self.port)
    }

    /// The folder with psql, pgbench and pg_regress.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }
}

/// The newest installed server's folder.
fn binaries() -> anyhow::Result<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().context("PostgreSQL is not installed: run `cargo xtask setup`")
}

/// A command that runs as the user `postgres`: the server refuses to run as root.
fn as_postgres(program: &Path) -> anyhow::Result<Command> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let mut fields = passwd
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .context("there is no user postgres: run `cargo xtask setup`")?
        .split(':')
        .skip(2);
    let mut id = || fields.next().and_then(|id| id.parse().ok()).context("/etc/passwd: no id");
    let mut command = Command::new(program);
    command.uid(id()?).gid(id()?).current_dir("/");
    Ok(command)
}

/// Copies a file so that only the server's user may read it.
fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    run(Command::new("install").args(["-o", "postgres", "-m", "600"]).arg(from).arg(to))
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Customers with values of every protected class, orders, and a view that renames a protected column.
const SAMPLE: &str = "
CREATE TABLE customers (
    id int PRIMARY KEY, name text NOT NULL, email text, ssn varchar(11), credit_card text, note text, profile jsonb);
INSERT INTO customers VALUES
    (1, 'Ada Lovelace', 'ada@example.com', '219-45-6789', '4111111111111111', 'prefers tea', '{\"city\": \"London\"}'),
    (2, 'Alan Turing', 'alan@example.com', '457-55-5462', '5555555555554444', 'runs', '{\"city\": \"Wilmslow\"}'),
    (3, 'Grace Hopper', 'grace@example.com', '318-22-9041', '378282246310005', NULL, '{\"city\": \"Arlington\"}');
CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, total numeric(10,2));
INSERT INTO orders SELECT n, n % 3 + 1, n * 10.5 FROM generate_series(1, 30) n;
CREATE VIEW contacts AS SELECT id, name, ssn AS national_id FROM customers;
CREATE ROLE app LOGIN PASSWORD 'app-secret';
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
";
