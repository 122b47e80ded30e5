//! The SQL analysis that explanations and tests use: the same as the agent's.

use std::sync::Arc;

use weir_core::action::Statement;
use weir_core::sql::{Catalog, Dialect, Grammar};

/// The statements of a text. Without a catalog nobody can say which schema a bare table name means; here, where no
/// server is asked, it is taken to be `public`.
pub(super) fn statements(sql: &str, catalog: Option<&Arc<Catalog>>) -> Vec<Statement> {
    let mut statements = weir_sql::PgGrammar::new().analyse(sql, Dialect::default(), catalog).to_vec();
    if catalog.is_none() {
        for relation in statements.iter_mut().flat_map(|statement| &mut statement.relations) {
            relation.schema.get_or_insert_with(|| "public".into());
        }
    }
    statements
}
