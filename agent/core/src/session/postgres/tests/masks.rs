//! Masked results: by origin, in both formats, in every place a value can come out of.

use super::*;

fn answer(kind: u32, format: i16, cell: &[u8]) -> Vec<u8> {
    [
        columns(&[("id", 100, 1, 23, format), ("ssn", 100, 2, kind, format)]),
        data_row(&[Some(b"1"), Some(cell)]),
        complete("SELECT 1"),
        ready(b'I'),
    ]
    .concat()
}

#[test]
fn the_catalog_is_read_before_the_client_sees_the_server_ready() {
    let mut rig = Rig::new(Words::masking());
    rig.client(&startup(&[("user", "ann")]));
    rig.server(&[ok(), parameter("client_encoding", "UTF8"), ready(b'I')].concat());
    assert_eq!(tags(&rig.to_client), "RS");
    assert!(contains(&rig.to_server, "pg_catalog.pg_class"));
    rig.client(&query("select ssn from t"));
    assert!(!contains(&rig.to_server, "select ssn from t"));
    rig.answer_catalog();
    assert_eq!(tags(&rig.to_client), "RSZ");
    assert!(contains(&rig.to_server, "select ssn from t"));
}

#[test]
fn a_state_that_was_read_before_costs_a_digest() {
    let first = Rig::open(Words::masking());
    let mut rig = Rig::new(Words::masking());
    rig.desk.catalogs = first.desk.catalogs;
    rig.client(&startup(&[("user", "ann")]));
    rig.server(&[ok(), ready(b'I')].concat());
    assert!(contains(&rig.to_server, "pg_catalog.sha256") && !contains(&rig.to_server, "pg_get_viewdef"));
    rig.answer_catalog_once("c0ffee");
    assert!(!rig.conversation.catalog.is_reading());
    assert_eq!(tags(&rig.to_client), "RZ");
    rig.client(&query("select id, ssn from t"));
    assert_eq!(rig.desk.records[0].decision, Decision::Masked);
    // Another database with the same digest is another place.
    let mut other = Rig::new(Words::masking());
    other.desk.catalogs = rig.desk.catalogs;
    other.client(&startup(&[("user", "ann"), ("database", "other")]));
    other.server(&[ok(), ready(b'I')].concat());
    other.answer_catalog_once("c0ffee");
    assert!(contains(&other.to_server, "pg_get_viewdef"));
}

#[test]
fn what_other_sessions_change_is_noticed_before_the_next_statement() {
    let mut rig = Rig::open(Words::masking());
    let old = crate::limits::PG_CATALOG_AGE_NS + 1;
    rig.client(&query("select id from t"));
    assert!(!contains(&rig.to_server, "sha256"), "it is new");
    rig.server(&[complete("SELECT 0"), ready(b'T')].concat());
    rig.mono += old;
    rig.clear();
    rig.client(&query("select id from t"));
    assert!(contains(&rig.to_server, "select id from t"), "a transaction is not put at risk");
    rig.server(&[complete("SELECT 0"), ready(b'I')].concat());
    rig.clear();
    rig.client(&query("select id, ssn from t"));
    assert!(contains(&rig.to_server, "sha256") && !contains(&rig.to_server, "ssn from t"));
    rig.answer_catalog_once("c0ffee");
    assert!(contains(&rig.to_server, "ssn from t") && !contains(&rig.to_server, "pg_get_viewdef"));
    rig.server(&[complete("SELECT 0"), ready(b'I')].concat());
    // The state has changed: the rows are read again.
    rig.mono += old;
    rig.clear();
    rig.client(&query("select id, ssn from t"));
    rig.answer_catalog_once("0ddba11");
    assert!(contains(&rig.to_server, "pg_get_viewdef") && !contains(&rig.to_server, "ssn from t"));
    rig.answer_catalog_once("0ddba11");
    assert!(contains(&rig.to_server, "ssn from t"));
    assert_eq!(tags(&rig.to_client), "", "nothing of it reaches the client");
}

#[test]
fn a_protected_column_is_masked_and_counted() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("select id, ssn from t"));
    assert_eq!(rig.desk.records[0].decision, Decision::Masked);
    rig.server(&answer(25, 0, b"101-02-0037"));
    assert!(!contains(&rig.to_client, "101-02") && contains(&rig.to_client, "[SSN]"));
    assert_eq!(tags(&rig.to_client), "TDCZ");
    let outcome = &rig.desk.records[1];
    assert_eq!((outcome.masked.get("ssn"), outcome.columns.as_slice()), (Some(&1), &["ssn".into()][..]));
}

