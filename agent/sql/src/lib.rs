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
mod probe;
mod query;
mod relation;
mod resolver;
mod scope;
mod session;
mod shape;
mod statement;
mod value;
mod view;

use std::borrow::Cow;
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
        let shape = shape::of(sql);
        let shares = matches!(shape, Cow::Owned(_));
        if let Some(found) = self.caches.analysis(key, &shape) {
            return if shares { requoted(found, sql) } else { found };
        }
        let schema = catalog.map(|catalog| self.caches.schema(catalog));
        let statements = Arc::new(parse::with_stack(self.stack, sql, || {
            statement::analyse(sql, dialect, schema.as_ref())
        }));
        // An analysis that quotes the text in another way than the shape would is no other text's.
        if !shares || matches!(statements.as_slice(), [one] if one.text == shape::own_text(sql)) {
            self.caches.remember(key, &shape, &statements);
        }
        statements
    }

    fn view(&self, catalog: &Arc<Catalog>, view: u32) -> Arc<Vec<Output>> {
        view::lineage(&self.caches.schema(catalog), view, &[]).outputs.clone()
    }
}

/// The analysis of another text of the same shape, with this one's own words.
fn requoted(found: Arc<Vec<Statement>>, sql: &str) -> Arc<Vec<Statement>> {
    let text = shape::own_text(sql);
    match found.as_slice() {
        [one] if one.text != text => Arc::new(vec![Statement { text: text.into(), ..one.clone() }]),
        _ => found,
    }
}
