//! The SQL analysis that explanations and tests use: the same as the agent's.

use weir_core::sql::Grammar;

/// PostgreSQL's own grammar.
pub(super) fn postgres() -> impl Grammar {
    weir_sql::PgGrammar::new()
}
