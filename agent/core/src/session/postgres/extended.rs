//! The extended protocol: Parse judges a text, Bind opens the act that its Execute runs under, names lead from one to the other.
//! It refuses names it does not know, and a run whose masked columns the server has not described yet waits for that.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;

use super::deny::{self, Pill};
use super::describe::Obstacle;
use super::front::Step;
use super::ledger::{Expect, Results, Rows};
use super::names::{Described, Portal, Prepared};
use super::statement::Known;
use super::{Conversation, Turn};
use crate::action::Statement;
use crate::policy::MaskPlan;
use crate::wire::postgres::frontend::{self, Bind, Front, Target};

impl Conversation {
    pub(super) fn parse(
        &mut self,
        turn: &mut Turn<'_>,
        front: &Front<'_>,
        name: &[u8],
        text: &[u8],
        message: &[u8],
    ) -> Step {
        let source = self.source(text);
        let Some(known) = self.analyse(turn, &source) else { return Step::Wait };
        if self.names.is_full() && self.names.statement(name).is_none() {
            let pill = Pill::new(deny::LIMIT, "too many prepared statements on one connection");
            return self.refuse(turn, front, pill);
        }
        self.decided(turn, known, front, message, name)
    }

    /// A Parse was sent on.
    pub(super) fn parsed(
        &mut self,
        turn: &mut Turn<'_>,
        name: &[u8],
        text: &[u8],
        deed: Option<u64>,
        masks: bool,
    ) {
        let serial = self.names.serial();
        let described = if masks { Described::Asked } else { Described::No };
        let prepared = Prepared { serial, source: self.source(text), fresh: deed, described };
        let before = self.names.put_statement(name, Some(prepared));
        self.ledger.push(Expect::Parse { name: name.to_vec(), before, deed, pill: None });
        self.unsynced = true;
        if masks {
            self.describe_own(turn, name, serial);
        }
    }

    fn describe_own(&mut self, turn: &mut Turn<'_>, name: &[u8], serial: u64) {
        self.scratch.out.clear();
        frontend::describe(&mut self.scratch.out, Target::Statement, name);
        turn.out.to_server.own(&self.scratch.out);
        self.unsynced = true;
        self.ledger.push(Expect::Describe { name: name.to_vec(), serial, own: true, pill: None });
    }

    pub(super) fn bind(
        &mut self,
        turn: &mut Turn<'_>,
        front: &Front<'_>,
        bind: &Bind<'_>,
        message: &[u8],
    ) -> Step {
        let Some(prepared) = self.names.statement(bind.statement).cloned() else {
            let pill = absent(Target::Statement, bind.statement);
            return self.refuse(turn, front, pill);
        };
        if self.names.is_full() && self.names.portal(bind.portal).is_none() {
            return self.refuse(turn, front, Pill::new(deny::LIMIT, "too many portals on one connection"));
        }
        let Some(known) = self.analyse(turn, &prepared.source) else { return Step::Wait };
        let (catalog, statements) = (known.catalog.is_some(), known.statements.clone());
        // The text was judged at Parse; its first run goes on under that verdict while nothing has changed.
        let fresh = prepared.fresh.and_then(|number| {
            let deed = self.deeds.get(&number)?;
            let same = super::judge::same(&deed.rules, &turn.rules) && deed.statements == statements;
            same.then(|| (number, deed.plan.clone()))
        });
        if let Some((number, plan)) = fresh {
            match self.rows_of(turn, &prepared, bind, &plan, &statements, catalog) {
                Ok(Some(rows)) => return self.go_on(turn, bind, number, message, rows),
                Ok(None) => return Step::Wait,
                Err(_) => {}
            }
        }
        let Some(mut decided) = self.rule(turn, known, message) else { return self.bind_nothing(turn, bind) };
        let plan = decided.ruling.plan.clone();
        match self.rows_of(turn, &prepared, bind, &plan, &statements, catalog) {
            Ok(Some(rows)) => decided.rows = rows,
            Ok(None) => return Step::Wait,
            Err(obstacle) => decided.ruling.refuse(obstacle.rule, Pill::denied(&obstacle.message)),
        }
        if bind.portal.first() == Some(&deny::RESERVED) {
            decided.ruling.refuse("default".into(), Pill::denied(RESERVED_NAME));
        }
        self.finish(turn, decided, front, message)
    }

    /// The layout of the rows, or `None` while the server has not described them.
    fn rows_of(
        &mut self,
        turn: &mut Turn<'_>,
        prepared: &Prepared,
        bind: &Bind<'_>,
        plan: &Arc<MaskPlan>,
        statements: &[Statement],
        catalog: bool,
    ) -> Result<Option<Rows>, Obstacle> {
        if plan.response.is_empty() {
            return Ok(Some(Rows::Plain));
        }
        let columns = match &prepared.described {
            // A row that comes all the same (EXECUTE of a name that means something else by now) does not fit.
            Described::Nothing => alloc::sync::Arc::default(),
            Described::Columns(columns) => columns.clone(),
            Described::Asked => {
                if !self.flushed {
                    self.flushed = true;
                    self.flush_own(turn);
                }
                return Ok(None);
            }
            Described::No => {
                if let Some(prepared) = self.names.statement_mut(bind.statement) {
                    prepared.described = Described::Asked;
                }
                self.describe_own(turn, bind.statement, prepared.serial);
                self.flushed = true;
                self.flush_own(turn);
                return Ok(None);
            }
        };
        self.with_view(turn, plan, catalog, |view| {
            view.layout(statements.first(), &columns, |index| bind.format(index)).map(Some)
        })
    }

