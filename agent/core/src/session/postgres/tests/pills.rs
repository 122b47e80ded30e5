//! Denials and approvals: the eight cases of a denied message, and what happens while one is held.

use super::*;

fn denial(rig: &Rig) -> (String, String, String) {
    let mut wire = rig.to_client.as_slice();
    while wire[0] != b'E' {
        let header = crate::wire::postgres::header(wire, backend::bound).unwrap().expect("an error");
        wire = &wire[header.whole()..];
    }
    let body = &wire[5..];
    let field = |code| String::from_utf8_lossy(backend::error_field(body, code)).into_owned();
    (field(b'C'), field(b'M'), field(b'D'))
}

fn denied() -> (String, String, String) {
    ("42501".into(), "no drops here".into(), "rule no-drops, request 5e55-1".into())
}

#[test]
fn a_denied_query_is_a_syntax_error_at_the_server_and_42501_at_the_client() {
    let mut rig = Rig::open(Words::default());
    rig.client(&query("select 1; drop table x"));
    assert!(
        !contains(&rig.to_server, "drop table") && contains(&rig.to_server, "@denied by policy no-drops")
    );
    assert_eq!(rig.to_client, b"");
    rig.server(&[server_error("ERROR", "42601", "syntax error"), ready(b'I')].concat());
    assert_eq!(denial(&rig), denied());
    assert_eq!(tags(&rig.to_client), "EZ");
    assert_eq!(decisions(&rig), [(Kind::Verdict, Decision::Denied)]);
    // The session lives on.
    rig.clear();
    rig.client(&query("select 2"));
    assert_eq!(rig.to_server, query("select 2"));
}

#[test]
fn a_denied_parse_in_a_pipeline_skips_to_sync() {
    let mut rig = Rig::open(Words::default());
    let first = [parse("", "insert 1"), bind("", "", None), execute("")].concat();
    let second = [parse("", "drop x"), bind("", "", None), execute("")].concat();
    rig.client(&[first.clone(), second, sync()].concat());
    assert_eq!(tags(&rig.to_server), "PBEPBES");
    assert!(rig.to_server.starts_with(&first) && !contains(&rig.to_server, "drop x"));
    rig.server(&[tagged(b'1'), tagged(b'2'), complete("INSERT 0 1")].concat());
    rig.server(&[server_error("ERROR", "42601", "syntax error"), ready(b'I')].concat());
    assert_eq!(tags(&rig.to_client), "12CEZ");
    assert_eq!(denial(&rig).0, "42501");
    assert!(rig.conversation.ledger.is_empty() && !rig.conversation.skipping);
}

#[test]
fn after_an_error_the_session_discards_like_the_server_until_sync() {
    let mut rig = Rig::open(Words::default());
    rig.client(&parse("", "drop x"));
    rig.server(&server_error("ERROR", "42601", "syntax error"));
    rig.clear();
    rig.client(&[bind("", "", None), execute(""), query("select 1")].concat());
    assert_eq!(rig.to_server, b"");
    rig.client(&sync());
    assert_eq!(rig.to_server, sync());
    rig.server(&ready(b'I'));
    rig.client(&query("select 1"));
    assert!(rig.to_server.ends_with(&query("select 1")));
}

#[test]
fn a_policy_that_changed_denies_at_bind() {
    let mut rig = Rig::open(Words::default());
    rig.client(&[parse("s", "select 1"), sync()].concat());
    rig.server(&[tagged(b'1'), ready(b'I')].concat());
    rig.clear();
    rig.rules = Arc::new(Words { deny_all: true, ..Words::default() });
    rig.client(&[bind("", "s", None), execute(""), sync()].concat());
    assert_eq!(tags(&rig.to_server), "BES");
    assert!(contains(&rig.to_server, "\x01@denied by policy no-drops"));
    rig.server(&[server_error("ERROR", "26000", "no such statement"), ready(b'I')].concat());
    assert_eq!(denial(&rig).0, "42501");
    assert_eq!(tags(&rig.to_client), "EZ");
}

#[test]
fn a_policy_that_changed_denies_at_execute() {
    let mut rig = Rig::open(Words::default());
    rig.client(&[parse("s", "select 1"), bind("", "s", None), tagged(b'H')].concat());
    rig.server(&[tagged(b'1'), tagged(b'2')].concat());
    rig.clear();
    rig.rules = Arc::new(Words { deny_all: true, ..Words::default() });
    rig.client(&[execute(""), sync()].concat());
    assert!(contains(&rig.to_server, "\x01@denied"));
    rig.server(&[server_error("ERROR", "34000", "no such portal"), ready(b'E')].concat());
    assert_eq!(denial(&rig).0, "42501");
}

#[test]
fn a_denied_function_call_calls_function_zero() {
    let mut rig = Rig::open(Words { deny_all: true, ..Words::default() });
    rig.client(&framed(b'F', &[0, 0, 3, 233, 0, 0, 0, 0, 0, 0]));
    assert_eq!(rig.to_server, framed(b'F', &[0; 10]));
    rig.server(&[server_error("ERROR", "42883", "no such function"), ready(b'I')].concat());
    assert_eq!(denial(&rig).0, "42501");
}