#[test]
fn masks_fit_the_type_or_are_null() {
    for (kind, cell, shown) in [
        (25, &b"x"[..], &b"\0\0\0\x05[SSN]"[..]),
        (114, b"{\"a\":1}", b"\0\0\0\x07\"[SSN]\""),
        (3802, b"{}", b"\0\0\0\x07\"[SSN]\""),
        (20, b"123", b"\xff\xff\xff\xff"),
        (1009, b"{a}", b"\xff\xff\xff\xff"),
        (99_999, b"label", b"\xff\xff\xff\xff"),
    ] {
        let mut rig = Rig::open(Words::masking());
        rig.client(&query("select id, ssn from t"));
        rig.server(&answer(kind, 0, cell));
        let row = rig.to_client.split_at(columns(&[("id", 0, 0, 0, 0), ("ssn", 0, 0, 0, 0)]).len()).1;
        let length = u32::from_be_bytes(row[1..5].try_into().unwrap()) as usize;
        assert!(row[..=length].ends_with(shown), "type {kind}");
    }
}

#[test]
fn values_inside_other_cells_are_replaced_in_place() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("select note from x"));
    rig.server(&columns(&[
        ("note", 0, 0, 25, 0),
        ("j", 0, 0, 114, 0),
        ("b", 0, 0, 3802, 1),
        ("n", 0, 0, 1700, 0),
    ]));
    rig.server(&data_row(&[
        Some(b"see SSN-12 and SSN-3."),
        Some(br#"{"a":"x SSN-1","b":SSN-22}"#),
        Some(b"\x01{\"a\":\"SSN-7\"}"),
        Some(b"SSN-9"),
    ]));
    let expected = data_row(&[
        Some(b"see [SSN] and [SSN]."),
        Some(br#"{"a":"x [SSN]","b":"[SSN]"}"#),
        Some(b"\x01{\"a\":\"[SSN]\"}"),
        None,
    ]);
    assert!(rig.to_client.ends_with(&expected));
}

#[test]
fn computed_and_opaque_outputs_are_refused_before_they_run() {
    for text in ["select upper(ssn) from t", "select mystery from t"] {
        let mut rig = Rig::open(Words::masking());
        rig.client(&query(text));
        assert!(
            contains(&rig.to_server, "@denied by policy hide") && !contains(&rig.to_server, text),
            "{text}"
        );
    }
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("select count(*) from t"));
    assert_eq!(rig.to_server, query("select count(*) from t"));
    rig.server(
        &[columns(&[("count", 0, 0, 20, 0)]), data_row(&[Some(b"3")]), complete("SELECT 1"), ready(b'I')]
            .concat(),
    );
    assert_eq!(tags(&rig.to_client), "TDCZ");
}

#[test]
fn a_statement_that_nobody_described_is_described_by_weir() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&[parse("", "select id, ssn from t"), bind("", "", None), execute(""), sync()].concat());
    // Bind waits until the columns are known.
    assert_eq!(tags(&rig.to_server), "PDH");
    rig.server(&tagged(b'1'));
    rig.server(&[framed(b't', &[0, 0]), columns(&[("id", 100, 1, 23, 0), ("ssn", 100, 2, 25, 0)])].concat());
    assert_eq!(tags(&rig.to_client), "1");
    assert_eq!(tags(&rig.to_server), "PDHBES");
    rig.server(
        &[tagged(b'2'), data_row(&[Some(b"1"), Some(b"101")]), complete("SELECT 1"), ready(b'I')].concat(),
    );
    assert!(tags(&rig.to_client) == "12DCZ" && contains(&rig.to_client, "[SSN]"));
    assert_eq!(decisions(&rig), [(Kind::Verdict, Decision::Masked), (Kind::Outcome, Decision::Masked)]);
}

#[test]
fn a_prepared_statement_run_again_is_masked_again() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&[parse("s", "select id, ssn from t"), framed(b'D', b"Ss\0"), sync()].concat());
    let described =
        [framed(b't', &[0, 0]), columns(&[("id", 100, 1, 23, 0), ("ssn", 100, 2, 25, 0)])].concat();
    rig.server(&[tagged(b'1'), described.clone(), described, ready(b'I')].concat());
    assert_eq!(tags(&rig.to_client), "1tTZ");
    for _ in 0..2 {
        rig.clear();
        rig.client(&[bind("", "s", Some(1)), execute(""), sync()].concat());
        assert_eq!(tags(&rig.to_server), "BES");
        rig.server(
            &[tagged(b'2'), data_row(&[None, Some(b"101")]), complete("SELECT 1"), ready(b'I')].concat(),
        );
        assert!(contains(&rig.to_client, "[SSN]") && !contains(&rig.to_client, "101"));
    }
    assert_eq!(decisions(&rig), [(Kind::Verdict, Decision::Masked), (Kind::Outcome, Decision::Masked)]);
}