    fn flush_own(&mut self, turn: &mut Turn<'_>) {
        self.scratch.out.clear();
        frontend::flush(&mut self.scratch.out);
        turn.out.to_server.own(&self.scratch.out);
    }

    /// The first Bind after its Parse belongs to the same act.
    fn go_on(
        &mut self,
        turn: &mut Turn<'_>,
        bind: &Bind<'_>,
        number: u64,
        message: &[u8],
        rows: Rows,
    ) -> Step {
        if let Some(prepared) = self.names.statement_mut(bind.statement) {
            prepared.fresh = None;
        }
        if let Some(deed) = self.deeds.get_mut(&number)
            && let Some(act) = &deed.act
        {
            turn.out.to_server.clear(act, message);
            deed.bytes_up += message.len() as u64;
            deed.started = turn.now.mono_ns;
        }
        self.bound(bind, Some(number), rows);
        Step::Done
    }

    fn bind_nothing(&mut self, turn: &mut Turn<'_>, bind: &Bind<'_>) -> Step {
        self.scratch.out.clear();
        frontend::bind_message(&mut self.scratch.out, bind.portal, bind.statement);
        turn.out.to_server.own(&self.scratch.out);
        self.bound(bind, None, Rows::Plain);
        Step::Done
    }

    /// A Bind was sent on.
    pub(super) fn bound(&mut self, bind: &Bind<'_>, deed: Option<u64>, rows: Rows) {
        let prepared = self.names.statement(bind.statement);
        let source = prepared.map_or_else(|| self.source(b""), |prepared| prepared.source.clone());
        let open = deed.and_then(|number| self.deeds.get(&number));
        let statements = open.map(|deed| deed.statements.clone()).unwrap_or_default();
        let portal = Portal { deed, source, statements, rows, hold: false };
        let before = self.names.put_portal(bind.portal, Some(portal));
        self.unsynced = true;
        self.ledger.push(Expect::Bind { name: bind.portal.to_vec(), before, deed, pill: None });
    }

    pub(super) fn execute(
        &mut self,
        turn: &mut Turn<'_>,
        front: &Front<'_>,
        name: &[u8],
        message: &[u8],
    ) -> Step {
        let Some(portal) = self.names.portal(name).cloned() else {
            return self.refuse(turn, front, absent(Target::Portal, name));
        };
        if portal.statements.is_empty() {
            // The empty statement.
            turn.out.to_server.framing(message);
            self.unsynced = true;
            self.ledger.push(Expect::Execute(Results::default()));
            return Step::Done;
        }
        let open = portal.deed.and_then(|number| self.deeds.get_mut(&number).map(|deed| (number, deed)));
        if let Some((number, deed)) = open
            && !deed.closed
            && super::judge::same(&deed.rules, &turn.rules)
            && let Some(act) = &deed.act
        {
            turn.out.to_server.clear(act, message);
            deed.bytes_up += message.len() as u64;
            self.unsynced = true;
            let results = Results { deed: Some(number), rows: portal.rows, ..Results::default() };
            self.ledger.push(Expect::Execute(results));
            return Step::Done;
        }
        // A cursor of SQL, a portal that has run before, or a policy that has changed since the Bind.
        let catalog = self.catalog.catalog().cloned();
        let known = Known { statements: portal.statements, catalog };
        let Some(mut decided) = self.rule(turn, known, message) else { return self.nothing(turn, front) };
        decided.rows = portal.rows;
        if decided.masks && matches!(decided.rows, Rows::Plain) && portal.deed.is_none() {
            let pill = Pill::denied("a cursor with masked columns is read with FETCH");
            decided.ruling.refuse(decided.ruling.rule.clone(), pill);
        }
        self.finish(turn, decided, front, message)
    }

    pub(super) fn describe(
        &mut self,
        turn: &mut Turn<'_>,
        front: &Front<'_>,
        what: Target,
        name: &[u8],
        message: &[u8],
    ) -> Step {
        let serial = match what {
            Target::Statement => self.names.statement(name).map(|prepared| prepared.serial),
            Target::Portal => self.names.portal(name).map(|_| 0),
        };
        let Some(serial) = serial else {
            let pill = absent(what, name);
            return self.refuse(turn, front, pill);
        };
        turn.out.to_server.framing(message);
        self.unsynced = true;
        self.ledger.push(Expect::Describe { name: name.to_vec(), serial, own: false, pill: None });
        Step::Done
    }

    pub(super) fn close_name(
        &mut self,
        turn: &mut Turn<'_>,
        what: Target,
        name: &[u8],
        message: &[u8],
    ) -> Step {
        let (statement, portal) = match what {
            Target::Statement => (self.names.put_statement(name, None), None),
            Target::Portal => (None, self.names.put_portal(name, None)),
        };
        if statement.is_some() || portal.is_some() {
            turn.out.to_server.framing(message);
        } else {
            // Closing what does not exist succeeds; the name, which nobody judged, stays here.
            self.scratch.out.clear();
            frontend::close(&mut self.scratch.out, what, &[deny::RESERVED]);
            turn.out.to_server.own(&self.scratch.out);
        }
        self.unsynced = true;
        self.ledger.push(Expect::Close { name: name.to_vec(), statement, portal });
        Step::Done
    }
}

pub const RESERVED_NAME: &str = "names that begin with a control character are refused";

/// What the server would say about a name it does not have.
fn absent(what: Target, name: &[u8]) -> Pill {
    let name = String::from_utf8_lossy(name);
    match what {
        Target::Statement => {
            Pill::new(deny::NO_STATEMENT, &format!("prepared statement \"{name}\" does not exist"))
        }
        Target::Portal => Pill::new(deny::NO_PORTAL, &format!("portal \"{name}\" does not exist")),
    }
}
