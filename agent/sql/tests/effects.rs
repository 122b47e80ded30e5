//! What each kind of statement does, in the closed vocabulary; and the ways to hide one statement in another.

use std::sync::Arc;

use weir_core::action::{Access, Effect, Effects, Named, Object, Statement};
use weir_core::sql::{Dialect, Grammar};
use weir_sql::PgGrammar;

fn analyse(sql: &str) -> Arc<Vec<Statement>> {
    PgGrammar::new().analyse(sql, Dialect::default(), None)
}

fn effects(sql: &str) -> String {
    let all = analyse(sql);
    let set = all.iter().fold(Effects::NONE, |set, statement| set.union(statement.effects));
    let mut names: Vec<&str> = set.iter().map(Effect::name).collect();
    names.sort_unstable();
    names.join(" ")
}

fn check(table: &[(&str, &str)]) {
    let wrong: Vec<String> = table
        .iter()
        .filter(|(sql, expected)| effects(sql) != *expected)
        .map(|(sql, expected)| format!("{sql}\n    is {}, expected {expected}", effects(sql)))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn row_statements() {
    check(&[
        ("SELECT 1", "read"),
        ("TABLE t", "read"),
        ("VALUES (1)", "read"),
        ("SELECT a FROM t UNION SELECT b FROM u", "read"),
        ("SELECT * FROM t FOR UPDATE", "lock read"),
        ("SELECT * FROM (SELECT * FROM t FOR SHARE) s", "lock read"),
        ("SELECT * INTO n FROM t", "ddl:create insert read"),
        ("INSERT INTO t VALUES (1)", "insert"),
        ("INSERT INTO t DEFAULT VALUES", "insert"),
        ("INSERT INTO t SELECT * FROM u", "insert read"),
        ("INSERT INTO t VALUES ((SELECT max(a) FROM u))", "insert read"),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "insert"),
        ("INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", "insert update"),
        ("INSERT INTO t VALUES (1) RETURNING *", "insert read"),
        ("UPDATE t SET a = 1 WHERE b = 2", "update"),
        ("UPDATE t SET a = u.a FROM u WHERE t.b = u.b", "read update"),
        ("DELETE FROM t WHERE a = 1", "delete"),
        ("DELETE FROM t USING u WHERE t.a = u.a", "delete read"),
        ("TRUNCATE t, u", "truncate"),
        (
            "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (1)",
            "delete insert read",
        ),
        ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET a = 1", "read update"),
        ("MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN DO NOTHING", "read"),
        ("WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d", "delete read"),
        (
            "WITH a AS (WITH b AS (UPDATE t SET x = 1 RETURNING 1) SELECT * FROM b) SELECT * FROM a",
            "read update",
        ),
    ]);
}

#[test]
fn wrapping_statements() {
    check(&[
        ("EXPLAIN DELETE FROM t", "explain"),
        ("EXPLAIN (COSTS OFF) SELECT * FROM t", "explain"),
        ("EXPLAIN ANALYZE DELETE FROM t", "delete explain"),
        ("EXPLAIN (ANALYZE) DELETE FROM t", "delete explain"),
        ("EXPLAIN (ANALYZE true) DELETE FROM t", "delete explain"),
        ("EXPLAIN (ANALYZE 1) DELETE FROM t", "delete explain"),
        ("EXPLAIN (ANALYZE off) DELETE FROM t", "explain"),
        ("EXPLAIN (ANALYZE off, ANALYZE) DELETE FROM t", "delete explain"),
        ("EXPLAIN ANALYZE EXECUTE p", "explain unknown"),
        ("EXPLAIN SELECT mine(1)", "call explain"),
        ("PREPARE p AS DELETE FROM t WHERE a = $1", "delete"),
        ("EXECUTE p(1)", "unknown"),
        ("DEALLOCATE p", "session"),
        ("DECLARE c CURSOR FOR SELECT * FROM t", "read"),
        ("FETCH 10 FROM c", "unknown"),
        ("MOVE 10 FROM c", "unknown"),
        ("CLOSE c", "txn"),
        ("COPY t TO STDOUT", "copy_out read"),
        ("COPY (DELETE FROM t RETURNING *) TO STDOUT", "copy_out delete read"),
        ("COPY t FROM STDIN", "copy_in insert"),
        ("COPY t TO '/tmp/x'", "copy_program read"),
        ("COPY t FROM '/etc/passwd'", "copy_program insert"),
        ("COPY t TO PROGRAM 'sh'", "copy_program read"),
        ("COPY t FROM PROGRAM 'sh'", "copy_program insert"),
        ("CREATE TABLE n AS SELECT * FROM t", "ddl:create insert read"),
        ("CREATE TABLE n AS EXECUTE p", "ddl:create insert unknown"),
        ("CREATE MATERIALIZED VIEW m AS SELECT * FROM t", "ddl:create insert read"),
        ("REFRESH MATERIALIZED VIEW m", "read update"),
        ("DO $$ BEGIN DELETE FROM t; END $$", "do"),
        ("CALL p(1)", "call"),
        ("CREATE RULE r AS ON INSERT TO t DO INSTEAD DELETE FROM u WHERE a = new.a", "ddl:create delete"),
        ("CREATE SCHEMA s CREATE TABLE t (a int)", "ddl:create"),
    ]);
}

