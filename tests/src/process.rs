//! Child processes that end with their owner, by id and never by name; conditions that are awaited, not slept for.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How long a server may take to come up on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A server that is ended when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    name: String,
}

impl Server {
    /// Starts the command with its output in `log`.
    ///
    /// # Errors
    /// The program is missing (`cargo xtask setup` installs what the tests need), or the log cannot be written.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Server> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn().with_context(
                || format!("cannot start {name}; `cargo xtask setup` installs what is missing"),
            )?;
        Ok(Server { child, name })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap_or(libc::pid_t::MAX);
        // SAFETY: kill has no memory effects; the pid is our own child that has not been waited for.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits for the process to end by itself.
    ///
    /// # Errors
    /// It still runs when patience is over.
    pub fn wait(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} did not end", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it the hard way and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// True while it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.runs() {
            return;
        }
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }
}

/// Ends every process whose command line names a file below `dir`, which is one lab's own, and awaits their end.
pub(crate) fn end_all_of(dir: &Path) {
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    let mark = format!("{}/", dir.display());
    let pids: Vec<libc::pid_t> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(mark.len()).any(|part| part == mark.as_bytes()))
        })
        .collect();
    for pid in &pids {
        // SAFETY: kill has no memory effects.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    let _ = until("killed processes are gone", || {
        !pids.iter().any(|pid| {
            // A zombie has no command line.
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
        })
    });
}

/// Awaits a condition, asking every few milliseconds.
///
/// # Errors
/// `what` did not come true within [`PATIENCE`].
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            bail!("{what}: not within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A TCP port that is free on all loopback addresses right now.
///
/// # Errors
/// The kernel has none left.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
