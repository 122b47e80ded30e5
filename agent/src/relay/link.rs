//! The relaying process's way to the keeper, for what takes time. It refuses answers of another kind than was asked for.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use weir_core::approval::{Answer, Question};
use weir_core::identity::Identity;

use crate::desk::Requester;
use crate::lane::counter::UNEXPECTED;
use crate::lane::message::{Call, Reply, Resolver, ToKeeper, ToRelay};
use crate::lane::{Lane, Received};
use crate::listen::Origin;

/// One thread's lane, and the calls on it that wait.
#[derive(Debug)]
pub(crate) struct Link {
    lane: Lane,
    next: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Replied>>>,
}

type Replied = (Reply, Vec<OwnedFd>);

impl Link {
    pub(crate) fn new(lane: Lane) -> Link {
        Link { lane, next: AtomicU64::new(1), open: Mutex::default() }
    }

    /// The keeper's next order.
    ///
    /// # Errors
    /// See [`Lane::receive`].
    pub(crate) async fn receive(&self) -> io::Result<Received<ToRelay>> {
        self.lane.receive().await
    }

    /// Sends what has had to wait; see [`Lane::flush`].
    pub(crate) async fn flush(&self) -> io::Error {
        self.lane.flush().await
    }

    /// Tells the keeper something. A keeper that is gone needs no telling: this process ends.
    pub(crate) fn tell(&self, note: &ToKeeper) {
        self.lane.tell(note, Vec::new());
    }

    /// The keeper has answered a call. One that nobody waits for any more is dropped.
    pub(crate) fn answered(&self, id: u64, reply: Reply, fds: Vec<OwnedFd>) {
        let waiting = self.open().remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send((reply, fds));
        }
    }

    async fn call(&self, call: Call) -> io::Result<Replied> {
        self.begin(|id| ToKeeper::Call { id, call })?
            .await
            .map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    /// Puts a call at once; its answer comes later.
    fn begin(&self, call: impl FnOnce(u64) -> ToKeeper) -> io::Result<oneshot::Receiver<Replied>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.open().insert(id, answer);
        if let Err(fault) = self.lane.post(&call(id), Vec::new()) {
            self.open().remove(&id);
            return Err(fault);
        }
        Ok(answered)
    }

    /// The server at the recorded address of a session.
    ///
    /// # Errors
    /// In the words of the keeper.
    pub(crate) async fn dial(&self, session: u64) -> io::Result<TcpStream> {
        let socket = connected(self.call(Call::Dial { session }).await?)?;
        TcpStream::from_std(socket.into())
    }

    /// A socket that is connected to one of the DNS servers that workloads may ask.
    pub(crate) async fn resolver_stream(&self, server: Resolver) -> io::Result<TcpStream> {
        let socket = connected(self.call(Call::Resolver { server, is_stream: true }).await?)?;
        TcpStream::from_std(socket.into())
    }

    /// The same for one datagram each way.
    pub(crate) async fn resolver(&self, server: Resolver) -> io::Result<UdpSocket> {
        let socket = connected(self.call(Call::Resolver { server, is_stream: false }).await?)?;
        UdpSocket::from_std(socket.into())
    }

    /// Puts a question at once, and yields a human's answer; `None` when it was withdrawn, or could not be put.
    pub(crate) fn ask(
        &self,
        question: Question,
        requester: Requester,
    ) -> impl Future<Output = Option<Answer>> + use<> {
        let of = question.id.clone();
        let (question, requester) = (Box::new(question), Box::new(requester));
        let begun = self.begin(|id| ToKeeper::Ask { id, question, requester });
        async move {
            let answered =
                begun.inspect_err(|fault| tracing::error!(%fault, id = of, "A question could not be put."));
            match answered.ok()?.await {
                Ok((Reply::Answered(answer), _)) => answer,
                Ok(_) | Err(_) => None,
            }
        }
    }

    pub(crate) async fn asker(
        &self,
        netns: u64,
        from: SocketAddr,
        to: SocketAddr,
        received: u64,
    ) -> Result<Origin, String> {
        match self.call(Call::Asker { netns, from, to, received }).await {
            Ok((Reply::Asker(found), _)) => found.map(|origin| *origin),
            Ok(_) => Err(UNEXPECTED.into()),
            Err(fault) => Err(fault.to_string()),
        }
    }

    /// `None` when the process is gone.
    pub(crate) async fn identify(&self, origin: &Origin) -> io::Result<Option<Identity>> {
        match self.call(Call::Identify { origin: Box::new(origin.clone()) }).await? {
            (Reply::Identity(found), _) => Ok(found.map(|identity| *identity)),
            _ => Err(io::Error::other(UNEXPECTED)),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Replied>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn connected((reply, mut fds): Replied) -> io::Result<OwnedFd> {
    match reply {
        Reply::Connected => fds.pop().ok_or_else(|| io::Error::other(UNEXPECTED)),
        Reply::NotConnected(words) => Err(io::Error::other(words)),
        _ => Err(io::Error::other(UNEXPECTED)),
    }
}
