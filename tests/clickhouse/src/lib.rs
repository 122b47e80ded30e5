//! A real ClickHouse for tests and the demo: starts `clickhouse-embedded-http` (the engine in process, HTTP interface
//! by us) on a free port. It refuses to pretend: the engine, SQL, formats and tables are ClickHouse's; users, grants,
//! replication and TLS are not there.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The npm package that carries the engine as one shared library: ClickHouse 26.7.
pub const PACKAGE: &str = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1";

/// A running server; dropping it stops the process and removes its data.
#[derive(Debug)]
pub struct Server {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    port: u16,
    data: PathBuf,
    password: Option<String>,
    child: Option<Child>,
}

/// Starts a server without a password. Fetches the engine with npm (178 MB, once) and builds the binary first.
///
/// # Errors
/// npm, cargo or the engine failed; the message says which.
pub fn start() -> io::Result<Server> {
    Server::launch(None)
}

/// The same, for clients that must send this password (any user name).
///
/// # Errors
/// As [`start`].
pub fn start_with_password(password: &str) -> io::Result<Server> {
    Server::launch(Some(password.into()))
}

impl Server {
    fn launch(password: Option<String>) -> io::Result<Server> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("weir-clickhouse-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let data = std::env::temp_dir().join(name);
        let mut server = Server { url: String::new(), port: 0, data, password, child: None };
        server.resume()?;
        Ok(server)
    }

    /// Kills the process at once (SIGKILL); its data stay.
    ///
    /// # Errors
    /// Those of `kill` and `wait`.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts it again after [`Server::kill`], on the same port with the same data.
    ///
    /// # Errors
    /// As [`start`].
    pub fn resume(&mut self) -> io::Result<()> {
        let mut command = Command::new(binary()?);
        command.arg(library()?).arg(&self.data).arg(format!("127.0.0.1:{}", self.port));
        if let Some(password) = &self.password {
            command.env("CLICKHOUSE_PASSWORD", password);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let said = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let (Some(Ok(_)), Some(port)) = (said, port) else {
            let _ = child.kill();
            return Err(io::Error::other(format!(
                "the ClickHouse engine did not start: {:?}",
                child.wait()?
            )));
        };
        self.port = port;
        self.url = format!("http://127.0.0.1:{port}");
        self.child = Some(child);
        Ok(())
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The end of its stdin tells it to close the engine.
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// Path of the engine's library; fetched on first use into `~/.cache/weir/clickhouse`. `WEIR_CLICKHOUSE_LIB` overrides.
///
/// # Errors
/// npm is missing or failed.
pub fn library() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_CLICKHOUSE_LIB") {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").unwrap_or_else(|| "/root".into());
    let cache = Path::new(&home).join(".cache/weir/clickhouse");
    let library = cache.join("node_modules/@chdb/lib-linux-x64-gnu/libchdb.so");
    if library.exists() {
        return Ok(library);
    }
    std::fs::create_dir_all(&cache)?;
    eprintln!("fetching the ClickHouse engine ({PACKAGE}, 178 MB) into {}", cache.display());
    let done = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"])
        .arg(&cache)
        .arg(PACKAGE)
        .stdout(Stdio::null())
        .status()
        .map_err(|fault| io::Error::other(format!("npm is needed to fetch the engine: {fault}")))?;
    if done.success() && library.exists() {
        return Ok(library);
    }
    Err(io::Error::other(format!("npm could not fetch {PACKAGE}: {done}")))
}

/// Path of the front; built on first use. `WEIR_CLICKHOUSE_BIN` overrides.
fn binary() -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_CLICKHOUSE_BIN") {
        return Ok(path.into());
    }
    static BUILT: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    BUILT.get_or_init(build).clone().map_err(io::Error::other)
}

fn build() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME")])
        .current_dir(&root)
        .status()
        .map_err(|fault| format!("cargo: {fault}"))?;
    if !done.success() {
        return Err(format!("cargo build of the ClickHouse front: {done}"));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("debug/clickhouse-embedded-http"))
}
