//! Deep and long texts on a small stack: an answer each time, never a crash, and never "harmless" without having looked.

use std::fmt::Write as _;
use std::sync::Arc;

use weir_core::action::{Effect, Statement};
use weir_core::limits;
use weir_core::sql::{Catalog, Dialect, Grammar, Table, TableColumn};
use weir_sql::PgGrammar;

/// Runs on the stack that a thread of Rust's standard library has.
fn analyse(sql: String) -> Arc<Vec<Statement>> {
    let work = move || PgGrammar::new().analyse(&sql, Dialect::default(), Some(&catalog()));
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(work).unwrap().join().unwrap()
}

fn catalog() -> Arc<Catalog> {
    let columns = ["a", "b"].iter().zip(1..);
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
    catalog.by_name.insert(("public".into(), "t".into()), 7);
    catalog.relations.insert(7, table);
    Arc::new(catalog)
}

fn is_unknown(statements: &[Statement]) -> bool {
    statements.len() == 1 && statements[0].effects.has(Effect::Unknown) && statements[0].opaque
}

#[test]
fn ordinary_depth_is_understood() {
    for terms in [2, 46, 200, 450] {
        let sql = format!("SELECT {}", vec!["1"; terms].join("+"));
        assert!(!is_unknown(&analyse(sql)), "{terms} terms");
        let sql = format!("SELECT {}", vec!["'x'"; terms].join("||"));
        assert!(!is_unknown(&analyse(sql)), "{terms} strings");
    }
    let mut joins = String::from("SELECT count(*) FROM t t0");
    for at in 1..=200 {
        let _ = write!(joins, " JOIN t t{at} ON t{at}.a = t0.a");
        if at == 48 {
            assert!(!is_unknown(&analyse(joins.clone())), "48 joins");
        }
    }
    assert!(!is_unknown(&analyse(joins)), "200 joins");
    let rows = vec!["(1, 'a', NULL)"; 5_000].join(",");
    assert!(!is_unknown(&analyse(format!("INSERT INTO t VALUES {rows}"))), "5,000 rows");
    let list = vec!["1"; 20_000].join(",");
    assert!(!is_unknown(&analyse(format!("SELECT * FROM t WHERE a IN ({list})"))), "20,000 values");
}

#[test]
fn hostile_depth_is_unknown() {
    for terms in [2_000, 5_000, 20_000, 64_000] {
        for (head, link, tail) in [
            ("SELECT 1", "+1", ""),
            ("SELECT ", "- ", "a"),
            ("SELECT ", "not ", "true"),
            ("SELECT 1", "::int", ""),
            ("SELECT 1", " is null", ""),
            ("SELECT 1", " union select 1", ""),
            ("SELECT ", "f(", &format!("1{}", ")".repeat(terms))),
            ("", "SELECT (", &format!("1{}", ")".repeat(terms))),
            ("SELECT ", "case when true then ", &format!("1{}", " end".repeat(terms))),
        ] {
            let sql = format!("{head}{}{tail}", link.repeat(terms));
            assert!(is_unknown(&analyse(sql)), "{terms} × {link}");
        }
    }
}

#[test]
fn brackets_alone_are_no_danger() {
    for count in [1_000, 5_000, 20_000, 64_000] {
        analyse(format!("SELECT {}1{}", "(".repeat(count), ")".repeat(count)));
        analyse(format!("{}SELECT 1{}", "(".repeat(count), ")".repeat(count)));
        analyse(format!("SELECT {}", "[".repeat(count)));
        analyse("(".repeat(count));
        analyse(format!("SELECT {}", "/*".repeat(count)));
    }
}

#[test]
fn short_texts_fit_a_small_stack() {
    // The deepest trees that a short text can make: the thresholds in the crate assume that these fit.
    for size in [100, 200, 300, 384, 385, 600, 1_000] {
        for link in ["- ", "+ ", "@ ", "~ "] {
            analyse(format!("SELECT {}1", link.repeat(size / 2)));
            analyse(format!("SELECT {}a", link.repeat(size / 2)));
        }
        analyse(format!("SELECT {}1", "1+".repeat(size / 2)));
        analyse(format!("SELECT {}1{}", "f(".repeat(size / 3), ")".repeat(size / 3)));
        analyse(format!("SELECT {}1{}", "ARRAY[".repeat(size / 7), "]".repeat(size / 7)));
        analyse(format!("SELECT {}1{}", "(SELECT ".repeat(size / 9), ")".repeat(size / 9)));
        analyse(format!("SELECT * FROM {}t{}", "(t join ".repeat(size / 17), " on true)".repeat(size / 17)));
    }
}

