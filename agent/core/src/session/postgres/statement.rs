//! What a text does, here and now: the grammar's analysis, with the names of this session and its catalog put in.
//! It refuses to stand on shifting ground: where names or settings may just have changed, less is known, never more.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::names::Source;
use super::naming::{self, Naming};
use super::settings::unsettles;
use super::{Conversation, Turn};
use crate::action::{Effect, Effects, Statement};
use crate::sql::{Catalog, Grammar};
use crate::wire::postgres::backend::Status;

/// An analysis, ready to be judged.
#[derive(Debug)]
pub struct Known {
    pub statements: Arc<Vec<Statement>>,
    /// The catalog the names were looked up in.
    pub catalog: Option<Arc<Catalog>>,
    /// What each statement does with a name; empty when none does.
    pub namings: Vec<Option<Naming>>,
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
            return Some(Known {
                statements: Arc::new(Vec::from([statement])),
                catalog,
                namings: Vec::new(),
            });
        };
        let grammar = turn.host.grammar();
        let statements = grammar.analyse(text, source.dialect, catalog.as_ref());
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
        let plain = statements.iter().all(|statement| naming::naming(&statement.text).is_none());
        let single = statements.len() < 2 || !statements.iter().any(unsettles);
        if plain && single {
            return Some(Known { statements, catalog, namings: Vec::new() });
        }
        let (statements, namings) = self.in_session(grammar, source, &statements, catalog.as_ref());
        Some(Known { statements: Arc::new(statements), catalog, namings })
    }

    /// The catalog that names are looked up in, or `Some(None)` where none can be had; `None` while it is being read.
    fn settled_catalog(&mut self, turn: &mut Turn<'_>) -> Option<Option<Arc<Catalog>>> {
        if !turn.rules.needs(&self.context(turn.now)).catalog {
            return Some(None);
        }
        if self.catalog.is_reading() {
            return None;
        }
        if !self.catalog.stale && !self.settings.uncertain {
            return Some(self.catalog.catalog().cloned());
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
        self.scratch.out.clear();
        self.catalog.begin(&mut self.scratch.out);
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
    ) -> (Vec<Statement>, Vec<Option<Naming>>) {
        let mut known = Vec::with_capacity(statements.len());
        let mut namings: Vec<Option<Naming>> = Vec::with_capacity(statements.len());
        let mut shaken = false;
        for statement in statements {
            let catalog = if shaken { None } else { catalog };
            let mut statement = statement.clone();
            if shaken {
                let again = grammar.analyse(&statement.text, source.dialect, None);
                statement = match again.as_slice() {
                    [one] => one.clone(),
                    _ => unknown(&statement.text),
                };
            }
            let naming = naming::naming(&statement.text);
            if let Some(naming) = &naming {
                self.inherit(grammar, source, &mut statement, naming, &namings, catalog);
            }
            shaken |= unsettles(&statement);
            known.push(statement);
            namings.push(naming);
        }
        (known, namings)
    }

    fn inherit(
        &self,
        grammar: &dyn Grammar,
        source: &Source,
        statement: &mut Statement,
        naming: &Naming,
        earlier: &[Option<Naming>],
        catalog: Option<&Arc<Catalog>>,
    ) {
        match naming {
            Naming::Prepare { text, .. } | Naming::Declare { text, .. } => {
                let inner = grammar.analyse(text, source.dialect, catalog);
                adopt(statement, &inner);
                statement.outputs = Some(Vec::new());
            }
            Naming::Execute { name } => {
                let here = earlier.iter().flatten().find_map(|each| match each {
                    Naming::Prepare { name: known, text } if known == name => Some(text),
                    _ => None,
                });
                match (self.names.statement(name), here) {
                    (Some(prepared), None) => {
                        let settings = super::settings::Settings {
                            uncertain: prepared.source.uncertain,
                            ..self.settings
                        };
                        match settings.readable(&prepared.source.text) {
                            Some(text) => {
                                adopt(statement, &grammar.analyse(text, prepared.source.dialect, catalog))
                            }
                            None => obscure(statement),
                        }
                    }
                    (None, Some(text)) => adopt(statement, &grammar.analyse(text, source.dialect, catalog)),
                    // Not known, or one that may or may not have been replaced.
                    (None, None) | (Some(_), Some(_)) => obscure(statement),
                }
            }
            Naming::Fetch { name } => {
                let here = earlier.iter().flatten().find_map(|each| match each {
                    Naming::Declare { name: known, text, .. } if known == name => Some(text),
                    _ => None,
                });
                match (self.names.portal(name), here) {
                    (Some(portal), None) => adopt(statement, &portal.statements),
                    (None, Some(text)) => adopt(statement, &grammar.analyse(text, source.dialect, catalog)),
                    (None, None) | (Some(_), Some(_)) => obscure(statement),
                }
            }
            Naming::Deallocate { .. } | Naming::CloseCursor { .. } => {}
            Naming::Unclear => obscure(statement),
        }
    }
}

/// The statement does what the inner one does, besides what it does itself.
fn adopt(statement: &mut Statement, inner: &[Statement]) {
    let [inner] = inner else { return obscure(statement) };
    let own: Vec<Effect> = statement.effects.iter().filter(|effect| *effect != Effect::Unknown).collect();
    statement.effects = Effects::of(&own).union(inner.effects);
    statement.relations.clone_from(&inner.relations);
    statement.objects.clone_from(&inner.objects);
    statement.functions.extend(inner.functions.iter().cloned());
    statement.without_where |= inner.without_where;
    statement.opaque = inner.opaque;
    statement.outputs.clone_from(&inner.outputs);
}

fn obscure(statement: &mut Statement) {
    statement.effects = statement.effects.with(Effect::Unknown);
    statement.opaque = true;
    statement.outputs = None;
}

pub fn unknown(text: &str) -> Statement {
    Statement {
        effects: Effects::of(&[Effect::Unknown]),
        opaque: true,
        text: text.into(),
        ..Statement::default()
    }
}
