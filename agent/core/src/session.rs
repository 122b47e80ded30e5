//! One connection: [`Input`] → [`Outbox`]. It ties wire, policy, mask and audit together, and knows no socket.
//! It refuses to let a byte out that was not parsed, permitted and recorded.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::approval::{Answer, Question};
use crate::audit::{Receipt, Record};
use crate::destination::Destination;
use crate::identity::Identity;
use crate::policy::{Inject, Policy, SecretName};
use crate::sql::{Catalog, CatalogKey, Grammar};

pub mod http;
pub mod opaque;
pub mod postgres;
mod witness;

pub use witness::{Act, Cleared, Masked};

/// A connection whose own verdict was "go on" and whose protocol is known.
#[derive(Debug)]
pub struct Session {
    conversation: Conversation,
}

#[derive(Debug)]
enum Conversation {
    Postgres(alloc::boxed::Box<postgres::Conversation>),
    Http(alloc::boxed::Box<http::Conversation>),
    Opaque(alloc::boxed::Box<opaque::Conversation>),
}

/// What is known of a connection when its session begins.
#[derive(Debug, Clone)]
pub struct Opening {
    /// 32 lower-case hex digits, unique; request ids are derived from it.
    pub session_id: Arc<str>,
    pub identity: Arc<Identity>,
    pub destination: Destination,
    /// The client leg is TLS that weir terminated.
    pub tls: bool,
    /// PostgreSQL: log in with this credential instead of relaying the client's authentication.
    pub login: Option<Arc<Inject>>,
}

impl Session {
    #[must_use]
    pub fn postgres(opening: Opening) -> Self {
        Self { conversation: Conversation::Postgres(postgres::Conversation::new(opening).into()) }
    }

    #[must_use]
    pub fn http(opening: Opening) -> Self {
        Self { conversation: Conversation::Http(http::Conversation::new(opening).into()) }
    }

    /// Passage without understanding, for a destination whose rule says `opaque: allow`; metered. `spoken` is what the
    /// connection could be read as, if a rule wanted to.
    #[must_use]
    pub fn opaque(
        opening: Opening,
        judgement: crate::policy::ConnectionJudgement,
        spoken: crate::action::Protocol,
    ) -> Self {
        let conversation = opaque::Conversation::new(opening, judgement, spoken);
        Self { conversation: Conversation::Opaque(conversation.into()) }
    }

    /// Advances the connection. Returns how many of the input's bytes were consumed; the caller keeps the rest and
    /// hands it in again, in front of what it reads next. Never panics and never loops on hostile input.
    pub fn handle(&mut self, now: Now, input: Input<'_>, host: &mut dyn Host, out: &mut Outbox) -> usize {
        match &mut self.conversation {
            Conversation::Postgres(conversation) => conversation.handle(now, input, host, out),
            Conversation::Http(conversation) => conversation.handle(now, input, host, out),
            Conversation::Opaque(conversation) => conversation.handle(now, input, host, out),
        }
    }
}

/// Clock readings of one wake; the core has no clock of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since 1970 UTC.
    pub wall_ns: u64,
    /// Nanoseconds of a monotonic clock.
    pub mono_ns: u64,
}

/// What a session asks of the machine it runs on.
pub trait Host {
    /// Appends a record. `Done` hands out the receipt at once (`fast`); `Waiting` means that the disk is still working
    /// and [`Input::Recorded`] will bring the receipt (`strict`); `Refused` means that the ledger cannot be written.
    fn append(&mut self, record: &Record) -> Appended;
    /// A secret's bytes, asked for only after the verdict that needs it.
    ///
    /// # Errors
    /// A message without secret bytes: unknown provider, missing file, empty value.
    fn secret(&mut self, name: &SecretName) -> Result<zeroize::Zeroizing<Vec<u8>>, String>;
    fn grammar(&self) -> &dyn Grammar;
    /// The policy in force; an act keeps the one it started with.
    fn policy(&self) -> Arc<Policy>;
    /// Key of keyed masks.
    fn mask_key(&self) -> &crate::mask::Key;
    /// The catalog that another session read in this state.
    fn known_catalog(&self, _key: &CatalogKey) -> Option<Arc<Catalog>> {
        None
    }
    /// Keeps a catalog for other sessions.
    fn share_catalog(&mut self, _key: CatalogKey, _catalog: &Arc<Catalog>) {}
}

/// The ledger's answer to an append.
#[derive(Debug)]
pub enum Appended {
    Done(Receipt),
    Waiting,
    Refused(String),
}

/// What happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// Bytes from the workload or the server: everything read and not yet consumed.
    Workload(&'a [u8]),
    Server(&'a [u8]),
    /// End of stream (FIN) from that side; `Server` also after a failed dial.
    WorkloadClosed,
    ServerClosed,
    /// The strict record asked for last is on the disk, or cannot be.
    Recorded(Result<Receipt, String>),
    Answered(Answer),
    /// PostgreSQL injection: weir is logged in; the server's messages from the first ParameterStatus to ReadyForQuery.
    LoggedIn(Vec<u8>),
    /// `wake_at` has passed.
    Tick,
    /// Another policy is in force. Acts are judged by it from now on; what passes unread is judged anew at once.
    Policy,
    /// Nothing more will be read or sent, whatever is still open: the session writes the rows it owes.
    Cut,
}

/// What the rim must do, in this order: send both queues, put the question to the desk, log in, then obey `close`.
#[derive(Debug, Default)]
pub struct Outbox {
    pub to_server: Cleared,
    pub to_workload: Masked,
    /// Put this question to the desk (at most one is open per session).
    pub ask: Option<Question>,
    /// The question is moot (client gone): take it off the desk.
    pub withdraw: bool,
    /// PostgreSQL injection: log in upstream as this user, then feed [`Input::LoggedIn`].
    pub login: Option<Login>,
    /// Dial the server although nothing is to be sent yet: it may speak first.
    pub dial: bool,
    /// Stop reading that side until the next call clears it.
    pub pause_workload: bool,
    pub pause_server: bool,
    /// Wake with [`Input::Tick`] at this monotonic time.
    pub wake_at: Option<u64>,
    /// After the queue is sent: FIN to that side, the other direction goes on (half-close).
    pub finish_server: bool,
    pub finish_workload: bool,
    pub close: Option<Close>,
}

/// An upstream login made by weir with a credential that never enters this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: SecretName,
    /// Start-up parameters of the client, except `user`.
    pub parameters: Vec<(String, String)>,
}

/// How to end the connection after the queues are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// FIN both ways.
    Finish,
    /// RST to the workload: the stream was cut, not ended.
    Reset,
}
