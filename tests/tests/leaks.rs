//! Ways to get a masked value out, or a denied statement in, with stock psql and psycopg: each must fail through weir and
//! succeed without it. And what must go on working.

use std::fmt::Write as _;
use std::process::Command;

use weir_tests::agent::{Done, done, fed};
use weir_tests::postgres::{Options, PASSWORD};
use weir_tests::{Agent, Lab, Postgres, Setup, clients, policies};

struct Bench {
    agent: Agent,
    postgres: Postgres,
    // Last: it removes what the others use.
    _lab: Lab,
}

/// The shop policy; `more` effects are allowed besides.
fn bench(name: &str, more: &str) -> Bench {
    changed(name, |shop| shop.replace("txn, session, explain]", &format!("txn, session, explain{more}]")))
}

fn changed(name: &str, change: impl FnOnce(String) -> String) -> Bench {
    let lab = Lab::new(name).unwrap();
    let postgres = Postgres::start(&lab, Options::default()).unwrap();
    let shop = change(policies::shop(postgres.port));
    let setup = Setup::default().policy("classes.yaml", policies::CLASSES).policy("shop.yaml", &shop);
    let agent = Agent::start(&lab, &setup).unwrap();
    Bench { agent, postgres, _lab: lab }
}

impl Bench {
    fn psql(&self, mut command: Command, script: &str) -> Done {
        fed(command.env("PGPASSWORD", PASSWORD), script).unwrap()
    }

