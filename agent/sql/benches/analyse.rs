//! CPU microseconds of one analyse: a text seen for the first time, without and with a catalog, and one from the cache.

use std::hint::black_box;
use std::sync::Arc;

use weir_core::sql::{Catalog, Dialect, Grammar, Table, TableColumn};
use weir_sql::PgGrammar;

/// A name and the text with its literal.
type Text = (&'static str, fn(usize) -> String);

const TEXTS: [Text; 4] = [
    ("pgbench select", |n| format!("SELECT abalance FROM pgbench_accounts WHERE aid = {n};")),
    ("pgbench update", |n| format!("UPDATE pgbench_accounts SET abalance = abalance + {n} WHERE aid = 7;")),
    ("begin", |n| format!("BEGIN /* {n} */")),
    ("join", |n| {
        format!(
            "SELECT a.aid, b.bbalance, count(*) FROM pgbench_accounts a JOIN pgbench_branches b USING (bid) \
             WHERE a.abalance > {n} AND b.filler IS NOT NULL GROUP BY a.aid, b.bbalance ORDER BY 3 DESC LIMIT 10"
        )
    }),
];

fn main() {
    let work = || {
        let catalog = catalog();
        for (name, text) in TEXTS {
            let texts: Vec<String> = (0..ROUNDS).map(text).collect();
            let grammar = PgGrammar::on_large_stack();
            println!(
                "{name}: {:.2} µs without catalog, {:.2} µs with, {:.2} µs cached, {:.2} µs libpg_query alone",
                micros(&texts, |sql| drop(black_box(grammar.analyse(sql, Dialect::default(), None)))),
                micros(&texts, |sql| drop(black_box(grammar.analyse(
                    sql,
                    Dialect::default(),
                    Some(&catalog)
                )))),
                micros(&vec![texts[0].clone(); ROUNDS], |sql| {
                    drop(black_box(grammar.analyse(sql, Dialect::default(), Some(&catalog))));
                }),
                micros(&texts, |sql| drop(black_box(pg_query::parse(sql, 0)))),
            );
        }
    };
    std::thread::Builder::new().stack_size(weir_sql::STACK_BYTES).spawn(work).unwrap().join().unwrap();
}

fn micros(texts: &[String], work: impl Fn(&str)) -> f64 {
    let begun = cpu_nanos();
    texts.iter().for_each(|sql| work(sql));
    (cpu_nanos() - begun) / 1e3 / texts.len() as f64
}

/// Time this thread has run (proc_pid_schedstat): a busy machine does not blur it.
fn cpu_nanos() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstats");
    stat.split(' ').next().and_then(|run| run.parse().ok()).expect("nanoseconds on the CPU")
}

fn catalog() -> Arc<Catalog> {
    let mut catalog =
        Catalog { epoch: 1, search_path: vec!["pg_catalog".into(), "public".into()], ..Catalog::default() };
    let tables = [
        ("pgbench_accounts", &["aid", "bid", "abalance", "filler"][..]),
        ("pgbench_branches", &["bid", "bbalance", "filler"][..]),
    ];
    for ((name, columns), oid) in tables.into_iter().zip(16_384..) {
        let columns = columns.iter().zip(1..);
        let columns =
            columns.map(|(name, attribute)| TableColumn { attribute, name: (*name).into(), type_oid: 23 });
        let table = Table {
            schema: "public".into(),
            name: name.into(),
            kind: 'r',
            columns: columns.collect(),
            ..Table::default()
        };
        catalog.by_name.insert(("public".into(), name.into()), oid);
        catalog.relations.insert(oid, table);
    }
    Arc::new(catalog)
}

const ROUNDS: usize = 20_000;
