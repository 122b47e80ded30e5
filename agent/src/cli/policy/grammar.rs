//! The SQL analysis that explanations and tests use: the same as the agent's.

use std::sync::Arc;

use weir_core::action::{Context, Statement};
use weir_core::policy::Policy;
use weir_core::session::postgres::foresee;
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

/// Why an admitted statement is refused all the same: a masked value would get out. Told where the tables are known.
pub(super) fn obstacle(
    policy: &Arc<Policy>,
    context: &Context<'_>,
    statement: &Statement,
    catalog: Option<&Arc<Catalog>>,
) -> Option<(Arc<str>, String)> {
    foresee(policy, context, statement, catalog?, &weir_sql::PgGrammar::new())
}
