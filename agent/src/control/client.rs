//! The CLI's end of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, bail};

use super::{Request, Response};

/// A connection to a running agent.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// # Errors
    /// No agent answers on the socket.
    pub fn connect(path: &Path) -> anyhow::Result<Client> {
        let stream = UnixStream::connect(path).with_context(|| {
            format!("no agent answers on {}; start one with `weir agent --config FILE`", path.display())
        })?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// # Errors
    /// The agent refuses (its words), or goes away.
    pub fn ask(&mut self, request: &Request) -> anyhow::Result<Response> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        // An agent that turns callers away says why before it is asked, and closes: its words are still to be read.
        let _ = self.stream.get_mut().write_all(&line);
        self.receive()
    }

    /// The next answer of a request that has several (`Watch`).
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn receive(&mut self) -> anyhow::Result<Response> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("the agent went away")? == 0 {
            bail!("the agent went away");
        }
        match serde_json::from_str(&line)? {
            Response::Refused { message } => bail!("{message}"),
            response => Ok(response),
        }
    }
}
