//! One PostgreSQL connection: start-up, authentication, then every statement judged, recorded and, where needed, held.
//! It refuses to answer for the server: what is denied is replaced by a message the server itself rejects.
//!
//! The rim hands in everything of a side that is not consumed yet. When a call leaves `pause_workload` clear after one
//! that set it, the rim hands the kept bytes of the workload in again; the same holds for the server's.

use alloc::sync::Arc;

use super::{Close, Host, Input, Now, Opening, Outbox};
use crate::action::{Context, Protocol};
use crate::audit::Receipt;
use crate::limits::{QUEUE_BYTES, SNIFF_NS};
use crate::wire::postgres::Violation;
use crate::wire::postgres::backend::Status;
use crate::wire::postgres::startup::Startup;

mod act;
mod catalog;
mod deny;
mod describe;
mod extended;
mod failure;
mod front;
mod hold;
mod judge;
mod ledger;
mod mask;
mod names;
mod obstacle;
mod protected;
mod record;
mod reply;
mod results;
mod scrub;
mod settings;
mod start;
mod statement;

pub use obstacle::foresee;

use act::Head;
use judge::Rules;
use mask::{Layout, Scratch};

#[derive(Debug)]
pub struct Conversation {
    opening: Opening,
    phase: Phase,
    startup: Startup,
    settings: settings::Settings,
    ledger: ledger::Ledger,
    names: names::Names,
    /// Open acts by number.
    deeds: hashbrown::HashMap<u64, record::Deed>,
    catalog: catalog::Reading,
    /// Whether acts of this connection need the catalog, under the policy that said so.
    guarded: Option<(Arc<dyn Rules>, bool)>,
    /// Masks that apply to this identity here, for what the server sends outside any result.
    guard: Option<Arc<Layout>>,
    scribe: record::Scribe,
    /// What was decided about the first message of the workload that is not consumed.
    head: Head,
    status: Status,
    /// The server discards the workload's messages up to the next Sync.
    skipping: bool,
    /// The workload has sent messages of the extended protocol and no Sync after them.
    unsynced: bool,
    /// COPY data is expected from the workload.
    copying: bool,
    /// A statement that unsettles names ran in the transaction at hand.
    unsettled: bool,
    /// The catalog was read again for the message at hand.
    refreshed: bool,
    /// What the first message of the workload waits for.
    waiting: Option<Wait>,
    /// The client was shown that the server is ready for its first statement.
    opened: bool,
    /// A result that cannot be shown was begun: the connection ends with this.
    severed: Option<deny::Pill>,
    /// weir has asked the server to send the description it waits for.
    flushed: bool,
    /// Bytes of a message that passes in pieces.
    client_rest: Rest,
    server_rest: Rest,
    scratch: Scratch,
    /// The workload's stream ended.
    gone: bool,
    /// The last input of the workload ended within a message.
    partial: bool,
    /// Monotonic nanoseconds by which the start-up packet must be whole.
    opening_ends: Option<u64>,
    /// Something came from the server.
    reached: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Start,
    /// The rim logs in with a credential of its own.
    Login,
    /// Messages of the server's and the client's authentication pass as they are.
    Authentication {
        /// The server waits for the client's answer.
        asked: bool,
    },
    Open,
    /// A CancelRequest was forwarded; the server closes.
    Cancel,
    Ended,
}

/// Why nothing more is taken from the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The login, or the server's next question.
    Login,
    /// A record's receipt, or a human.
    Ruling,
    /// Replies that the server owes.
    Replies,
}

/// Bytes of a message still to come, and where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Rest {
    #[default]
    None,
    /// Nowhere.
    Drop(usize),
    /// On, as part of the act (workload) or as they are (server).
    Pass(usize, u64),
}

/// What a call may use besides the conversation itself.
struct Turn<'a> {
    now: Now,
    rules: Arc<dyn Rules>,
    host: &'a mut dyn Host,
    out: &'a mut Outbox,
}

