//! What a text does, here and now: the grammar's analysis, with the names of this session and its catalog put in.
//! It refuses to stand on shifting ground: where names or settings may just have changed, less is known, never more.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::names::Source;
use super::settings::unsettles;
use super::{Conversation, Turn};
use crate::action::{Effect, Effects, Named, Statement};
use crate::sql::{Catalog, Grammar};
use crate::wire::postgres::backend::Status;

/// An analysis, ready to be judged.
#[derive(Debug)]
pub struct Known {
    pub statements: Arc<Vec<Statement>>,
    /// The catalog the names were looked up in.
    pub catalog: Option<Arc<Catalog>>,
}

impl Conversation {
    pub(super) fn source(&self, text: &[u8]) -> Source {
        Source { text: text.into(), dialect: self.settings.dialect, uncertain: self.settings.uncertain }
    }

    /// Analyses a text; `None` when something must be read first.
    pub(super) fn analyse(&mut self, turn: &mut Turn<'_>, source: &Source) -> Option<Known> {
        let catalog = self.settled_catalog(turn)?;
        let settings = super::settings::Settings { uncertain: source.uncertain, ..self.settings };
        let Some(text) = settings.readable(&source.text) else {
            let statement = unknown(&String::from_utf8_lossy(&source.text));
            return Some(Known { statements: Arc::new(Vec::from([statement])), catalog });
        };
        let grammar = turn.host.grammar();
        let statements = grammar.analyse(text, source.dialect, catalog.as_ref());
        if let Some(known) = &catalog
            && self.catalog.lacks_views(known, &statements)
            && self.may_read_catalog()
        {
            // Views of the system are read only where they are used: they take ten times as long as all the rest.
            if self.ledger.is_empty() {
                self.catalog.deepen();
                self.read_catalog(turn);
            }
            return None;
        }
        let unresolved =
            statements.iter().flat_map(|statement| &statement.relations).any(|relation| relation.oid == 0);
        if catalog.is_some() && unresolved && !self.refreshed && self.may_read_catalog() {
            // A name that the catalog does not hold may be newer than the catalog.
            if self.ledger.is_empty() {
                self.refreshed = true;
                self.read_catalog(turn);
            }
            return None;
        }
        let plain = statements.iter().all(|statement| statement.named.is_none());
        let single = statements.len() < 2 || !statements.iter().any(unsettles);
        if plain && single {
            return Some(Known { statements, catalog });
        }
        let statements = Arc::new(self.in_session(grammar, source, &statements, catalog.as_ref()));
        Some(Known { statements, catalog })
    }

    /// The catalog that names are looked up in, or `Some(None)` where none can be had; `None` while it is being read.
    fn settled_catalog(&mut self, turn: &mut Turn<'_>) -> Option<Option<Arc<Catalog>>> {
        if !self.is_guarded(turn) {
            return Some(None);
        }
        if self.catalog.is_reading() {
            return None;
        }
        if !self.catalog.stale && !self.settings.uncertain {
            // Never within a transaction: an error of weir's own question would end it.
            let again = self.status == Status::Idle
                && self.may_read_catalog()
                && self.catalog.is_old(turn.now.mono_ns);
            if !again {
                return Some(self.catalog.catalog().cloned());
            }
        }
        if !self.may_read_catalog() {
            return Some(None);
        }
        if self.ledger.is_empty() {
            self.read_catalog(turn);
        }
        None
    }

    /// Own questions wait until the server owes nothing, and never end a pipeline of the client's.
    fn may_read_catalog(&self) -> bool {
        self.status != Status::Failed && !self.unsynced && self.ledger.drains()
    }

    pub(super) fn read_catalog(&mut self, turn: &mut Turn<'_>) {
        self.ask_catalog(turn, false);
    }

    /// weir's own question: for the digest first, for the rows where the digest is new.
    pub(super) fn ask_catalog(&mut self, turn: &mut Turn<'_>, rows: bool) {
        self.scratch.out.clear();
        self.catalog.begin(&mut self.scratch.out, rows, turn.now.mono_ns);
        turn.out.to_server.own(&self.scratch.out);
        self.ledger.push(super::ledger::Expect::Catalog);
    }