#[test]
fn session_statements() {
    check(&[
        ("BEGIN", "txn"),
        ("START TRANSACTION READ ONLY", "txn"),
        ("COMMIT; ROLLBACK; SAVEPOINT a; RELEASE a; ROLLBACK TO a", "txn"),
        ("PREPARE TRANSACTION 'x'", "txn"),
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "txn"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "session"),
        ("SET search_path = evil", "session"),
        ("SET LOCAL search_path = evil", "session"),
        ("SET ROLE postgres", "session"),
        ("SET SESSION AUTHORIZATION postgres", "session"),
        ("RESET ALL", "session"),
        ("DISCARD ALL", "session"),
        ("SHOW search_path", "read"),
        ("SELECT set_config('search_path', 'evil', false)", "read session"),
        ("SELECT set_config('application_name', ssn, false) FROM t", "call read session"),
        ("LISTEN a", "listen"),
        ("NOTIFY a, 'x'", "listen"),
        ("SELECT pg_notify('a', 'x')", "listen read"),
        ("SELECT pg_notify('a', ssn) FROM t", "call listen read"),
        ("LOCK TABLE t", "lock"),
        ("SELECT pg_advisory_lock(1)", "lock read"),
        ("GRANT SELECT ON t TO x", "grant"),
        ("REVOKE ALL ON SCHEMA s FROM x", "grant"),
        ("GRANT a TO b", "grant"),
        ("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO x", "grant"),
        ("ALTER SYSTEM SET work_mem = '1GB'", "admin"),
        ("LOAD 'x'", "admin"),
        ("CREATE EXTENSION dblink", "admin ddl:create"),
        ("VACUUM t", "admin"),
        ("CHECKPOINT", "admin"),
        ("ALTER ROLE a SET search_path = evil", "ddl:alter session"),
        ("CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p", "ddl:create replication"),
    ]);
}

#[test]
fn functions() {
    check(&[
        ("SELECT lower(a), now(), count(*) FROM t", "read"),
        ("SELECT pg_catalog.lower(a) FROM t", "read"),
        ("SELECT mine(a) FROM t", "call read"),
        ("SELECT public.lower(a) FROM t", "call read"),
        ("SELECT * FROM mine()", "call read"),
        ("SELECT a FROM t WHERE mine(a)", "call read"),
        ("SELECT a FROM t ORDER BY mine(a)", "call read"),
        ("SELECT a FROM t LIMIT mine()", "call read"),
        ("INSERT INTO t VALUES (mine())", "call insert"),
        ("UPDATE t SET a[mine()] = 1 WHERE a = b", "call update"),
        ("SELECT a OPERATOR(evil.+) b FROM t", "call read"),
        ("SELECT a OPERATOR(pg_catalog.+) b FROM t", "read"),
        ("SELECT ('/etc/passwd'::text).pg_read_file", "admin call read"),
        ("SELECT (a).mine FROM t", "call read"),
        ("SELECT ('A'::text).lower", "read"),
        ("SELECT nextval('s')", "read update"),
        ("SELECT query_to_xml('select 1', true, true, '')", "call read"),
        ("SELECT table_to_xml('t', true, true, '')", "call read"),
        ("SELECT * FROM ts_stat('select 1')", "call read"),
        ("SELECT pg_sleep(1)", "call read"),
        ("SELECT lo_get(1)", "call read"),
        ("SELECT lo_import('/etc/passwd')", "admin call read"),
        ("SELECT pg_read_file('/etc/passwd')", "admin call read"),
        ("SELECT pg_terminate_backend(1)", "admin call read"),
        ("SELECT dblink('x', 'y')", "admin call read"),
        ("SELECT pg_create_logical_replication_slot('a', 'b')", "call read replication"),
        ("CREATE TABLE t (a int DEFAULT nextval('s'), b text DEFAULT mine())", "ddl:create"),
        ("ALTER TABLE t ALTER a TYPE int USING mine(a)", "call ddl:alter"),
        ("CREATE INDEX ON t (mine(a))", "call ddl:create"),
    ]);
}