#[test]
fn order_is_kept_over_two_syncs_with_the_first_poisoned() {
    let mut rig = Rig::open(Words::default());
    let bad = [parse("", "drop x"), bind("", "", None), execute(""), sync()].concat();
    let good = [parse("", "select 1"), bind("", "", None), execute(""), sync()].concat();
    rig.client(&[bad, good.clone()].concat());
    assert!(rig.to_server.ends_with(&good));
    rig.server(&[server_error("ERROR", "42601", "x"), ready(b'I'), tagged(b'1'), tagged(b'2')].concat());
    rig.server(&[data_row(&[Some(b"1")]), complete("SELECT 1"), ready(b'I')].concat());
    assert_eq!(tags(&rig.to_client), "EZ12DCZ");
}

#[test]
fn copy_data_of_a_denied_copy_never_leaves() {
    let mut rig = Rig::open(Words::default());
    rig.client(&[query("copy drop from stdin"), framed(b'd', b"secret\n"), tagged(b'c')].concat());
    assert!(!contains(&rig.to_server, "secret"));
    assert_eq!(tags(&rig.to_server), "Q");
}

#[test]
fn copy_in_passes_under_its_act_until_it_is_done() {
    let mut rig = Rig::open(Words::default());
    let text = query("copy x from stdin");
    rig.client(&text);
    rig.server(&framed(b'G', &[0, 0, 1, 0, 0]));
    let data = [framed(b'd', b"1\n"), framed(b'd', &[b'x'; 3000]), tagged(b'c')].concat();
    rig.client(&data);
    assert_eq!(rig.to_server, [text, data].concat());
    rig.server(&[complete("COPY 2"), ready(b'I')].concat());
    assert_eq!(rig.desk.records[1].rows, 2);
    // Stray data afterwards stays here, as the server would ignore it.
    rig.clear();
    rig.client(&framed(b'd', b"stray"));
    assert_eq!(rig.to_server, b"");
}

#[test]
fn a_fatal_error_in_place_of_the_pill_s_passes_as_it_is() {
    let mut rig = Rig::open(Words::default());
    rig.client(&query("drop x"));
    let fatal = server_error("FATAL", "57P01", "going down");
    rig.server(&fatal);
    assert_eq!(rig.to_client, fatal);
}

#[test]
fn a_held_query_leaves_after_the_grant_with_the_very_bytes() {
    let mut rig = Rig::open(Words::default());
    let text = query("delete from t where id = 1");
    rig.client(&[text.clone(), query("select 2")].concat());
    assert_eq!(rig.to_server, b"");
    assert_eq!(tags(&rig.to_client), "N");
    let question = rig.asked[0].clone();
    assert!(contains(&rig.to_client, &question.id) && contains(&rig.to_client, "group:dba"));
    // The server may speak meanwhile.
    let notice = framed(b'N', b"SNOTICE\0\0");
    rig.server(&notice);
    assert!(rig.to_client.ends_with(&notice));
    let wrong = Answer {
        id: question.id.clone(),
        digest: [9; 32],
        granted: true,
        approver: "ann".into(),
        reason: String::new(),
    };
    rig.event(Input::Answered(wrong));
    assert_eq!(rig.to_server, b"");
    let right = Answer {
        id: question.id,
        digest: question.digest,
        granted: true,
        approver: "ann".into(),
        reason: String::new(),
    };
    rig.event(Input::Answered(right));
    assert_eq!(rig.to_server, [text, query("select 2")].concat());
    let seen = decisions(&rig);
    assert_eq!(seen[..2], [(Kind::Approval, Decision::Held), (Kind::Verdict, Decision::Approved)]);
    assert_eq!(rig.desk.records[1].approver, "ann");
}

#[test]
fn a_refused_and_an_expired_hold_are_poisoned() {
    let mut rig = Rig::open(Words::default());
    rig.client(&query("delete 1"));
    let question = rig.asked[0].clone();
    rig.event(Input::Answered(Answer {
        id: question.id,
        digest: question.digest,
        granted: false,
        approver: "bob".into(),
        reason: "no".into(),
    }));
    assert!(contains(&rig.to_server, "@denied"));
    rig.server(&[server_error("ERROR", "42601", "x"), ready(b'I')].concat());
    rig.clear();
    rig.client(&query("delete 2"));
    rig.mono = 999;
    rig.event(Input::Tick);
    assert_eq!(rig.to_server, b"");
    rig.mono = 1_000;
    rig.event(Input::Tick);
    assert!(rig.withdrawn && contains(&rig.to_server, "@denied"));
    rig.to_client.clear();
    rig.server(&[server_error("ERROR", "42601", "x"), ready(b'T')].concat());
    assert_eq!((denial(&rig).0.as_str(), denial(&rig).1.as_str()), ("57014", "approval timed out"));
    assert_eq!(rig.desk.records.last().unwrap().decision, Decision::Expired);
}