impl Conversation {
    #[must_use]
    pub fn new(opening: Opening) -> Self {
        Self {
            scribe: record::Scribe::new(&opening),
            opening,
            phase: Phase::Start,
            startup: Startup::default(),
            settings: settings::Settings::default(),
            ledger: ledger::Ledger::default(),
            names: names::Names::default(),
            deeds: hashbrown::HashMap::new(),
            catalog: catalog::Reading::default(),
            guarded: None,
            guard: None,
            head: Head::Fresh,
            status: Status::Idle,
            skipping: false,
            unsynced: false,
            copying: false,
            unsettled: false,
            refreshed: false,
            waiting: None,
            opened: false,
            severed: None,
            flushed: false,
            client_rest: Rest::None,
            server_rest: Rest::None,
            scratch: Scratch::default(),
            gone: false,
            partial: false,
            reached: false,
            opening_ends: None,
        }
    }

    pub fn handle(&mut self, now: Now, input: Input<'_>, host: &mut dyn Host, out: &mut Outbox) -> usize {
        let rules: Arc<dyn Rules> = host.policy();
        self.step(now, input, rules, host, out)
    }

    fn step(
        &mut self,
        now: Now,
        input: Input<'_>,
        rules: Arc<dyn Rules>,
        host: &mut dyn Host,
        out: &mut Outbox,
    ) -> usize {
        let mut turn = Turn { now, rules, host, out };
        let taken = match input {
            Input::Workload(bytes) => self.workload_says(&mut turn, bytes),
            Input::Server(bytes) => self.server_says(&mut turn, bytes),
            Input::WorkloadClosed => self.workload_closed(&mut turn),
            Input::ServerClosed => self.server_closed(&mut turn),
            Input::Recorded(result) => self.recorded(&mut turn, result),
            Input::Answered(answer) => self.answered(&mut turn, &answer),
            Input::LoggedIn(messages) => self.logged_in(&mut turn, &messages),
            Input::Tick if self.phase == Phase::Start => self.opening_is_late(&mut turn),
            Input::Tick => self.tick(&mut turn),
            Input::Cut => self.cut(&mut turn),
            // The next statement is judged by it.
            Input::Policy => 0,
        };
        self.waiting = self.waiting.filter(|wait| self.still_waits(*wait));
        let out = turn.out;
        out.pause_workload = self.waiting.is_some() || out.to_server.as_slice().len() >= QUEUE_BYTES;
        out.pause_server = out.to_workload.as_slice().len() >= QUEUE_BYTES;
        let opening_ends = *self.opening_ends.get_or_insert(now.mono_ns.saturating_add(SNIFF_NS));
        let opening = (self.phase == Phase::Start).then_some(opening_ends);
        out.wake_at = self.head.deadline().or(opening);
        taken
    }

    fn workload_says(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        let taken = match self.phase {
            Phase::Start => self.opening_packet(turn, bytes),
            Phase::Login => {
                self.waiting = Some(Wait::Login);
                0
            }
            Phase::Authentication { asked } => self.authentication_answer(turn, bytes, asked),
            Phase::Open => self.front(turn, bytes),
            Phase::Cancel | Phase::Ended => bytes.len(),
        };
        self.partial = taken < bytes.len();
        taken
    }

    fn server_says(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        self.reached = true;
        match self.phase {
            Phase::Authentication { .. } => self.authentication_request(turn, bytes),
            Phase::Open => self.replies(turn, bytes),
            Phase::Start | Phase::Login | Phase::Cancel | Phase::Ended => bytes.len(),
        }
    }

    fn still_waits(&self, wait: Wait) -> bool {
        match wait {
            Wait::Login => matches!(self.phase, Phase::Login | Phase::Authentication { asked: false }),
            Wait::Ruling => self.head.is_waiting() && self.phase != Phase::Ended,
            Wait::Replies => self.owes_answer() && self.phase != Phase::Ended,
        }
    }