#[test]
fn a_masked_number_in_binary_is_refused_before_it_runs() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&[parse("s", "select id, ssn from t"), sync()].concat());
    let described =
        [framed(b't', &[0, 0]), columns(&[("id", 100, 1, 23, 0), ("ssn", 100, 2, 20, 0)])].concat();
    rig.server(&[tagged(b'1'), described, ready(b'I')].concat());
    rig.clear();
    rig.client(&[bind("", "s", Some(1)), execute(""), sync()].concat());
    assert!(contains(&rig.to_server, "@denied by policy hide"));
    assert_eq!(rig.desk.records[0].decision, Decision::Denied);
}

#[test]
fn errors_notices_notifications_and_settings_are_scrubbed() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("select 1"));
    let mut error = vec![];
    let fields: [(u8, &[u8]); 5] = [
        (b'S', b"ERROR"),
        (b'C', b"22P02"),
        (b'M', b"invalid input syntax for type integer: \"101-02-0037\""),
        (b'D', b"Token 101"),
        (b'W', b"JSON data"),
    ];
    backend::write_error(&mut error, b'E', &fields);
    rig.server(&error);
    assert!(!contains(&rig.to_client, "101") && contains(&rig.to_client, "for type integer: \"…\""));
    rig.server(
        &[ready(b'I'), framed(b'A', b"\0\0\0\x01ch\0pay SSN-5\0"), parameter("application_name", "SSN-6")]
            .concat(),
    );
    rig.server(&framed(b'N', b"SNOTICE\0MSSN-77\0\0"));
    assert!(!contains(&rig.to_client, "SSN-") && tags(&rig.to_client) == "EZASN");
}

#[test]
fn copy_out_of_a_masked_table_is_refused_and_other_copies_are_searched() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("copy t to stdout"));
    assert!(contains(&rig.to_server, "@denied"));
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("copy x to stdout"));
    rig.server(&[framed(b'H', &[0, 0, 1, 0, 0]), framed(b'd', b"a\tSSN-1\n"), tagged(b'c')].concat());
    assert!(contains(&rig.to_client, "a\t[SSN]\n"));
    rig.server(&[complete("COPY 1"), ready(b'I')].concat());
    assert_eq!((rig.desk.records[1].rows, rig.desk.records[1].masked.get("ssn")), (1, Some(&1)));
}

#[test]
fn a_relation_weir_has_never_seen_is_not_shown() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("insert into y returning"));
    rig.server(&columns(&[("a", 555, 1, 25, 0)]));
    assert!(contains(&rig.to_client, "FATAL") && tags(&rig.to_client) == "E");
    assert!(rig.close.is_some());
}

#[test]
fn after_ddl_the_catalog_is_read_again_before_the_next_statement() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("create table z"));
    rig.server(&[complete("CREATE TABLE"), ready(b'I')].concat());
    rig.clear();
    rig.client(&query("select id, ssn from t"));
    assert!(contains(&rig.to_server, "pg_catalog.pg_class") && !contains(&rig.to_server, "select id"));
    rig.answer_catalog();
    assert!(rig.to_server.ends_with(&query("select id, ssn from t")));
    assert_eq!(rig.to_client, b"");
}

#[test]
fn a_row_too_large_to_mask_ends_the_connection() {
    let mut rig = Rig::open(Words::masking());
    rig.client(&query("select id, ssn from t"));
    rig.server(&columns(&[("id", 100, 1, 23, 0), ("ssn", 100, 2, 25, 0)]));
    rig.server(&[b'D', 2, 0, 0, 0]);
    assert!(contains(&rig.to_client, "54000") && rig.close.is_some());
}

#[test]
fn large_rows_stream_where_nothing_is_masked() {
    let mut rig = Rig::open(Words::default());
    rig.client(&query("select 1"));
    rig.server(&columns(&[("a", 0, 0, 25, 0)]));
    rig.clear();
    rig.server(&[b'D', 0x3f, 0, 0, 0, 0, 1]);
    assert_eq!(rig.to_client.len(), 7);
    rig.server(&[b'x'; 1000]);
    assert_eq!((rig.to_client.len(), rig.server.len()), (1007, 0));
}
