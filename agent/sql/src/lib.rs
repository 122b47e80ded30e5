//! What a SQL text does and where its columns come from, told by PostgreSQL's own grammar (libpg_query, version 18).
//! It refuses to guess: a text it cannot parse, bound or resolve is `unknown` or `opaque`, never harmless.
#![forbid(unsafe_code)]

mod builtins;
mod cache;
mod ddl;
mod dml;
mod expression;
mod from;
mod names;
mod object;
mod parse;
mod plain;
mod query;
mod relation;
mod resolver;
mod scope;
mod session;
mod statement;
mod value;
mod view;

use std::sync::Arc;

use weir_core::action::{Output, Statement};
use weir_core::sql::{Catalog, Dialect, Grammar};

/// PostgreSQL's grammar. Cheap to share, cheapest when each worker thread has its own: the caches are behind a lock.
pub struct PgGrammar {
    caches: cache::Caches,
    stack: parse::Stack,
}

impl PgGrammar {
    /// For callers with a stack of 2 MiB or more: all but short texts are analysed on a thread of their own.
    #[must_use]
    pub fn new() -> Self {
        Self { caches: cache::Caches::default(), stack: parse::Stack::Unknown }
    }

    /// For worker threads that were started with [`STACK_BYTES`] of stack: ordinary texts stay on the calling thread.
    #[must_use]
    pub fn on_large_stack() -> Self {
        Self { caches: cache::Caches::default(), stack: parse::Stack::Large }
    }
}

impl Default for PgGrammar {
    fn default() -> Self {
        Self::new()
    }
}

/// Stack that holds the tree of any ordinary statement, decoded, walked and dropped.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

impl Grammar for PgGrammar {
    fn analyse(&self, sql: &str, dialect: Dialect, catalog: Option<&Arc<Catalog>>) -> Arc<Vec<Statement>> {
        let key = cache::Key { epoch: catalog.map(|c| c.epoch), dialect };
        if let Some(found) = self.caches.analysis(key, sql) {
            return found;
        }
        let schema = catalog.map(|catalog| self.caches.schema(catalog));
        let statements = Arc::new(parse::with_stack(self.stack, sql, || {
            statement::analyse(sql, dialect, schema.as_ref())
        }));
        self.caches.remember(key, sql, &statements);
        statements
    }

    fn view(&self, catalog: &Arc<Catalog>, view: u32) -> Arc<Vec<Output>> {
        view::lineage(&self.caches.schema(catalog), view, &[]).outputs.clone()
    }
}
