//! What the pump asks of the connection around it: the session's host, and the answers that take time.
//! It refuses nothing itself; `rim` is the real one, tests bring their own.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use weir_core::approval::{Answer, Question};
use weir_core::audit::Receipt;
use weir_core::session::{Host, Login, Now};

/// What the pump needs besides the two sockets: the session's host, and the slow answers that it waits for.
pub(crate) trait Surroundings: Host {
    type Server: AsyncRead + AsyncWrite + Unpin;

    fn now(&self) -> Now;
    /// Dials the recorded destination; asked for at most once.
    fn dial(&mut self) -> Dialling<Self::Server>;
    /// Dials and logs in with a credential; yields the server's messages after AuthenticationOk.
    fn login(&mut self, login: Login) -> LoggingIn<Self::Server>;
    /// A strict record is on its way to the disk.
    fn is_writing(&self) -> bool;
    /// Resolves when the strict record that [`Host::append`] answered with `Waiting` is on the disk.
    fn poll_recorded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receipt, String>>;
    fn ask(&mut self, question: Question);
    fn withdraw(&mut self);
    /// Resolves when another policy is in force; only for sessions that pass unread, since acts are judged one by one.
    fn poll_policy(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Resolves once when somebody ends the connection.
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Resolves with the desk's answer to the question asked last; pending when none is open.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer>;
}

pub(crate) type Dialling<S> = Pin<Box<dyn Future<Output = io::Result<S>>>>;
pub(crate) type LoggingIn<S> = Pin<Box<dyn Future<Output = io::Result<(S, Vec<u8>)>>>>;