    fn workload_closed(&mut self, turn: &mut Turn<'_>) -> usize {
        self.gone = true;
        self.withdraw(turn);
        match self.phase {
            Phase::Start if self.partial => self.protocol_error(turn, "incomplete start-up packet"),
            Phase::Open if !self.ledger.is_empty() && !self.copying => {}
            Phase::Start
            | Phase::Login
            | Phase::Authentication { .. }
            | Phase::Open
            | Phase::Cancel
            | Phase::Ended => self.end(turn, Close::Finish),
        }
        0
    }

    /// The client began its start-up packet and stopped.
    fn opening_is_late(&mut self, turn: &mut Turn<'_>) -> usize {
        if self.opening_ends.is_some_and(|ends| turn.now.mono_ns >= ends) {
            self.protocol_error(turn, "the start-up packet did not end in time");
        }
        0
    }

    fn server_closed(&mut self, turn: &mut Turn<'_>) -> usize {
        self.withdraw(turn);
        match self.phase {
            Phase::Login => {
                self.fatal(turn, "08006", "weir could not log in to the server");
            }
            Phase::Start | Phase::Authentication { .. } | Phase::Open if !self.reached => {
                self.end(turn, Close::Reset);
            }
            Phase::Start | Phase::Authentication { .. } | Phase::Open | Phase::Cancel | Phase::Ended => {
                self.end(turn, Close::Finish);
            }
        }
        0
    }

    /// The way to one side is gone: what was open gets its rows, and nothing else happens.
    fn cut(&mut self, turn: &mut Turn<'_>) -> usize {
        self.gone = true;
        if self.phase != Phase::Ended {
            self.withdraw(turn);
            self.end(turn, Close::Reset);
        }
        0
    }

    fn recorded(&mut self, turn: &mut Turn<'_>, result: Result<Receipt, alloc::string::String>) -> usize {
        self.receipt_came(turn, result);
        0
    }

    /// Ends the connection: open acts get their closing rows.
    fn end(&mut self, turn: &mut Turn<'_>, close: Close) {
        let mut open: alloc::vec::Vec<u64> = self.deeds.keys().copied().collect();
        open.sort_unstable();
        for number in open {
            self.close_deed(turn, number, "", "the connection ended");
        }
        self.deeds.clear();
        self.phase = Phase::Ended;
        if turn.out.close.is_none() {
            turn.out.close = Some(close);
        }
    }

    /// Ends the session with words for the client and a row. The end does not wait for the row: nothing leaves any more.
    fn fatal(&mut self, turn: &mut Turn<'_>, code: &'static str, message: &str) {
        if self.phase != Phase::Ended {
            self.record_refusal(turn, "", "protocol", message);
        }
        self.scratch.out.clear();
        deny::fatal(&mut self.scratch.out, code, message);
        turn.out.to_workload.own(&self.scratch.out);
        self.withdraw(turn);
        self.end(turn, Close::Finish);
    }

    fn protocol_error(&mut self, turn: &mut Turn<'_>, message: &str) {
        self.fatal(turn, deny::PROTOCOL, message);
    }

    fn client_violation(&mut self, turn: &mut Turn<'_>, violation: Violation) {
        self.protocol_error(turn, &alloc::format!("the client broke the protocol: {violation}"));
    }

    fn server_violation(&mut self, turn: &mut Turn<'_>, violation: Violation) {
        self.protocol_error(turn, &alloc::format!("the server broke the protocol: {violation}"));
    }

    /// Whether acts of this connection need the catalog: worked out once, since nothing it depends on changes but the policy.
    fn is_guarded(&mut self, turn: &Turn<'_>) -> bool {
        if let Some((rules, guarded)) = &self.guarded
            && judge::same(rules, &turn.rules)
        {
            return *guarded;
        }
        let guarded = turn.rules.needs(&self.context(turn.now)).catalog;
        self.guarded = Some((turn.rules.clone(), guarded));
        guarded
    }

    fn context(&self, now: Now) -> Context<'_> {
        Context {
            identity: &self.opening.identity,
            destination: &self.opening.destination,
            protocol: Protocol::Postgres,
            database: &self.startup.database,
            login: &self.startup.user,
            wall_ns: now.wall_ns,
        }
    }
}

#[cfg(test)]
mod tests;
