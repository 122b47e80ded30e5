//! A private pgbouncer in front of a lab's PostgreSQL, in session and in transaction mode at once.

use anyhow::{Result, bail};
use weir_tests::postgres::{PASSWORD, USER};
use weir_tests::process::{Server, free_port, until};
use weir_tests::{Lab, Postgres};

/// A running pooler. Its databases are named after their pool mode.
#[derive(Debug)]
pub(super) struct Pgbouncer {
    server: Server,
    pub(super) port: u16,
}

impl Pgbouncer {
    pub(super) fn start(lab: &Lab, postgres: &Postgres) -> Result<Pgbouncer> {
        let home = lab.folder_of("pgbouncer", "postgres")?;
        let port = free_port()?;
        lab.write("pgbouncer/users", &format!("\"{USER}\" \"{PASSWORD}\"\n"))?;
        let configuration = CONFIGURATION
            .replace("@server@", &format!("host=127.0.0.1 port={} dbname=shop", postgres.port))
            .replace("@port@", &port.to_string())
            .replace("@home@", &home.display().to_string());
        let path = lab.write("pgbouncer/pgbouncer.ini", &configuration)?;
        let mut command = std::process::Command::new("pgbouncer");
        command.args(["--quiet", "--user", "postgres"]).arg(path);
        let mut server = Server::start(&mut command, &home.join("output"))?;
        until("pgbouncer answers", || {
            !server.runs() || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        })?;
        if !server.runs() {
            bail!("pgbouncer did not start: {}", std::fs::read_to_string(home.join("output"))?);
        }
        Ok(Pgbouncer { server, port })
    }

    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }
}

const CONFIGURATION: &str = "\
[databases]
session = @server@ pool_mode=session
transaction = @server@ pool_mode=transaction
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = @port@
unix_socket_dir =
auth_type = scram-sha-256
auth_file = @home@/users
logfile = @home@/log
ignore_startup_parameters = extra_float_digits
max_client_conn = 200
default_pool_size = 40
";