    /// What each script shows, through weir and without it; one psql session for all, each in a transaction of its own.
    fn both(&self, scripts: &[&str]) -> Vec<(Done, Done)> {
        let port = self.postgres.port.to_string();
        let psql = ["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "shop"];
        let mut all = String::new();
        for script in scripts {
            writeln!(all, "\\echo {MARK}\n\\warn {MARK}\nBEGIN;\n{script}\nROLLBACK;").unwrap();
        }
        let through = self.psql(self.agent.app(&psql).unwrap(), &all);
        let mut direct = Command::new(psql[0]);
        direct.args(&psql[1..]);
        let direct = self.psql(direct, &all);
        let split = |done: &Done| -> Vec<Done> {
            let outs = done.out.split(MARK).skip(1);
            let errs = done.err.split(MARK).skip(1);
            outs.zip(errs).map(|(out, err)| Done { code: 0, out: out.into(), err: err.into() }).collect()
        };
        let (through, direct) = (split(&through), split(&direct));
        assert_eq!((through.len(), direct.len()), (scripts.len(), scripts.len()), "a session ended early");
        through.into_iter().zip(direct).collect()
    }

    /// Each script shows `value` without weir and not with it. All faults are reported at once.
    fn hides(&self, rows: &[(&str, &str)]) {
        let scripts: Vec<&str> = rows.iter().map(|(script, _)| *script).collect();
        let mut faults = String::new();
        for ((script, value), (through, direct)) in rows.iter().zip(self.both(&scripts)) {
            let shows = |done: &Done| done.out.contains(value) || done.err.contains(value);
            if !shows(&direct) {
                writeln!(faults, "no control for {script}: {direct:?}").unwrap();
            }
            if shows(&through) {
                writeln!(faults, "LEAK {script}: {through:?}").unwrap();
            }
        }
        assert!(faults.is_empty(), "{faults}");
    }
}

/// Between two scripts.
const MARK: &str = "=====";
/// The number of customer 1, and forms of it that no detector knows.
const SSN: &str = "219-45-6789";
const CROSSED: &str = "219x45x6789";
const BACKWARDS: &str = "9876-54-912";
const BARE: &str = "219456789";

#[test]
fn no_expression_shows_a_masked_value() {
    let bench = bench("leak-expressions", "");
    let first = |what: &str| format!("SELECT {what} FROM customers c WHERE id = 1;");
    let expressions = [
        "ssn",
        "ssn AS harmless",
        "c.ssn",
        "(c).ssn",
        "U&\"\\0073\\0073n\"",
        "/* a /* b */ */ ssn",
        "ssn::text",
        "ssn COLLATE \"C\"",
        "ssn || ''",
        "ssn::char(11)",
        "ssn::name",
        "c",
        "c.*",
        "c::text",
        "row_to_json(c)",
        "to_jsonb(c)",
        "ROW(ssn)",
        "ARRAY[ssn]",
        "(ARRAY[ssn])[1]",
        "CASE WHEN true THEN ssn END",
        "coalesce(ssn, '')",
        "nullif(ssn, '')",
        "greatest(ssn, '')",
        "format('%s', ssn)",
        "json_build_object('a', ssn)",
        "xmlforest(ssn)",
        "max(ssn)",
        "string_agg(ssn, ',')",
        "array_agg(ssn)",
        "json_agg(c)",
        "first_value(ssn) OVER ()",
        "lag(ssn, 0) OVER (ORDER BY id)",
        "(SELECT ssn FROM customers WHERE id = 1)",
        "ARRAY(SELECT ssn FROM customers)",
        "unnest(ARRAY[ssn])",
        "ssn(c)",
        "set_config('x.y', ssn, false)",
        "query_to_xml('select ssn from customers', true, true, '')",
        "table_to_xml('customers', true, true, '')",
        "jsonb_path_query(to_jsonb(c), '$.ssn')",
        "(json_populate_record(NULL::customers, row_to_json(c))).ssn",
    ];
    let mut scripts: Vec<String> = expressions.iter().map(|what| first(what)).collect();
    scripts.extend(
        [
            "TABLE customers;", "SELECT d FROM customers AS t(a, b, x, d);", "SELECT national_id FROM contacts;",
            "SELECT ssn FROM customers UNION ALL SELECT 'x';", "SELECT name FROM customers UNION SELECT ssn FROM customers;",
            "VALUES ((SELECT ssn FROM customers WHERE id = 1));", "WITH a AS MATERIALIZED (SELECT ssn x FROM customers) SELECT x FROM a;",
            "WITH RECURSIVE r AS (SELECT ssn::text x FROM customers UNION SELECT x FROM r) SELECT x FROM r;",
            "SELECT ssn FROM customers a FULL JOIN customers b USING (ssn);", "SELECT x FROM customers, LATERAL (VALUES (ssn)) v(x);",
            "SELECT * FROM jsonb_to_recordset((SELECT jsonb_agg(c) FROM customers c)) AS t(ssn text);",
            "DECLARE c BINARY CURSOR FOR SELECT ssn FROM customers ORDER BY id; FETCH 1 FROM c;",
            "DECLARE c SCROLL CURSOR FOR SELECT ssn z FROM customers ORDER BY id; MOVE 2 IN c; FETCH BACKWARD 1 FROM c;",
            "PREPARE leak1 AS SELECT ssn FROM customers; EXECUTE leak1;", "PREPARE leak2(int) AS SELECT ssn x FROM customers WHERE id = $1; EXECUTE leak2(1);",
            "UPDATE customers SET note = 'x' WHERE id = 1 RETURNING ssn;", "UPDATE customers SET note = 'x' WHERE id = 1 RETURNING customers;",
            "COPY customers TO STDOUT;", "COPY (SELECT ssn FROM customers) TO STDOUT;", "\\copy customers TO STDOUT",
            "SELECT histogram_bounds FROM pg_stats WHERE attname = 'ssn' UNION ALL SELECT NULL; SELECT ssn FROM customers;",
            "CREATE TEMP TABLE t AS SELECT ssn x FROM customers; SELECT x FROM t;", "CREATE VIEW v AS SELECT ssn x FROM customers; SELECT x FROM v;",
            "ALTER TABLE customers RENAME ssn TO foo; SELECT foo FROM customers;", "SET search_path = pg_temp; SELECT ssn FROM public.customers;",
            "DO $$ BEGIN RAISE NOTICE '%', (SELECT ssn FROM customers WHERE id = 1); END $$;",
            "SELECT ssn FROM customers WHERE id = 1 \\gdesc\nSELECT ssn FROM customers WHERE id = 1 \\g",
        ]
        .map(String::from),
    );
    let rows: Vec<(&str, &str)> = scripts.iter().map(|script| (script.as_str(), SSN)).collect();
    bench.hides(&rows);
}

#[test]
fn no_error_message_shows_a_masked_value() {
    // Conditions are let through, so that the server's errors are put to the test.
    let bench = changed("leak-errors", |shop| {
        let open = shop.replace("{last: 4}}}", "{last: 4}}, filter: allow}");
        assert_ne!(shop, open);
        open
    });
    let provoked = |test: &str| format!("SELECT 1 FROM customers WHERE id = 1 AND {test};");
    let crossed = "replace(ssn, '-', 'x')";
    let bare = "replace(ssn, '-', '')";
    let rows = [
        (provoked("ssn::int = 1"), SSN),
        (provoked(&format!("{crossed}::int = 1")), CROSSED),
        (provoked(&format!("{crossed}::regclass IS NULL")), CROSSED),
        (provoked(&format!("{crossed}::regproc IS NULL")), CROSSED),
        (provoked(&format!("{crossed}::regrole IS NULL")), CROSSED),
        (provoked(&format!("{crossed}::regnamespace IS NULL")), CROSSED),
        (provoked(&format!("{crossed}::inet IS NULL")), CROSSED),
        (provoked(&format!("current_setting({crossed}) = ''")), CROSSED),
        (provoked(&format!("has_table_privilege({crossed}, 'select')")), CROSSED),
        (provoked(&format!("now() AT TIME ZONE {crossed} IS NULL")), CROSSED),
        (provoked("to_tsquery(replace(ssn, '-', ' ')) IS NULL"), "219 45 6789"),
        (provoked(&format!("chr({bare}::int) = 'x'")), BARE),
        (provoked(&format!("get_byte('\\x00'::bytea, {bare}::int) = 1")), BARE),
        (provoked("make_date(substr(ssn, 1, 3)::int, 77, 1) IS NULL"), "219"),
        ("UPDATE customers SET id = 2 WHERE id = 1;".into(), "(id)=(2)"),
        ("INSERT INTO customers (id, name, note) SELECT 77, NULL, 'row 77';".into(), "row 77"),
    ];
    let rows: Vec<(&str, &str)> = rows.iter().map(|(script, value)| (script.as_str(), *value)).collect();
    bench.hides(&rows);
}

#[test]
fn no_condition_tells_the_digits_of_a_masked_value() {
    let bench = bench("leak-conditions", ", delete, \"ddl:alter\", \"ddl:create\"");
    let scripts = [
        "SELECT name FROM customers WHERE ssn LIKE '219%';",
        "SELECT name FROM customers WHERE ssn ~ '^219';",
        "SELECT name FROM customers WHERE ssn > '219' AND ssn < '22';",
        "SELECT count(*) FROM customers WHERE substr(ssn, 1, 1) = '2';",
        "SELECT count(*) FILTER (WHERE ssn LIKE '219%') FROM customers;",
        "SELECT customers.name FROM contacts, customers WHERE contacts.id = customers.id AND national_id LIKE '219%';",
        "SELECT id FROM orders WHERE EXISTS (SELECT FROM customers c WHERE c.id = customer AND ssn LIKE '219%');",
        "SELECT name, nullif(left(ssn, 1), '2') IS NULL FROM customers;",
        "SELECT name FROM customers ORDER BY ssn LIKE '219%' DESC;",
        "SELECT count(*) FROM customers GROUP BY left(ssn, 1);",
        "SELECT name FROM customers OFFSET (SELECT left(ssn, 1)::int - 2 FROM customers WHERE id = 1);",
        "SELECT count(*) FROM generate_series(1, (SELECT left(ssn, 3)::int FROM customers WHERE id = 1));",
        "SELECT count(*) FROM customers, regexp_split_to_table(ssn, '-');",
        "SELECT count(*) FROM (SELECT generate_series(1, left(ssn, 3)::int) FROM customers WHERE id = 1) x;",
        "SELECT 1 FROM customers WHERE id = 1 AND pg_sleep(left(ssn, 1)::int / 1000.0) IS NOT NULL;",
        "WITH found AS (SELECT id FROM customers WHERE ssn LIKE '219%') SELECT count(*) FROM found;",
        "UPDATE customers SET note = 'x' WHERE ssn LIKE '219%';",
        "INSERT INTO orders (id, customer, total) SELECT 900, id, 1 FROM customers WHERE ssn LIKE '219%';",
        "PREPARE probe AS SELECT count(*) FROM customers WHERE ssn LIKE $1; EXECUTE probe('219%');",
        "EXPLAIN ANALYZE SELECT name FROM customers WHERE ssn LIKE '219%';",
        "SELECT count(*) OVER (ORDER BY g ROWS (SELECT left(ssn, 3)::int FROM customers WHERE id = 1) PRECEDING) FROM generate_series(1, 300) g;",
        "SELECT id FROM (SELECT id, ssn LIKE '219%' AS name FROM customers ORDER BY name DESC LIMIT 1) x;",
        "SELECT id FROM customers WHERE ssn IN (SELECT '219-45-' || i FROM generate_series(6000, 6999) i);",
        "SELECT id FROM customers JOIN generate_series(6000, 6999) i ON ssn = '219-45-' || i;",
        "WITH w AS MATERIALIZED (SELECT 1 / (ascii(ssn) - 40) FROM customers WHERE id = 1) SELECT count(*) FROM w;",
        "ALTER TABLE customers ADD COLUMN back text GENERATED ALWAYS AS (reverse(ssn)) STORED; SELECT back FROM customers;",
        "ALTER TABLE customers ALTER COLUMN note TYPE text USING reverse(ssn); SELECT note FROM customers;",
        "ALTER TABLE customers ADD CHECK (ssn NOT LIKE '999%');",
        "CREATE INDEX ON customers (id) WHERE ssn LIKE '219%';",
    ];
    let mut faults = String::new();
    for (script, (through, direct)) in scripts.iter().zip(bench.both(&scripts)) {
        if direct.err.contains("ERROR") {
            writeln!(faults, "no control for {script}: {direct:?}").unwrap();
        }
        if !["is masked", "from masked columns", "masked values"]
            .iter()
            .any(|words| through.err.contains(words))
        {
            writeln!(faults, "answered: {script}: {through:?}").unwrap();
        }
    }
    assert!(faults.is_empty(), "{faults}");
}

/// In one message the server runs all statements, and weir has read the catalog before the first.
#[test]
fn a_condition_behind_a_change_of_names_is_not_taken_on_trust() {
    let bench = bench("leak-shaken", "");
    let count = |text: &str| format!("{}\n", text.replace("; ", "\\; "));
    let told = bench.both(&[
        &count("SET search_path = public; UPDATE customers SET note = 'x' WHERE ssn LIKE '219%';"),
        &count("SET search_path = public; UPDATE orders SET total = total WHERE id = 1;"),
    ]);
    assert!(told[0].1.out.contains("UPDATE 1") && told[0].0.err.contains("cannot be told"), "{told:?}");
    assert!(told[1].0.out.contains("UPDATE 1"), "{told:?}");
}

#[test]
fn a_masked_value_cannot_be_stored_where_it_is_not_masked() {
    let bench = bench("leak-stores", ", \"ddl:create\", \"ddl:alter\"");
    bench.hides(&[
        ("UPDATE customers SET note = reverse(ssn) WHERE id = 1; SELECT note FROM customers;", BACKWARDS),
        ("UPDATE customers SET note = reverse(ssn) WHERE id = 1 RETURNING note;", BACKWARDS),
        ("WITH u AS (UPDATE customers SET note = reverse(ssn) WHERE id = 1 RETURNING note) SELECT note FROM u;", BACKWARDS),
        ("UPDATE customers SET (note, name) = (SELECT reverse(ssn), 'x') WHERE id = 1; SELECT note FROM customers;", BACKWARDS),
        ("UPDATE customers c SET note = d.x FROM (SELECT reverse(national_id) x FROM contacts WHERE id = 1) d WHERE c.id = 1; SELECT note FROM customers;", BACKWARDS),
        ("UPDATE customers SET ssn = reverse(ssn) WHERE id = 1; SELECT ssn FROM customers;", "-912"),
        ("UPDATE customers SET ssn = right(ssn, 4) || left(ssn, 3) WHERE id = 1; SELECT ssn FROM customers;", "219"),
        ("INSERT INTO customers (id, name) SELECT 70, reverse(ssn) FROM customers WHERE id = 1; SELECT name FROM customers;", BACKWARDS),
        ("INSERT INTO customers SELECT 71, reverse(ssn) FROM customers WHERE id = 1; SELECT name FROM customers;", BACKWARDS),
        ("INSERT INTO customers (id, name) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET note = reverse(customers.ssn); SELECT note FROM customers;", BACKWARDS),
        ("MERGE INTO customers c USING (SELECT 1 k, reverse(ssn) x FROM customers WHERE id = 1) s ON c.id = s.k WHEN MATCHED THEN UPDATE SET note = s.x; SELECT note FROM customers;", BACKWARDS),
        ("MERGE INTO customers c USING (SELECT 72 k, reverse(ssn) x FROM customers WHERE id = 1) s ON c.id = s.k WHEN NOT MATCHED THEN INSERT (id, name) VALUES (k, x); SELECT name FROM customers;", BACKWARDS),
        ("UPDATE orders SET total = (SELECT replace(ssn, '-', '')::numeric / 100 FROM customers WHERE id = 1) WHERE id = 1; SELECT total * 100 FROM orders;", BARE),
        ("PREPARE launder AS UPDATE customers SET note = reverse(ssn) WHERE id = 1; EXECUTE launder; SELECT note FROM customers;", BACKWARDS),
        ("CREATE TEMP TABLE t AS SELECT reverse(ssn) x FROM customers; SELECT x FROM t;", BACKWARDS),
        ("SELECT reverse(ssn) x INTO TEMP t FROM customers; SELECT x FROM t;", BACKWARDS),
        ("CREATE VIEW v AS SELECT reverse(ssn) x FROM customers; SELECT x FROM v;", BACKWARDS),
        ("CREATE TEMP TABLE t (x text); INSERT INTO t SELECT reverse(ssn) FROM customers; SELECT x FROM t;", BACKWARDS),
    ]);
}

#[test]
fn a_prepared_execute_cannot_change_what_it_runs() {
    let bench = bench("leak-execute", "");
    let script = "
import psycopg, sys
c = psycopg.connect(sys.argv[1], autocommit=True, prepare_threshold=None)
g = c.pgconn
g.exec_(b\"PREPARE p AS UPDATE orders SET total = total WHERE id = -1\")
g.prepare(b's', b'EXECUTE p')
print(g.describe_prepared(b's').nfields)
g.exec_prepared(b's', [])
g.exec_(b'DEALLOCATE p')
g.exec_(b'PREPARE p AS SELECT ssn FROM customers ORDER BY id')
r = g.exec_prepared(b's', [])
print(r.get_value(0, 0), r.error_message)
";
    let python = clients::python().unwrap();
    let url = bench.postgres.url();
    let arguments = [python.to_str().unwrap(), "-c", script, &url];
    let direct = done(Command::new(arguments[0]).args(&arguments[1..]).output().unwrap()).unwrap();
    assert!(direct.out.contains(SSN), "control: {direct:?}");
    let through = bench.agent.run(&arguments).unwrap();
    assert!(!through.out.contains(SSN) && !through.err.contains(SSN), "{through:?}");
}

#[test]
fn what_applications_do_goes_on_working() {
    let bench = bench("leak-working", ", listen, copy_in, copy_out, lock");
    let scripts = [
        "\\d",
        "\\d customers",
        "\\dt",
        "\\l",
        "\\df",
        "\\dn",
        "\\du",
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public';",
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'orders';",
        "SELECT a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_catalog.pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relname = 'orders' AND a.attnum > 0;",
        "SAVEPOINT a; UPDATE orders SET total = total * 2 WHERE id = 1; ROLLBACK TO a; RELEASE a;",
        "LISTEN news; NOTIFY news, 'hello'; UNLISTEN news;",
        "COPY orders (id, customer, total) FROM STDIN;\n901\t1\t2.5\n\\.",
        "COPY orders TO STDOUT;",
        "SELECT count(*) FROM generate_series(1, 100000);",
        "SELECT g, repeat('x', 100) FROM generate_series(1, 5000) g;",
        "INSERT INTO customers (id, name, ssn) VALUES (80, 'New', '219-45-0000');",
        "UPDATE customers SET ssn = '219-45-0001', note = 'changed' WHERE ssn = '219-45-6789';",
        "INSERT INTO customers (id, name, ssn, email) SELECT id + 500, name, ssn, email FROM customers;",
        "UPDATE customers SET note = upper(name), name = name || '!' WHERE id = 1;",
        "INSERT INTO orders SELECT id + 100, customer, total FROM orders;",
        "SELECT id FROM customers WHERE email = 'ada@example.com';",
        "SELECT name FROM customers ORDER BY ssn LIMIT 1;",
        "SELECT id FROM customers WHERE lower(email) = lower('Ada@example.com') AND name LIKE 'A%';",
        "SELECT id FROM customers WHERE ssn IN ('219-45-6789', '1') OR ssn IS NULL ORDER BY email DESC;",
        "SELECT a.id FROM customers a JOIN contacts b ON a.ssn = b.national_id WHERE b.id < 3;",
        "SELECT ssn, count(*) FROM customers GROUP BY ssn HAVING count(*) > 0 ORDER BY 2, 1;",
        "SELECT DISTINCT email FROM customers WHERE id = ANY ('{1,2}') LIMIT 10 OFFSET 0;",
        "PREPARE find AS SELECT id FROM customers WHERE ssn = $1 LIMIT $2; EXECUTE find('219-45-6789', 1);",
        "UPDATE customers SET note = 'seen' WHERE ssn = '219-45-6789' AND note IS DISTINCT FROM 'seen';",
        "SELECT count(ssn), count(DISTINCT email) FROM customers;",
        "EXPLAIN SELECT ssn FROM customers;",
        "SELECT * FROM customers FOR UPDATE;",
        "SHOW server_version;",
        "SELECT version(), current_user, now();",
    ];
    let mut faults = String::new();
    for (script, (through, direct)) in scripts.iter().zip(bench.both(&scripts)) {
        if direct.err.contains("ERROR") || through.err.contains("ERROR") {
            writeln!(faults, "{script}: {through:?} / {direct:?}").unwrap();
        }
    }
    assert!(faults.is_empty(), "{faults}");
    // The server's own words about a mistake are kept where no row has been read.
    let told = bench.both(&["SELECT 1 FROM custmers;", "SELECT 1 FROM orders WHERE 'x'::int = 1;"]);
    assert!(told[0].0.err.contains("relation \"custmers\" does not exist"), "{told:?}");
    assert!(told[1].0.err.contains("LINE 1"), "{told:?}");
}