#[test]
fn a_prepared_statement_is_held_at_each_run_and_the_digest_covers_parameters() {
    let mut rig = Rig::open(Words::default());
    rig.client(&[parse("d", "delete from x"), sync()].concat());
    assert_eq!(tags(&rig.to_server), "PS");
    rig.server(&[tagged(b'1'), ready(b'I')].concat());
    rig.client(&[bind("", "d", None), execute(""), sync()].concat());
    let first = rig.asked[0].clone();
    assert_eq!(tags(&rig.to_server), "PS");
    rig.event(Input::Answered(Answer {
        id: first.id.clone(),
        digest: first.digest,
        granted: true,
        approver: "a".into(),
        reason: String::new(),
    }));
    assert_eq!(tags(&rig.to_server), "PSBES");
    rig.server(&[tagged(b'2'), complete("DELETE 1"), ready(b'I')].concat());
    rig.client(&[bind("", "d", Some(1)), execute(""), sync()].concat());
    assert_ne!(rig.asked[1].digest, first.digest);
    assert_ne!(rig.asked[1].id, first.id);
}

#[test]
fn a_client_that_leaves_while_held_takes_the_question_with_it() {
    let mut rig = Rig::open(Words::default());
    rig.client(&query("delete 1"));
    rig.event(Input::WorkloadClosed);
    assert!(rig.withdrawn);
    assert_eq!((rig.to_server.as_slice(), rig.close), (b"".as_slice(), Some(Close::Finish)));
}

#[test]
fn a_strict_record_stops_the_workload_until_it_is_on_the_disk() {
    let mut rig = Rig::open(Words { strict: true, ..Words::default() });
    rig.client(&[query("insert 1"), query("insert 2")].concat());
    assert_eq!((rig.to_server.len(), rig.desk.records.len()), (0, 1));
    rig.event(Input::Recorded(Ok(Receipt::issue(1))));
    assert_eq!(rig.to_server, query("insert 1"));
    rig.event(Input::Recorded(Err("disk".into())));
    assert!(!contains(&rig.to_server, "insert 2"));
    rig.server(
        &[complete("INSERT 0 1"), ready(b'I'), server_error("ERROR", "42601", "x"), ready(b'I')].concat(),
    );
    assert_eq!(denial(&rig).0, "58030");
}

#[test]
fn a_ledger_that_refuses_lets_nothing_pass() {
    let mut rig = Rig::open(Words::default());
    rig.desk.refuse = true;
    rig.client(&[query("select 1"), parse("", "select 2")].concat());
    assert!(!contains(&rig.to_server, "select"));
}

#[test]
fn names_that_nobody_prepared_are_refused_as_the_server_would() {
    let mut rig = Rig::open(Words::default());
    rig.client(&[bind("", "nosuch", None), sync()].concat());
    assert!(!contains(&rig.to_server, "nosuch"));
    rig.server(&[server_error("ERROR", "26000", "x"), ready(b'I')].concat());
    assert_eq!(
        (denial(&rig).0.as_str(), denial(&rig).1.as_str()),
        ("26000", "prepared statement \"nosuch\" does not exist")
    );
    rig.clear();
    rig.client(&[framed(b'D', b"Snosuch\0"), sync()].concat());
    assert!(!contains(&rig.to_server, "nosuch"));
}

#[test]
fn sql_names_inherit_and_unknown_ones_are_unknown() {
    let mut rig = Rig::open(Words::default());
    rig.client(&query("execute p"));
    assert!(contains(&rig.to_server, "@denied by policy default"));
    rig.server(&[server_error("ERROR", "42601", "x"), ready(b'I')].concat());
    rig.client(&query("prepare p as delete from x"));
    // Preparing a delete asks like the delete: the text says it.
    assert_eq!(rig.asked.len(), 1);
    let question = rig.asked[0].clone();
    rig.event(Input::Answered(Answer {
        id: question.id,
        digest: question.digest,
        granted: true,
        approver: "a".into(),
        reason: String::new(),
    }));
    rig.server(&[complete("PREPARE"), ready(b'I')].concat());
    rig.clear();
    rig.client(&query("execute p"));
    assert_eq!(rig.desk.records[0].effects, ["delete"]);
    assert_eq!(rig.to_server, query("execute p"));
}

#[test]
fn a_replaced_name_that_the_server_did_not_replace_keeps_its_meaning() {
    let mut rig = Rig::open(Words::default());
    rig.client(&[parse("s", "insert 1"), sync()].concat());
    rig.server(&[tagged(b'1'), ready(b'I')].concat());
    rig.client(&[parse("s", "select 1"), sync()].concat());
    rig.server(&[server_error("ERROR", "42P05", "already exists"), ready(b'I')].concat());
    rig.clear();
    rig.client(&[bind("", "s", None), execute(""), sync()].concat());
    // Still the insert, under the act of its Parse.
    assert_eq!(tags(&rig.to_server), "BES");
    rig.server(&[tagged(b'2'), complete("INSERT 0 7"), ready(b'I')].concat());
    let outcome = rig.desk.records.last().unwrap();
    assert_eq!((outcome.rows, outcome.request_id.as_str()), (7, "5e55-1"));
}