#[test]
fn tricks() {
    check(&[
        ("SELECT 1; DROP TABLE t", "ddl:drop read"),
        ("/* /* */ SELECT 1; */ DELETE FROM t", "delete"),
        ("SELECT $a$ ; DELETE FROM t; $a$", "read"),
        ("SELECT $$ ; $$; DELETE FROM t", "delete read"),
        (r"SELECT E'\'; DELETE FROM t; --'", "read"),
        (r"SELECT '\'; DELETE FROM t; --'", "delete read"),
        ("SELECT U&'\\0027; DELETE FROM t'", "read"),
        ("DELETE\nFROM\tt", "delete"),
        ("-- SELECT\nDELETE FROM t", "delete"),
        ("SELECT 1 /* ; DELETE FROM t */", "read"),
        ("\"DELETE\"", "unknown"),
        ("SELECT \"DELETE\" FROM \"a;b\"", "read"),
        ("dElEtE fRoM t", "delete"),
        ("SELECT 1\0; DELETE FROM t", "unknown"),
        ("SELEC 1", "unknown"),
        ("SELECT 1; SELEC", "unknown"),
        ("IDENTIFY_SYSTEM", "unknown"),
        ("", ""),
        (" ; -- nothing\n;", ""),
    ]);
    let off = Dialect { standard_conforming_strings: false };
    let read = PgGrammar::new().analyse(r"SELECT '\'; DELETE FROM t; --'", off, None);
    assert_eq!(read.len(), 1, "the backslash hides the quote when the session says so");
    assert_eq!(read[0].effects, Effects::of(&[Effect::Read]));
}

#[test]
fn definitions_name_their_objects() {
    let table: &[(&str, &str, Object)] = &[
        ("CREATE TABLE t (a int)", "ddl:create", Object::Table),
        ("CREATE VIEW v AS SELECT * FROM t", "ddl:create", Object::View),
        ("CREATE INDEX i ON t (a)", "ddl:create", Object::Index),
        ("CREATE SCHEMA s", "ddl:create", Object::Schema),
        ("CREATE DATABASE d", "ddl:create", Object::Database),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'select 1'", "ddl:create", Object::Function),
        ("CREATE ROLE r", "ddl:create", Object::Role),
        ("CREATE USER r", "ddl:create", Object::Role),
        ("CREATE SEQUENCE s", "ddl:create", Object::Sequence),
        ("CREATE TYPE e AS ENUM ('a')", "ddl:create", Object::Type),
        ("CREATE DOMAIN d AS int CHECK (value > 0)", "ddl:create", Object::Type),
        ("CREATE AGGREGATE a (int) (sfunc = f, stype = int)", "ddl:create", Object::Function),
        ("ALTER TABLE t ADD COLUMN b int", "ddl:alter", Object::Table),
        ("ALTER TABLE t RENAME COLUMN a TO b", "ddl:alter", Object::Table),
        ("ALTER VIEW v RENAME TO w", "ddl:alter", Object::View),
        ("ALTER DATABASE d RENAME TO e", "ddl:alter", Object::Database),
        ("COMMENT ON TABLE t IS 'x'", "ddl:alter", Object::Table),
        ("DROP TABLE t", "ddl:drop", Object::Table),
        ("DROP VIEW v", "ddl:drop", Object::View),
        ("DROP SCHEMA s CASCADE", "ddl:drop", Object::Schema),
        ("DROP DATABASE d", "ddl:drop", Object::Database),
        ("DROP FUNCTION f(int)", "ddl:drop", Object::Function),
        ("DROP ROLE r", "ddl:drop", Object::Role),
        ("DROP TRIGGER g ON t", "ddl:drop", Object::Other),
    ];
    for (sql, effect, object) in table {
        assert_eq!(effects(sql), *effect, "{sql}");
        assert_eq!(analyse(sql)[0].objects, [*object], "{sql}");
    }
    assert_eq!(effects("CREATE FUNCTION f() RETURNS int LANGUAGE plpythonu AS ''"), "admin ddl:create");
}

#[test]
fn whole_table_writes() {
    for sql in [
        "DELETE FROM t",
        "UPDATE t SET a = 1",
        "DELETE FROM t WHERE true",
        "UPDATE t SET a = 1 WHERE 1 = 1",
        "WITH d AS (DELETE FROM t RETURNING 1) SELECT 1",
        "EXPLAIN ANALYZE DELETE FROM t",
        "PREPARE p AS DELETE FROM t",
    ] {
        assert!(analyse(sql)[0].without_where, "{sql}");
    }
    for sql in [
        "DELETE FROM t WHERE a = 1",
        "UPDATE t SET a = 1 WHERE EXISTS (SELECT 1 FROM u)",
        "DELETE FROM t WHERE CURRENT OF c",
        "EXPLAIN DELETE FROM t",
        "SELECT 1",
    ] {
        assert!(!analyse(sql)[0].without_where, "{sql}");
    }
}

