//! What the names of a session mean: prepared statements, portals and cursors, as the server knows them.
//! It refuses to grow without bound, and a name it does not know means nothing.

use alloc::sync::Arc;
use alloc::vec::Vec;

use hashbrown::HashMap;

use super::ledger::Rows;
use crate::action::Statement;
use crate::limits::PG_STATEMENTS;
use crate::sql::Dialect;
use crate::wire::postgres::backend::Column;

pub type Name = Vec<u8>;

/// The text of a statement and the settings under which the server read it.
#[derive(Debug, Clone)]
pub struct Source {
    pub text: Arc<[u8]>,
    pub dialect: Dialect,
    /// The settings may have changed in this very pipeline: what depends on them cannot be told.
    pub uncertain: bool,
}

#[derive(Debug, Clone)]
pub struct Prepared {
    /// Tells two statements of one name apart.
    pub serial: u64,
    pub source: Source,
    /// The act opened at Parse that no Bind has taken over yet.
    pub fresh: Option<u64>,
    pub described: Described,
}

/// What is known of a statement's result columns.
#[derive(Debug, Clone)]
pub enum Described {
    No,
    /// weir asked and waits for the answer.
    Asked,
    Nothing,
    Columns(Arc<Vec<Column>>),
}

#[derive(Debug, Clone)]
pub struct Portal {
    /// The act that was opened at Bind; a cursor of SQL has none.
    pub deed: Option<u64>,
    pub source: Source,
    pub statements: Arc<Vec<Statement>>,
    pub rows: Rows,
    /// Lives on after its transaction (`WITH HOLD`).
    pub hold: bool,
}

#[derive(Debug, Default)]
pub struct Names {
    statements: HashMap<Name, Prepared>,
    portals: HashMap<Name, Portal>,
    serial: u64,
}

impl Names {
    pub fn serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// No further name can be remembered.
    pub fn is_full(&self) -> bool {
        self.statements.len().max(self.portals.len()) >= PG_STATEMENTS
    }

    pub fn statement(&self, name: &[u8]) -> Option<&Prepared> {
        self.statements.get(name)
    }

    pub fn statement_mut(&mut self, name: &[u8]) -> Option<&mut Prepared> {
        self.statements.get_mut(name)
    }

    /// Returns what the name meant before.
    pub fn put_statement(&mut self, name: &[u8], prepared: Option<Prepared>) -> Option<Prepared> {
        match prepared {
            Some(prepared) => self.statements.insert(name.to_vec(), prepared),
            None => self.statements.remove(name),
        }
    }

    pub fn portal(&self, name: &[u8]) -> Option<&Portal> {
        self.portals.get(name)
    }

    pub fn portal_mut(&mut self, name: &[u8]) -> Option<&mut Portal> {
        self.portals.get_mut(name)
    }

    pub fn put_portal(&mut self, name: &[u8], portal: Option<Portal>) -> Option<Portal> {
        match portal {
            Some(portal) => self.portals.insert(name.to_vec(), portal),
            None => self.portals.remove(name),
        }
    }

    /// Portals end with their transaction. Returns the acts that were still open.
    pub fn end_transaction(&mut self) -> Vec<u64> {
        if self.portals.is_empty() {
            return Vec::new();
        }
        self.portals.extract_if(|_, portal| !portal.hold).filter_map(|(_, portal)| portal.deed).collect()
    }

    /// DEALLOCATE ALL, DISCARD ALL. Returns the acts that were still open.
    pub fn forget_statements(&mut self) -> Vec<u64> {
        self.statements.drain().filter_map(|(_, prepared)| prepared.fresh).collect()
    }
}
