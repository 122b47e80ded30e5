//! One act: decided, recorded, and only then carried out or poisoned in place.
//! It refuses to carry out anything whose verdict row has no receipt.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::deny::{self, Pill};
use super::describe::View;
use super::front::Step;
use super::hold::Held;
use super::judge::{self, Ruled, Ruling};
use super::ledger::{Expect, Results, Rows};
use super::obstacle::request_obstacle;
use super::record::{Deed, Entry};
use super::settings::unsettles;
use super::statement::Known;
use super::{Conversation, Turn};
use crate::action::Statement;
use crate::approval::Question;
use crate::audit::{Durability, Kind, Receipt};
use crate::policy::MaskPlan;
use crate::session::{Act, Appended};
use crate::wire::postgres::frontend::Front;

/// The first message of the workload that is not consumed yet.
#[derive(Debug)]
pub enum Head {
    /// Nothing is decided about it.
    Fresh,
    /// Its row is on the way to the disk.
    Recording(Box<Decided>),
    /// A human is asked.
    Held(Box<Held>),
    /// Decided and recorded: carried out as soon as its bytes come by again.
    Settled(Box<Decided>),
}

/// A message with its ruling.
#[derive(Debug)]
pub struct Decided {
    pub number: u64,
    pub ruling: Ruling,
    pub receipt: Option<Receipt>,
    pub statements: Arc<Vec<Statement>>,
    pub rows: Rows,
    pub masks: bool,
    /// Only prepared now: an approval is asked for when it runs.
    pub prepares: bool,
    /// Of the exact bytes and, for prepared statements, the text; all zero when nobody is asked.
    pub digest: [u8; 32],
    pub bytes_up: u64,
}

impl Head {
    pub fn is_waiting(&self) -> bool {
        match self {
            Head::Recording(_) | Head::Held(_) => true,
            Head::Fresh | Head::Settled(_) => false,
        }
    }

    pub fn deadline(&self) -> Option<u64> {
        match self {
            Head::Held(held) => Some(held.deadline),
            Head::Fresh | Head::Recording(_) | Head::Settled(_) => None,
        }
    }
}

impl Conversation {
    /// Rules on the statements of one message. `None` when there are none.
    pub(super) fn rule(&mut self, turn: &Turn<'_>, known: Known, message: &[u8]) -> Option<Decided> {
        let mut ruling = judge::judge(turn.rules.as_ref(), &self.context(turn.now), &known.statements)?;
        let masks = !ruling.plan.response.is_empty();
        if masks {
            self.guard = Some(super::scrub::standing(&turn.rules, &ruling.plan));
        }
        if let Some(obstacle) = self.obstacle(turn, &known, &ruling.plan) {
            ruling.refuse(obstacle.rule, Pill::denied(&obstacle.message));
        }
        if let Some(obstacle) = request_obstacle(turn, &known.statements, &ruling.plan, message) {
            ruling.refuse(obstacle.rule, Pill::denied(&obstacle.message));
        }
        Some(Decided {
            number: self.scribe.number(),
            ruling,
            receipt: None,
            statements: known.statements,
            rows: Rows::Plain,
            masks,
            prepares: false,
            digest: [0; 32],
            bytes_up: message.len() as u64,
        })
    }

