//! A private PostgreSQL 15 on a unix socket, and just enough of its protocol to run a query and to describe one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_core::sql::{Catalog, Table, TableColumn};

const BIN: &str = "/usr/lib/postgresql/15/bin";

pub struct Server {
    dir: PathBuf,
    process: Child,
}

impl Server {
    /// Starts a fresh server. `name` keeps tests of one process apart.
    pub fn start(name: &str) -> Self {
        assert!(
            Path::new(BIN).join("initdb").exists(),
            "PostgreSQL 15 is not installed: run `cargo xtask setup`"
        );
        let dir = PathBuf::from(format!("/tmp/weir-sql-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        assert!(Command::new("chown").arg("postgres").arg(&dir).status().unwrap().success());
        let initdb = postgres(&dir, "initdb")
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"])
            .arg(dir.join("data"))
            .stdout(Stdio::null())
            .status();
        assert!(initdb.unwrap().success(), "initdb failed");
        let process = postgres(&dir, "postgres")
            .arg("-D")
            .arg(dir.join("data"))
            .arg("-k")
            .arg(&dir)
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { dir, process }
    }

    pub fn connect(&self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Ok(stream) = UnixStream::connect(self.dir.join(".s.PGSQL.5432"))
                && let Some(client) = Client::start(stream)
            {
                return client;
            }
            assert!(Instant::now() < deadline, "PostgreSQL does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT: immediate shutdown, children included.
        let _ = Command::new("kill").arg("-QUIT").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The server refuses to run as root.
fn postgres(dir: &Path, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
    command.arg(Path::new(BIN).join(program)).current_dir(dir).env("LC_ALL", "C.UTF-8");
    command
}

pub struct Client(UnixStream);

/// A column as RowDescription reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub relation: u32,
    pub attribute: i16,
}

pub type Rows = Vec<Vec<Option<String>>>;

impl Client {
    fn start(mut stream: UnixStream) -> Option<Self> {
        let mut body = 196_608_i32.to_be_bytes().to_vec();
        body.extend(b"user\0postgres\0database\0postgres\0\0");
        let length = i32::try_from(body.len() + 4).unwrap();
        stream.write_all(&length.to_be_bytes()).ok()?;
        stream.write_all(&body).ok()?;
        let mut client = Self(stream);
        loop {
            match client.message()? {
                (b'Z', _) => return Some(client),
                (b'E', _) => return None,
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).ok()?;
        Some((head[0], body))
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        self.0.write_all(&[kind]).unwrap();
        self.0.write_all(&u32::try_from(body.len() + 4).unwrap().to_be_bytes()).unwrap();
        self.0.write_all(body).unwrap();
    }

    /// Rows of the last result of a simple query, or the server's message.
    pub fn query(&mut self, sql: &str) -> Result<Rows, String> {
        self.send(b'Q', &[sql.as_bytes(), b"\0"].concat());
        let (mut rows, mut error) = (Rows::new(), None);
        loop {
            match self.message().unwrap() {
                (b'T', _) => rows.clear(),
                (b'D', body) => rows.push(cells(&body)),
                (b'E', body) => error = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                (b'Z', _) => return error.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Parse and Describe without running anything.
    pub fn describe(&mut self, sql: &str) -> Result<Vec<Described>, String> {
        self.send(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"].concat());
        self.send(b'D', b"S\0");
        self.send(b'S', b"");
        let mut result = Ok(Vec::new());
        loop {
            match self.message().unwrap() {
                (b'T', body) => result = Ok(described(&body)),
                (b'E', body) => result = Err(String::from_utf8_lossy(&body).replace('\0', " ")),
                (b'Z', _) => return result,
                _ => {}
            }
        }
    }

    /// The catalog as weir's own session reads it.
    pub fn catalog(&mut self) -> Arc<Catalog> {
        let text = |row: &[Option<String>], at: usize| row[at].clone().unwrap_or_default();
        let list =
            |text: String| text.split(',').filter(|s| !s.is_empty()).map(Into::into).collect::<Vec<String>>();
        let mut catalog = Catalog::default();
        let path = self.query("SELECT array_to_string(current_schemas(true), ',')").unwrap();
        catalog.search_path = list(text(&path[0], 0));
        let tables = self.query(
            "SELECT c.oid, nspname, relname, relkind, CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
                    (SELECT string_agg(inhparent::oid::text, ',') FROM pg_inherits WHERE inhrelid = c.oid)
               FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p', 'v', 'm', 'f')",
        );
        for row in tables.unwrap() {
            let oid: u32 = text(&row, 0).parse().unwrap();
            let table = Table {
                schema: text(&row, 1),
                name: text(&row, 2),
                kind: text(&row, 3).chars().next().unwrap(),
                columns: Vec::new(),
                definition: text(&row, 4),
                parents: list(text(&row, 5)).iter().map(|oid| oid.parse().unwrap()).collect(),
            };
            catalog.by_name.insert((table.schema.clone(), table.name.clone()), oid);
            catalog.relations.insert(oid, table);
        }
        let columns = "SELECT attrelid, attnum, attname, atttypid FROM pg_attribute
                        WHERE attnum > 0 AND NOT attisdropped ORDER BY 1, 2";
        for row in self.query(columns).unwrap() {
            if let Some(table) = catalog.relations.get_mut(&text(&row, 0).parse().unwrap()) {
                let (attribute, type_oid) = (text(&row, 1).parse().unwrap(), text(&row, 3).parse().unwrap());
                table.columns.push(TableColumn { attribute, name: text(&row, 2), type_oid });
            }
        }
        let functions = "SELECT nspname, proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace
                          WHERE p.oid >= 16384";
        let functions = self.query(functions).unwrap();
        catalog.functions = functions.iter().map(|row| (text(row, 0), text(row, 1))).collect();
        catalog.epoch = 1;
        Arc::new(catalog)
    }
}

fn described(body: &[u8]) -> Vec<Described> {
    let count = u16::from_be_bytes([body[0], body[1]]);
    let mut at = 2;
    (0..count)
        .map(|_| {
            let end = at + body[at..].iter().position(|byte| *byte == 0).unwrap();
            let name = String::from_utf8_lossy(&body[at..end]).into_owned();
            let relation = u32::from_be_bytes(body[end + 1..end + 5].try_into().unwrap());
            let attribute = i16::from_be_bytes(body[end + 5..end + 7].try_into().unwrap());
            at = end + 19;
            Described { name, relation, attribute }
        })
        .collect()
}

fn cells(body: &[u8]) -> Vec<Option<String>> {
    let count = u16::from_be_bytes([body[0], body[1]]);
    let mut at = 2;
    (0..count)
        .map(|_| {
            let length = i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
            at += 4;
            let length = usize::try_from(length).ok()?;
            at += length;
            Some(String::from_utf8_lossy(&body[at - length..at]).into_owned())
        })
        .collect()
}
