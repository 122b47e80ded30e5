//! A client that holds a connection open and says what becomes of it. It is ended with its owner.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};

/// For python3, as `PORT PATH`: asks once over HTTP, says `open`, and when the connection ends prints how it did.
pub const HOLD: &str = r#"
import socket, sys
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % sys.argv[2].encode())
s.recv(65536)
print("open", flush=True)
try:
    while s.recv(65536): pass
    print("closed", flush=True)
except OSError as fault:
    print(fault.strerror, flush=True)
"#;

/// Such a client.
#[derive(Debug)]
pub struct Waiter {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Waiter {
    /// Starts a command, and waits until it says `open`.
    ///
    /// # Errors
    /// It cannot be started, or says something else.
    pub fn start(mut command: Command) -> anyhow::Result<Waiter> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut waiter = Waiter { child, output };
        match waiter.line()?.as_str() {
            "open" => Ok(waiter),
            other => bail!("it says {other:?}"),
        }
    }

    /// What it says next.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