    /// Puts in what EXECUTE and FETCH run, and forgets what an earlier statement of the same text may have changed.
    fn in_session(
        &self,
        grammar: &dyn Grammar,
        source: &Source,
        statements: &[Statement],
        catalog: Option<&Arc<Catalog>>,
    ) -> Vec<Statement> {
        let mut known: Vec<Statement> = Vec::with_capacity(statements.len());
        let mut shaken = false;
        for statement in statements {
            let catalog = if shaken { None } else { catalog };
            let mut statement = if shaken {
                one(&grammar.analyse(&statement.text, source.dialect, None), &statement.text)
            } else {
                statement.clone()
            };
            self.inherit(grammar, &mut statement, &known, catalog);
            shaken |= unsettles(&statement);
            known.push(statement);
        }
        known
    }

    /// EXECUTE and FETCH do what their name stands for: in this session, or earlier in this text, but not both, since
    /// then it cannot be told which.
    fn inherit(
        &self,
        grammar: &dyn Grammar,
        statement: &mut Statement,
        earlier: &[Statement],
        catalog: Option<&Arc<Catalog>>,
    ) {
        let (here, there) = match &statement.named {
            Some(Named::Execute(name)) => {
                let here = earlier.iter().find(|each| each.named == Some(Named::Prepare(name.clone())));
                let there = self.names.statement(name.as_bytes()).map(|prepared| &prepared.source);
                (here.cloned(), there.map(|source| self.again(grammar, source, catalog)))
            }
            Some(Named::Fetch(name)) => {
                let here = earlier.iter().find(|each| each.named == Some(Named::Declare(name.clone())));
                let there = self.names.portal(name.as_bytes());
                (here.cloned(), there.map(|portal| one(&portal.statements, "")))
            }
            Some(Named::Prepare(_) | Named::Declare(_) | Named::Deallocate(_) | Named::Close(_)) | None => {
                return;
            }
        };
        match (here, there) {
            (Some(inner), None) | (None, Some(inner)) => adopt(statement, &inner),
            (None, None) | (Some(_), Some(_)) => {
                statement.effects = statement.effects.with(Effect::Unknown);
                statement.opaque = true;
                statement.outputs = None;
            }
        }
    }

    /// What a prepared text does now: the server looks its names up again when they may have changed.
    fn again(&self, grammar: &dyn Grammar, source: &Source, catalog: Option<&Arc<Catalog>>) -> Statement {
        let settings = super::settings::Settings { uncertain: source.uncertain, ..self.settings };
        match settings.readable(&source.text) {
            Some(text) => one(&grammar.analyse(text, source.dialect, catalog), text),
            None => unknown(""),
        }
    }
}

/// The statement does what the inner one does, besides what it does itself.
fn adopt(statement: &mut Statement, inner: &Statement) {
    let own: Vec<Effect> = statement.effects.iter().filter(|effect| *effect != Effect::Unknown).collect();
    statement.effects = Effects::of(&own).union(inner.effects);
    statement.relations.clone_from(&inner.relations);
    statement.objects.clone_from(&inner.objects);
    statement.functions.extend(inner.functions.iter().cloned());
    statement.stores.clone_from(&inner.stores);
    statement.probes.clone_from(&inner.probes);
    statement.without_where |= inner.without_where;
    statement.opaque = inner.opaque;
    statement.outputs.clone_from(&inner.outputs);
}

/// The only statement of an analysis; anything else is not understood.
fn one(statements: &[Statement], text: &str) -> Statement {
    match statements {
        [one] => one.clone(),
        _ => unknown(text),
    }
}

pub fn unknown(text: &str) -> Statement {
    Statement {
        effects: Effects::of(&[Effect::Unknown]),
        opaque: true,
        text: text.into(),
        ..Statement::default()
    }
}
