//! The relaying process's way to the keeper: calls that take time, and a counter where a thread waits for its answer.
//! It refuses answers of another kind than was asked for.

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
use weir_core::policy::SecretName;
use zeroize::Zeroizing;

use crate::credential::{Exchange, Prover, Stamp};
use crate::desk::Requester;
use crate::lane::message::{Binding, Call, Given, Reply, Request, Resolver, ToKeeper, ToRelay};
use crate::lane::{self, Lane};
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
    pub(crate) async fn receive(&self) -> io::Result<Option<(ToRelay, Vec<OwnedFd>)>> {
        self.lane.receive().await
    }

    /// Sends what has had to wait; see [`Lane::flush`].
    pub(crate) async fn flush(&self) -> io::Error {
        self.lane.flush().await
    }

    /// Tells the keeper something. A keeper that is gone needs no telling: this process ends.
    pub(crate) fn tell(&self, note: &ToKeeper) {
        let _ = self.lane.post(note, Vec::new());
    }

    /// The keeper has answered a call. One that nobody waits for any more is dropped.
    pub(crate) fn answered(&self, id: u64, reply: Reply, fds: Vec<OwnedFd>) {
        let waiting = self.open().remove(&id);
        if let Some(waiting) = waiting {
            let _ = waiting.send((reply, fds));
        }
    }

    async fn call(&self, call: Call) -> io::Result<Replied> {
        self.begin(call)?.await.map_err(|_| io::ErrorKind::ConnectionAborted.into())
    }

    /// Puts a call at once; its answer comes later.
    fn begin(&self, call: Call) -> io::Result<oneshot::Receiver<Replied>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.open().insert(id, answer);
        if let Err(fault) = self.lane.post(&ToKeeper::Call { id, call }, Vec::new()) {
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

    /// A socket that is connected to one of the host's DNS servers.
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
        let id = question.id.clone();
        let call = Call::Ask { question: Box::new(question), requester: Box::new(requester) };
        let begun = self.begin(call);
        async move {
            let answered =
                begun.inspect_err(|fault| tracing::error!(%fault, id, "A question could not be put."));
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

/// Where a thread waits for what the keeper gives: tens of microseconds, some milliseconds for a proof.
#[derive(Debug)]
pub struct Counter(Mutex<OwnedFd>);

impl Counter {
    #[must_use]
    pub fn new(end: OwnedFd) -> Counter {
        Counter(Mutex::new(end))
    }

    fn ask(&self, request: &Request) -> Result<(Given, Vec<OwnedFd>), String> {
        let end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = |fault: io::Error| format!("the keeper does not answer: {fault}");
        lane::send_now(&end, request, &[]).map_err(gone)?;
        match lane::receive_now(&end).map_err(gone)? {
            Some((Given::Refused(why), _)) => Err(why),
            Some(given) => Ok(given),
            None => Err("the keeper is gone".into()),
        }
    }

    /// A leaf's certificate for a name and a public key, both as [`Request::Leaf`] has them.
    ///
    /// # Errors
    /// In the keeper's words.
    pub fn leaf(&self, name: String, key: Vec<u8>) -> Result<Vec<u8>, String> {
        match self.ask(&Request::Leaf { name, key })? {
            (Given::Leaf(der), _) => Ok(der),
            _ => Err(UNEXPECTED.into()),
        }
    }

    /// # Errors
    /// In the keeper's words, without a value.
    pub fn secret(&self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, String> {
        let SecretName { provider, name } = name.clone();
        match self.ask(&Request::Secret { provider, name })? {
            (Given::Secret(value), _) => Ok(Zeroizing::new(value)),
            _ => Err(UNEXPECTED.into()),
        }
    }

    /// The `ca` file of a target, and its state.
    ///
    /// # Errors
    /// It cannot be read, or no policy names it.
    pub fn authority(&self, path: &str) -> io::Result<(Stamp, Vec<u8>)> {
        match self.ask(&Request::Authority { path: path.into() }).map_err(io::Error::other)? {
            (Given::Authority(stamp), mut fds) => {
                let file = fds.pop().ok_or_else(|| io::Error::other(UNEXPECTED))?;
                Ok((stamp, lane::unsealed(file)?))
            }
            _ => Err(io::Error::other(UNEXPECTED)),
        }
    }
}

/// Proves with a password that stays with the keeper.
#[derive(Debug)]
pub(crate) struct KeptPassword<'a> {
    pub(crate) counter: &'a Counter,
    pub(crate) name: &'a SecretName,
}

#[derive(Debug)]
struct KeptExchange<'a> {
    counter: &'a Counter,
    login: u64,
    message: Vec<u8>,
}

impl Prover for KeptPassword<'_> {
    fn clear_text(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let SecretName { provider, name } = self.name.clone();
        match self.counter.ask(&Request::ClearText { provider, name })? {
            (Given::Secret(value), _) => Ok(Zeroizing::new(value)),
            _ => Err(UNEXPECTED.into()),
        }
    }

    fn md5(&self, user: &str, salt: [u8; 4]) -> Result<Zeroizing<Vec<u8>>, String> {
        let SecretName { provider, name } = self.name.clone();
        match self.counter.ask(&Request::Md5 { provider, name, user: user.into(), salt })? {
            (Given::Secret(answer), _) => Ok(Zeroizing::new(answer)),
            _ => Err(UNEXPECTED.into()),
        }
    }

    fn scram(&self, binding: Binding) -> Result<Box<dyn Exchange + Send + '_>, String> {
        let SecretName { provider, name } = self.name.clone();
        match self.counter.ask(&Request::Scram { provider, name, binding })? {
            (Given::Scram { login, message }, _) => {
                Ok(Box::new(KeptExchange { counter: self.counter, login, message }))
            }
            _ => Err(UNEXPECTED.into()),
        }
    }
}

impl Exchange for KeptExchange<'_> {
    fn message(&self) -> &[u8] {
        &self.message
    }

    fn update(&mut self, server: &[u8]) -> Result<(), String> {
        match self.counter.ask(&Request::ScramUpdate { login: self.login, message: server.into() })? {
            (Given::Scram { message, .. }, _) => {
                self.message = message;
                Ok(())
            }
            _ => Err(UNEXPECTED.into()),
        }
    }

    fn finish(&mut self, server: &[u8]) -> Result<(), String> {
        match self.counter.ask(&Request::ScramFinish { login: self.login, message: server.into() })? {
            (Given::Done, _) => Ok(()),
            _ => Err(UNEXPECTED.into()),
        }
    }
}

const UNEXPECTED: &str = "the keeper answered something else";