#[test]
fn long_texts_are_unknown() {
    let sql = format!("SELECT '{}'", "x".repeat(limits::SQL_BYTES));
    assert!(is_unknown(&analyse(sql)));
}

#[test]
fn texts_that_multiply_are_refused_in_time() {
    let begun = std::time::Instant::now();
    let mut stars = String::from("SELECT * FROM t");
    for _ in 0..40 {
        stars = format!("SELECT * FROM ({stars}) x, ({stars}) y");
        if stars.len() > 100_000 {
            break;
        }
    }
    let outputs = analyse(stars);
    assert!(outputs[0].opaque || outputs[0].effects.has(Effect::Unknown));
    let mut doubled = String::from("t");
    for _ in 0..60 {
        doubled = format!("(SELECT x.*, x.* FROM {doubled} x)");
    }
    let outputs = analyse(format!("SELECT * FROM {doubled} z"));
    assert!(outputs[0].opaque, "{:?}", outputs[0].effects);
    let mut recursive = String::from("SELECT a FROM t");
    for level in 0..60 {
        recursive = format!(
            "WITH RECURSIVE w{level} AS ({recursive} UNION ALL SELECT a FROM w{level}) SELECT a FROM w{level}"
        );
    }
    assert!(is_unknown(&analyse(recursive)));
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}

#[test]
fn runs_of_operators_are_refused_before_the_lexer_squares_them() {
    let begun = std::time::Instant::now();
    for run in ["/*", "+", "/*+", "+-", "/*/"] {
        let sql = format!("SELECT {}", run.repeat(100_000 / run.len()));
        assert!(is_unknown(&analyse(sql)), "{run}");
    }
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    // What people write stays readable: banners, drawn tables, signs in strings.
    for text in ["/**********************************/ SELECT 1", "SELECT '+-----+-----+' || '++++++++++'"] {
        assert!(!is_unknown(&analyse(text.into())), "{text}");
    }
    let table = "+----------+----------+\n".repeat(4_000);
    assert!(!is_unknown(&analyse(format!("SELECT '{table}'"))));
}

#[test]
fn deep_views_fit_a_small_stack() {
    let mut catalog = (*catalog()).clone();
    for view in 0..100_u32 {
        let below = if view == 0 { "t".to_string() } else { format!("v{}", view - 1) };
        let definition = format!("SELECT a, {}b AS b FROM {below}", "b || ".repeat(200));
        let columns = catalog.relations[&7].columns.clone();
        let table = Table {
            schema: "public".into(),
            name: format!("v{view}"),
            kind: 'v',
            columns,
            definition,
            ..Table::default()
        };
        catalog.by_name.insert(("public".into(), table.name.clone()), 100 + view);
        catalog.relations.insert(100 + view, table);
    }
    let catalog = Arc::new(catalog);
    let work = move |view: u32| {
        let grammar = PgGrammar::new();
        let read = grammar.analyse(&format!("SELECT a FROM v{view}"), Dialect::default(), Some(&catalog));
        read[0].outputs.clone().unwrap()[0].clone()
    };
    let small = std::thread::Builder::new().stack_size(2 * 1024 * 1024);
    let (shallow, deep) = small.spawn(move || (work(20), work(99))).unwrap().join().unwrap();
    assert_eq!(shallow.kind, weir_core::action::OutputKind::Direct);
    assert_eq!(deep.kind, weir_core::action::OutputKind::Opaque, "too long a chain is opaque");
}

#[test]
fn large_stacks_need_no_thread_for_ordinary_texts_and_survive_the_others() {
    for terms in [100, 700, 1_400, 3_000, 4_900] {
        let work = move || {
            let sql = format!("SELECT {}1", "1+".repeat(terms));
            PgGrammar::on_large_stack().analyse(&sql, Dialect::default(), Some(&catalog()))
        };
        let thread = std::thread::Builder::new().stack_size(weir_sql::STACK_BYTES).spawn(work);
        assert_eq!(is_unknown(&thread.unwrap().join().unwrap()), terms > limits::SQL_DEPTH);
    }
}
