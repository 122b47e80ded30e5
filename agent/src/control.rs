//! The control socket: one JSON request a line, one JSON answer a line. It refuses labelled workloads and, for each
//! request, callers that are not entitled to it (SO_PEERCRED): root detaches, people answer; held acts are shown to both.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::app::Agent;
use crate::config::Person;
use crate::desk::Shown;
use crate::live::Whose;

pub mod client;
mod seats;
pub mod status;

use seats::{Seat, Seats};

/// Bytes of one request; longer ones are refused.
const REQUEST_BYTES: u64 = 64 * 1024;
/// How long it may take to tell a caller why it is turned away.
const WORDS: Duration = Duration::from_millis(100);
/// A caller that asks nothing for this long gives its seat up; one that watches may stay.
const IDLE: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Status,
    Approvals,
    /// Like `approvals`, again at every change.
    Watch,
    Answer {
        id: String,
        granted: bool,
        reason: String,
    },
    /// Ends open connections.
    Revoke {
        whose: Whose,
        reason: String,
    },
    /// Tries the program on the disk out, and becomes it.
    Upgrade,
    /// Opens a listener in the network namespace of the caller's process, before it needs one.
    Serve,
    /// Lifts the fence and ends the agent.
    Detach {
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Response {
    Status(Box<status::Status>),
    Approvals { open: Vec<Shown> },
    Answered { question: Box<Shown> },
    Revoked { connections: u64 },
    Upgrading,
    Served,
    Detached,
    Refused { message: String },
}

/// Goes on with the socket of the program before, or binds it, replacing a stale one of a dead agent.
///
/// # Errors
/// The folder cannot be made, or another agent answers on the socket.
pub async fn bind(path: &Path, inherited: Option<OwnedFd>) -> anyhow::Result<UnixListener> {
    match inherited {
        Some(socket) => Ok(UnixListener::from_std(std::os::unix::net::UnixListener::from(socket))?),
        None => bind_new(path).await,
    }
}

async fn bind_new(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    if UnixStream::connect(path).await.is_ok() {
        anyhow::bail!(
            "another agent answers on {}; stop it first or set `control` to another path",
            path.display()
        );
    }
    match std::fs::remove_file(path) {
        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => {
            return Err(fault).with_context(|| format!("cannot remove the stale {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    // Approvers are ordinary users; what each may ask is decided by their uid, per request.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves callers until the agent ends.
pub async fn serve(listener: &UnixListener, agent: Arc<Agent>) {
    let seats = Seats::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match admit(&stream, &agent, &seats) {
                Ok((caller, seat)) => {
                    let agent = Arc::clone(&agent);
                    tokio::spawn(async move {
                        if let Err(fault) = converse(stream, &caller, &agent).await {
                            tracing::debug!(%fault, "Control connection ended early.");
                        }
                        drop(seat);
                    });
                }
                Err(message) => turn_away(stream, message).await,
            },
            Err(fault) => {
                tracing::warn!(%fault, "Control socket cannot accept.");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Labelled workloads, and callers for whom there is no seat, hear why before they ask.
fn admit(stream: &UnixStream, agent: &Agent, seats: &Seats) -> Result<(Caller, Seat), String> {
    let caller = Caller::of(stream, agent)?;
    let seat = seats.take(caller.uid)?;
    Ok((caller, seat))
}

/// The buffer of a new socket takes a line at once; a caller that is gone needs none.
async fn turn_away(mut stream: UnixStream, message: String) {
    let _ = tokio::time::timeout(WORDS, send(&mut stream, &Response::Refused { message })).await;
}

async fn converse(stream: UnixStream, caller: &Caller, agent: &Arc<Agent>) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(REQUEST_BYTES)).lines();
    while let Some(line) = tokio::time::timeout(IDLE, lines.next_line()).await?? {
        let response = match serde_json::from_str::<Request>(&line) {
            Err(fault) => Response::Refused { message: format!("this request is not understood: {fault}") },
            Ok(Request::Watch) if caller.may_see_acts() => {
                return tokio::select! {
                    watched = watch(&mut write, agent) => watched,
                    // It goes away, or has something else to say: watching is over.
                    gone = lines.next_line() => gone.map(|_| ()),
                };
            }
            Ok(request) => answer(request, caller, agent).await,
        };
        send(&mut write, &response).await?;
        match response {
            Response::Detached => agent.stop.notify_one(),
            Response::Upgrading => agent.upgrade.notify_one(),
            _ => {}
        }
        lines.get_mut().get_mut().set_limit(REQUEST_BYTES);
    }
    Ok(())
}

async fn answer(request: Request, caller: &Caller, agent: &Arc<Agent>) -> Response {
    match request {
        Request::Status => Response::Status(Box::new(status::Status::of(agent))),
        Request::Approvals | Request::Watch if caller.may_see_acts() => {
            Response::Approvals { open: agent.desk.list() }
        }
        Request::Approvals | Request::Watch => Response::Refused {
            message: format!(
                "uid {} is nobody in `people` of the configuration: held acts are shown to them and to root",
                caller.uid
            ),
        },
        Request::Answer { id, granted, reason } => {
            let Some(person) = &caller.person else {
                return Response::Refused {
                    message: format!("uid {} is nobody in `people` of the configuration", caller.uid),
                };
            };
            match agent.desk.answer(&id, person, granted, &reason) {
                Ok(question) => Response::Answered { question: Box::new(question) },
                Err(fault) => Response::Refused { message: fault.to_string() },
            }
        }
        Request::Detach { reason } if caller.uid == 0 => match agent.detach(&caller.name(), &reason).await {
            Ok(()) => Response::Detached,
            Err(fault) => Response::Refused { message: format!("{fault:#}") },
        },
        Request::Upgrade if caller.uid == 0 => match agent.prepare_upgrade(&caller.name()).await {
            Ok(()) => Response::Upgrading,
            Err(fault) => Response::Refused { message: format!("{fault:#}; this agent goes on") },
        },
        Request::Serve if caller.uid == 0 => {
            agent.meet(caller.pid).await;
            Response::Served
        }
        Request::Revoke { whose, reason } if caller.uid == 0 => {
            Response::Revoked { connections: agent.revoke(&caller.name(), &whose, &reason) }
        }
        Request::Upgrade | Request::Serve | Request::Revoke { .. } => {
            Response::Refused { message: "only root may ask for this".into() }
        }
        Request::Detach { .. } => Response::Refused { message: "only root may lift the fence".into() },
    }
}

async fn watch(write: &mut (impl AsyncWriteExt + Unpin), agent: &Agent) -> std::io::Result<()> {
    let mut changed = agent.desk.watch();
    loop {
        send(write, &Response::Approvals { open: agent.desk.list() }).await?;
        if changed.changed().await.is_err() {
            return Ok(());
        }
    }
}

async fn send(write: &mut (impl AsyncWriteExt + Unpin), response: &Response) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Who is on the other end of the socket.
struct Caller {
    uid: u32,
    pid: u32,
    person: Option<Person>,
}

impl Caller {
    /// Refuses callers whose process runs in a labelled cgroup: a workload must not answer for itself.
    fn of(stream: &UnixStream, agent: &Agent) -> Result<Caller, String> {
        let credentials =
            stream.peer_cred().map_err(|fault| format!("your identity is not known: {fault}"))?;
        let pid = credentials.pid().ok_or("your process is not known")?.unsigned_abs();
        match agent.workloads.of_process(&agent.fence, pid) {
            Ok(None) => {}
            Ok(Some(workload)) => {
                return Err(format!("workload {workload} is guarded by weir and may not talk to it"));
            }
            Err(fault) => return Err(format!("your cgroup is not known: {fault}")),
        }
        let uid = credentials.uid();
        Ok(Caller { uid, pid, person: agent.config.person(uid).cloned() })
    }

    /// Held acts carry the text of statements and paths of requests.
    fn may_see_acts(&self) -> bool {
        self.uid == 0 || self.person.is_some()
    }

    fn name(&self) -> String {
        self.person.as_ref().map_or_else(|| format!("uid {}", self.uid), |person| person.user.clone())
    }
}
