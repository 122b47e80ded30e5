//! Resolution may only add sources: whatever is wrapped around a column, the column stays among the sources, or the
//! output is opaque. And no text, however broken, is more than unknown.

use std::sync::Arc;

use proptest::prelude::*;
use weir_core::action::{Column, Effect, OutputKind};
use weir_core::sql::{Catalog, Dialect, Grammar, Table, TableColumn};
use weir_sql::PgGrammar;

const TABLE: u32 = 16_384;
const COLUMNS: [&str; 3] = ["id", "name", "ssn"];

fn catalog() -> Arc<Catalog> {
    let columns = COLUMNS.iter().zip(1..);
    let columns =
        columns.map(|(name, attribute)| TableColumn { attribute, name: (*name).into(), type_oid: 25 });
    let table = Table {
        schema: "public".into(),
        name: "t".into(),
        kind: 'r',
        columns: columns.collect(),
        ..Table::default()
    };
    let mut catalog = Catalog { epoch: 1, search_path: vec!["public".into()], ..Catalog::default() };
    catalog.by_name.insert(("public".into(), "t".into()), TABLE);
    catalog.relations.insert(TABLE, table);
    Arc::new(catalog)
}

/// An expression over the columns of `t`.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => prop::sample::select(&COLUMNS[..]).prop_map(|column| format!("t.{column}")),
        1 => Just("'x'".to_string()),
        1 => Just("$1".to_string()),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        let one = prop::sample::select(
            &[
                "lower(#)",
                "(#)::text",
                "(#)::int",
                "- (#)",
                "(#) COLLATE \"C\"",
                "min(#)",
                "count(#)",
                "(#) IS NULL",
                "lag(#) OVER (ORDER BY 1)",
                "rank() OVER (ORDER BY #)",
                "(SELECT #)",
                "ARRAY(SELECT #)",
                "(ARRAY[#])[1]",
                "EXISTS (SELECT #)",
                "mine(#)",
                "row_to_json(ROW(#))",
                "xmlforest(# AS x)",
                "(#)::public.mood",
                "sum(1) FILTER (WHERE (#) = '1')",
                "(SELECT y FROM (SELECT # AS y) s)",
                "(SELECT max(v) FROM (VALUES (#), ('z')) w(v))",
                "(WITH c AS (SELECT # AS y) SELECT y FROM c)",
                "(SELECT u FROM unnest(ARRAY[#]) u)",
            ][..],
        );
        let two = prop::sample::select(
            &[
                "(#) || (@)",
                "(#) = (@)",
                "coalesce(#, @)",
                "CASE WHEN (#) = '1' THEN @ END",
                "CASE # WHEN '1' THEN 2 ELSE @ END",
                "nullif(#, @)",
                "greatest(#, @)",
                "(#) IN (@, 'q')",
                "(#) BETWEEN (@) AND 'z'",
                "(SELECT # UNION ALL SELECT @)",
                "(#) ~~ (@)",
                "ROW(#, @)",
                "(#) OPERATOR(evil.+) (@)",
                "(#) IS DISTINCT FROM (@)",
                "(SELECT # ORDER BY @)",
                "(SELECT y FROM (SELECT # AS x, @ AS y) s WHERE x = '1')",
            ][..],
        );
        prop_oneof![
            (one, inner.clone()).prop_map(|(shape, e)| shape.replace('#', &e)),
            (two, inner.clone(), inner).prop_map(|(shape, a, b)| shape.replace('#', &a).replace('@', &b)),
        ]
    })
}

/// What stands around the expression: `#` is the expression over `t`, the output is the first column.
const AROUND: [&str; 12] = [
    "SELECT # AS x FROM t",
    "SELECT x FROM (SELECT # AS x FROM t) s",
    "SELECT s.* FROM (SELECT # FROM t) s",
    "WITH w(x) AS (SELECT # FROM t) SELECT x FROM w",
    "WITH RECURSIVE w(x) AS (SELECT # FROM t UNION ALL SELECT x FROM w) SELECT x FROM w",
    "WITH RECURSIVE w(x) AS (SELECT 'a' UNION ALL SELECT # FROM t, w) SELECT x FROM w",
    "SELECT 'a' UNION SELECT # FROM t",
    "SELECT l.x FROM t, LATERAL (SELECT # AS x) l",
    "SELECT x FROM (SELECT # AS x FROM t) a FULL JOIN (SELECT 'b' AS x) b USING (x)",
    "SELECT x FROM (SELECT # AS x FROM t) a NATURAL JOIN (SELECT 'b' AS x) b",
    "UPDATE t SET name = 'x' RETURNING #",
    "WITH d AS (DELETE FROM t RETURNING # AS x) SELECT x FROM d",
];