    /// Looks at results with this plan, under the catalog at hand.
    pub(super) fn with_view<T>(
        &mut self,
        turn: &Turn<'_>,
        plan: &Arc<MaskPlan>,
        catalog: bool,
        look: impl FnOnce(&View<'_>) -> T,
    ) -> T {
        let guarded = self.is_guarded(turn);
        let protected = self.catalog.protected(&turn.rules);
        look(&View {
            rules: &turn.rules,
            plan,
            catalog: if catalog { self.catalog.catalog() } else { None },
            protected: &protected,
            grammar: turn.host.grammar(),
            guarded,
            texts: self.catalog.texts(),
        })
    }

    /// Records the verdict; carries it out when the row is written.
    pub(super) fn witness(
        &mut self,
        turn: &mut Turn<'_>,
        mut decided: Decided,
        front: &Front<'_>,
        message: &[u8],
    ) -> Step {
        let reason = match &decided.ruling.verdict {
            Ruled::Deny(pill) => pill.message(),
            Ruled::Ask(_) if decided.prepares => "prepared only; asked for when it runs",
            Ruled::Ask(approval) => &approval.message,
            Ruled::Allow(_) => decided.ruling.would.as_ref().map_or("", |would| &would.rule),
        };
        let asked = match &decided.ruling.verdict {
            Ruled::Ask(_) => Question::id_of(&self.scribe.request(decided.number)),
            Ruled::Allow(_) | Ruled::Deny(_) => String::new(),
        };
        let entry = Entry {
            number: decided.number,
            // The verdict of a held act is the answer; the question has a row of its own.
            kind: if asked.is_empty() { Kind::Verdict } else { Kind::Approval },
            decision: decided.ruling.decision(decided.masks),
            target: &decided.ruling.target,
            rule: &decided.ruling.rule,
            reason,
            statements: &decided.statements,
            bytes_up: decided.bytes_up,
            durability: decided.ruling.durability,
            approval: &asked,
            approver: "",
        };
        let record = self.scribe.entry(turn.now, &turn.rules, &entry);
        match turn.host.append(record) {
            Appended::Done(receipt) => decided.receipt = Some(receipt),
            Appended::Waiting => {
                self.head = Head::Recording(Box::new(decided));
                return Step::Wait;
            }
            Appended::Refused(_) => decided.refuse_unrecorded(),
        }
        if decided.asks() {
            self.ask(turn, decided);
            return Step::Wait;
        }
        self.carry_out(turn, front, message, decided);
        Step::Done
    }

    /// The row that was on its way to the disk.
    pub(super) fn receipt_came(
        &mut self,
        turn: &mut Turn<'_>,
        result: Result<Receipt, alloc::string::String>,
    ) {
        match core::mem::replace(&mut self.head, Head::Fresh) {
            Head::Recording(mut decided) => {
                match result {
                    Ok(receipt) => decided.receipt = Some(receipt),
                    Err(_) => decided.refuse_unrecorded(),
                }
                if decided.asks() && !self.skipping && !self.gone {
                    self.ask(turn, *decided);
                } else {
                    self.head = Head::Settled(decided);
                }
            }
            other => self.head = other,
        }
    }

    /// Sends the message on, or its pill.
    pub(super) fn carry_out(
        &mut self,
        turn: &mut Turn<'_>,
        front: &Front<'_>,
        message: &[u8],
        decided: Decided,
    ) {
        let Decided { number, ruling, receipt, statements, rows, masks, prepares, .. } = decided;
        let Ruling { verdict, target, rule, plan, durability: _, would: _ } = ruling;
        let permit = match verdict {
            Ruled::Allow(permit) => permit,
            Ruled::Ask(_) if prepares => {
                if let (Some(receipt), Front::Parse { name, text }) = (&receipt, front) {
                    turn.out.to_server.prepare(receipt, message);
                    self.parsed(turn, name, text, None, masks);
                }
                return;
            }
            Ruled::Ask(_) => {
                return self.poison(turn, front, &rule, number, Pill::denied("nobody was asked"));
            }
            Ruled::Deny(pill) => return self.poison(turn, front, &rule, number, pill),
        };
        let Some(receipt) = receipt else {
            let pill = Pill::new(deny::UNRECORDED, UNWRITTEN);
            return self.poison(turn, front, &rule, number, pill);
        };
        self.settings.uncertain |= statements.iter().any(unsettles);
        let act = Act::open(permit, receipt);
        turn.out.to_server.clear(&act, message);
        let deed = Deed {
            act: Some(act),
            rules: turn.rules.clone(),
            statements,

            plan,
            masks,
            rule,
            target,
            started: turn.now.mono_ns,
            rows: 0,
            bytes_up: message.len() as u64,
            bytes_down: 0,
            masked: super::mask::Counts::new(),
            columns: Vec::new(),
            closed: false,
        };
        self.deeds.insert(number, deed);
        let results = Results { deed: Some(number), rows, ..Results::default() };
        match front {
            Front::Query { .. } => self.queried(turn, results),
            Front::Parse { name, text } => self.parsed(turn, name, text, Some(number), masks),
            Front::Bind(bind) => self.bound(bind, Some(number), results.rows),
            Front::Execute { portal } => {
                if let Some(portal) = self.names.portal_mut(portal) {
                    portal.deed = Some(number);
                }
                self.unsynced = true;
                self.ledger.push(Expect::Execute(results));
            }
            Front::FunctionCall { .. } => self.ledger.push(Expect::Call(results)),
            Front::Describe { .. }
            | Front::Close { .. }
            | Front::CopyDone
            | Front::CopyFail
            | Front::Flush
            | Front::Sync
            | Front::Terminate => {}
        }
    }

    /// A query destroys the unnamed statement and portal.
    pub(super) fn queried(&mut self, turn: &mut Turn<'_>, results: Results) {
        let dropped = self.names.put_statement(b"", None).and_then(|prepared| prepared.fresh);
        let portal = self.names.put_portal(b"", None).and_then(|portal| portal.deed);
        for number in dropped.into_iter().chain(portal) {
            self.close_deed(turn, number, "", "replaced before it was finished");
        }
        self.unsynced = false;
        self.ledger.push(Expect::Query(results));
    }

    /// Replaces a message by one that the server will reject, and remembers what the client is to be told.
    pub(super) fn poison(
        &mut self,
        turn: &mut Turn<'_>,
        front: &Front<'_>,
        rule: &str,
        number: u64,
        pill: Pill,
    ) {
        let request = self.scribe.request(number);
        let pill = Some(pill.signed(rule, &request));
        let out = &mut self.scratch.out;
        out.clear();
        let extended = !matches!(front, Front::Query { .. } | Front::FunctionCall { .. });
        let expect = match front {
            Front::Query { .. } => {
                deny::query(out, rule, &request);
                Expect::Query(Results { pill, ..Results::default() })
            }
            Front::Parse { name, .. } => {
                deny::parse(out, name.is_empty(), rule, &request);
                Expect::Parse {
                    name: name.to_vec(),
                    before: self.names.put_statement(name, None),
                    deed: None,
                    pill,
                }
            }
            Front::Bind(bind) => {
                deny::bind(out, rule, &request);
                let name = bind.portal.to_vec();
                Expect::Bind { before: self.names.put_portal(&name, None), name, deed: None, pill }
            }
            Front::Execute { .. } => {
                deny::execute(out, rule, &request);
                Expect::Execute(Results { pill, ..Results::default() })
            }
            Front::Describe { what, name } => {
                deny::describe(out, *what, rule, &request);
                Expect::Describe { name: name.to_vec(), serial: 0, own: false, pill }
            }
            Front::FunctionCall { .. } => {
                deny::function_call(out);
                Expect::Call(Results { pill, ..Results::default() })
            }
            Front::Close { .. }
            | Front::CopyDone
            | Front::CopyFail
            | Front::Flush
            | Front::Sync
            | Front::Terminate => return,
        };
        turn.out.to_server.own(out);
        self.unsynced = extended;
        self.ledger.push(expect);
    }

    /// Writes the closing row of an act, once.
    pub(super) fn close_deed(&mut self, turn: &mut Turn<'_>, number: u64, status: &str, reason: &str) {
        let Some(deed) = self.deeds.get_mut(&number) else { return };
        if deed.closed {
            return;
        }
        deed.closed = true;
        let record = self.scribe.outcome(turn.now, number, deed, status, reason);
        // The act is over: a ledger that fails now refuses the next one.
        let _ = turn.host.append(record);
    }

    /// The act is over and no name leads to it any more.
    pub(super) fn drop_deed(&mut self, turn: &mut Turn<'_>, number: u64, status: &str, reason: &str) {
        self.close_deed(turn, number, status, reason);
        self.deeds.remove(&number);
    }
}

impl Decided {
    pub fn asks(&self) -> bool {
        matches!(self.ruling.verdict, Ruled::Ask(_)) && !self.prepares
    }

    pub fn refuse_unrecorded(&mut self) {
        self.ruling.refuse(Arc::from("ledger"), Pill::new(deny::UNRECORDED, UNWRITTEN));
        self.ruling.durability = Durability::Fast;
    }
}

const UNWRITTEN: &str = "weir cannot write its audit record, so nothing may pass";