#[test]
fn statements_keep_their_own_text() {
    let all = analyse("SELECT 'ü;' ; /* c */ DELETE FROM t WHERE a = 'é';\n SELECT 2");
    let texts: Vec<&str> = all.iter().map(|statement| statement.text.as_str()).collect();
    assert_eq!(texts, ["SELECT 'ü;'", "DELETE FROM t WHERE a = 'é'", "SELECT 2"]);
}

#[test]
fn names_are_handed_to_the_session() {
    let named = |sql: &str| analyse(sql)[0].named.clone();
    assert_eq!(named("PREPARE p AS SELECT 1"), Some(Named::Prepare("p".into())));
    assert_eq!(named("EXECUTE \"P\""), Some(Named::Execute("P".into())));
    assert_eq!(named("EXPLAIN ANALYZE EXECUTE p"), Some(Named::Execute("p".into())));
    assert_eq!(named("DEALLOCATE ALL"), Some(Named::Deallocate(None)));
    assert_eq!(named("DECLARE c CURSOR FOR SELECT 1"), Some(Named::Declare("c".into())));
    assert_eq!(named("FETCH ALL FROM c"), Some(Named::Fetch("c".into())));
    assert_eq!(named("CLOSE ALL"), Some(Named::Close(None)));
    assert_eq!(named("SELECT 1"), None);
}

#[test]
fn relations_are_named_wherever_they_stand() {
    let touched = |sql: &str| -> String {
        let mut names: Vec<String> = analyse(sql)
            .iter()
            .flat_map(|statement| statement.relations.clone())
            .map(|r| {
                let access = if r.access == Access::Read { "r" } else { "w" };
                let schema = r.schema.map(|schema| schema + ".").unwrap_or_default();
                format!("{schema}{}:{access}", r.name)
            })
            .collect();
        names.sort();
        names.join(" ")
    };
    let table = [
        ("SELECT * FROM a, s.b JOIN c USING (x)", "a:r c:r s.b:r"),
        ("SELECT (SELECT 1 FROM a) FROM b WHERE x IN (SELECT y FROM c)", "a:r b:r c:r"),
        ("WITH a AS (SELECT * FROM b) SELECT * FROM a", "b:r"),
        ("WITH a AS (SELECT * FROM a) SELECT * FROM a", "a:r"),
        ("WITH RECURSIVE a AS (SELECT * FROM b UNION ALL SELECT * FROM a) SELECT * FROM a", "b:r"),
        ("WITH a AS (SELECT 1) SELECT * FROM s.a", "s.a:r"),
        ("WITH a AS (SELECT 1) DELETE FROM a", "a:w"),
        ("INSERT INTO a SELECT * FROM b", "a:w b:r"),
        ("UPDATE a SET x = (SELECT 1 FROM b) FROM c", "a:w b:r c:r"),
        ("DELETE FROM a USING b RETURNING *", "a:r a:w b:r"),
        ("MERGE INTO a USING b ON true WHEN MATCHED THEN DELETE", "a:w b:r"),
        ("SELECT * FROM a ORDER BY (SELECT 1 FROM b)", "a:r b:r"),
        ("SELECT 1 FROM a WINDOW w AS (ORDER BY (SELECT 1 FROM b))", "a:r b:r"),
        ("SELECT 1 FROM a HAVING EXISTS (SELECT 1 FROM b)", "a:r b:r"),
        ("SELECT * FROM a TABLESAMPLE system (1)", "a:r"),
        ("SELECT * FROM f((SELECT 1 FROM a))", "a:r"),
        ("SELECT * FROM pg_statistic, pg_catalog.pg_stats", "pg_catalog.pg_stats:r pg_statistic:r"),
        ("COPY a TO STDOUT", "a:r"),
        ("COPY a FROM STDIN", "a:w"),
        ("TRUNCATE a, b", "a:w b:w"),
        ("DROP TABLE a, s.b", "a:w s.b:w"),
        ("DROP TRIGGER g ON s.a", "s.a:w"),
        ("ALTER TABLE a ADD FOREIGN KEY (x) REFERENCES b", "a:w b:r"),
        ("CREATE TABLE a (LIKE b)", "a:w b:r"),
        ("CREATE TABLE a (x int REFERENCES b) INHERITS (c)", "a:w b:r c:w"),
        ("CREATE VIEW a AS SELECT * FROM b", "a:w b:r"),
        ("CREATE INDEX ON a (x)", "a:w"),
        ("LOCK a", "a:w"),
        ("GRANT SELECT ON a TO x", "a:w"),
        ("REFRESH MATERIALIZED VIEW a", "a:w"),
        ("EXPLAIN DELETE FROM a", "a:r"),
        ("COMMENT ON COLUMN s.a.x IS 'y'", "s.a:w"),
        ("VACUUM a", "a:w"),
    ];
    for (sql, expected) in table {
        assert_eq!(touched(sql), expected, "{sql}");
    }
}