/// The columns that must be among the sources: all that the text names, but those that only order or choose rows.
fn named(expression: &str) -> Vec<Column> {
    let is_named = |column: &&&str| expression.contains(&format!("t.{column}"));
    let attribute = |column: &str| COLUMNS.iter().position(|c| *c == column).unwrap();
    let column =
        |name: &&str| Column { relation: TABLE, attribute: i16::try_from(attribute(name) + 1).unwrap() };
    COLUMNS.iter().filter(is_named).map(column).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_wrapping_loses_a_source(expression in expression(), around in prop::sample::select(&AROUND[..])) {
        let sql = around.replace('#', &expression);
        let statements = PgGrammar::new().analyse(&sql, Dialect::default(), Some(&catalog()));
        prop_assert_eq!(statements.len(), 1);
        prop_assert!(!statements[0].effects.has(Effect::Unknown), "{}", sql);
        let filtered = expression.contains("ORDER BY") || expression.contains("WHERE x =");
        if let Some(outputs) = &statements[0].outputs {
            for column in named(&expression) {
                let kept = outputs[0].sources.contains(&column) || outputs[0].kind == OutputKind::Opaque || filtered;
                prop_assert!(kept, "{sql}\n  {:?} misses {column:?}", outputs[0]);
            }
        }
    }

    #[test]
    fn broken_texts_are_at_most_unknown(
        words in prop::collection::vec(prop::sample::select(&[
            "SELECT", "*", "FROM", "t", "(", ")", ",", "WHERE", "UPDATE", "SET", "=", "DELETE", "INSERT INTO", "VALUES", "1", "'x'",
            "WITH", "RECURSIVE", "AS", "UNION", "JOIN", "USING", "ON", "true", "CASE", "WHEN", "END", "[", "]", "::", "int", ".", ";",
            "DROP", "FUNCTION", "TABLE", "ALTER", "ADD", "COLUMN", "EXPLAIN", "COPY", "TO", "STDOUT", "GRANT", "LATERAL", "ssn", "/*",
            "*/", "--", "\n", "$$", "E'\\'", "RETURNING", "MERGE", "NOT", "MATCHED", "THEN", "xmltable", "CREATE", "VIEW", "ROW", "é",
        ][..]), 1..24),
    ) {
        let sql = words.join(" ");
        for catalog in [None, Some(&catalog())] {
            for statement in PgGrammar::new().analyse(&sql, Dialect::default(), catalog).iter() {
                prop_assert!(!statement.effects.is_empty(), "{}", sql);
            }
        }
    }
}

/// Where a statement may hold a number.
const NUMBERED: [&str; 9] = [
    "SELECT name FROM t WHERE id = #",
    "  SELECT ssn FROM t WHERE id=# AND name = # ;",
    "SELECT name, # FROM t WHERE id = # ORDER BY #",
    "UPDATE t SET id = #, name = # WHERE id = #",
    "DELETE FROM t WHERE # = #",
    "DELETE FROM t WHERE id = # OR # = #",
    "SELECT name FROM t WHERE id = #::text",
    "SELECT x FROM (SELECT ssn AS x FROM t WHERE id = #) s WHERE x = # LIMIT #",
    "SELECT 'id = #' FROM t WHERE id = #; SELECT ssn FROM t WHERE id = #",
];

proptest! {
    #[test]
    fn texts_that_share_an_analysis_have_the_same(
        texts in prop::collection::vec((prop::sample::select(&NUMBERED[..]), [0..3_u64, 1..4_u64, 5..4_000_000_000_u64]), 1..12)
    ) {
        let (shared, catalog) = (PgGrammar::new(), catalog());
        for (text, numbers) in texts {
            let sql = numbers.iter().cycle().take(3).fold(text.to_owned(), |sql, number| sql.replacen('#', &number.to_string(), 1));
            let alone = PgGrammar::new().analyse(&sql, Dialect::default(), Some(&catalog));
            prop_assert_eq!(shared.analyse(&sql, Dialect::default(), Some(&catalog)), alone);
        }
    }
}
