//! SQL: any text is analysed without a crash, the same text to the same end, and nothing unreadable counts as harmless.

use std::sync::OnceLock;

use weir_core::sql::{Dialect, Grammar};
use weir_sql::PgGrammar;

pub const SEEDS: &[&[u8]] = &[
    b"SELECT u.id, upper(u.ssn) FROM app.users AS u JOIN orders o USING (id) WHERE u.id = $1 LIMIT 3",
    b"WITH d AS (DELETE FROM users RETURNING *) SELECT * FROM d; UPDATE t SET a = 1",
    b"COPY users (id, ssn) TO STDOUT WITH (FORMAT csv)",
    b"DO $$ BEGIN EXECUTE 'drop table x'; END $$",
    b"EXPLAIN ANALYZE INSERT INTO t SELECT * FROM x ON CONFLICT DO NOTHING",
    b"SELECT E'\\'', U&'\\0041', 'it''s' /* a /* b */ */ -- c\n",
    b"((((((((((((((((((((SELECT 1))))))))))))))))))))",
];

pub fn run(bytes: &[u8]) {
    static GRAMMAR: OnceLock<PgGrammar> = OnceLock::new();
    let grammar = GRAMMAR.get_or_init(PgGrammar::new);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for standard_conforming_strings in [true, false] {
        let dialect = Dialect { standard_conforming_strings };
        let first = grammar.analyse(text, dialect, None);
        assert_eq!(first.len(), grammar.analyse(text, dialect, None).len());
        assert!(first.iter().all(|statement| !statement.effects.is_empty()), "a statement without an effect");
    }
}
