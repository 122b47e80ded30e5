//! Whole conversations against a judge, a ledger and a rim of the tests' own.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use self::stand::{CREDENTIAL, FakeJudge, SECRET, Stand, opening};
use crate::approval::Answer;
use crate::audit::Durability;
use crate::destination::Evidence;
use crate::limits::{HTTP_BODY_BYTES, HTTP_DRAIN_BYTES, HTTP_PIPELINE, QUEUE_BYTES};
use crate::mask::Mask;
use crate::policy::Needs;
use crate::session::{Close, Input};

mod paths;
mod patience;
mod stand;

const BODY: Needs = Needs { request_body: true, response_body: false, catalog: false };
const ANSWER: Needs = Needs { request_body: false, response_body: true, catalog: false };

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 10.0.0.1\r\n\r\n")
}

fn post(path: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn typed(kind: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nETag: \"x\"\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn masks() -> FakeJudge {
    FakeJudge { request_masks: true, response_masks: true, needs: BODY, ..FakeJudge::default() }
}

fn responses() -> FakeJudge {
    FakeJudge { response_masks: true, ..FakeJudge::default() }
}

#[test]
fn an_allowed_exchange_is_relayed_byte_for_byte_with_two_records() {
    let mut stand = Stand::new(FakeJudge::default());
    let request = post("/a?b=c", "text/plain", "hello");
    let answer = ok("world");
    stand.workload(&request);
    assert_eq!(stand.up(), request);
    assert_eq!(stand.story(), ["verdict allowed"], "the verdict is written before the answer");
    stand.now = 5_000;
    stand.server(&answer);
    assert_eq!(stand.down(), answer);
    assert_eq!(stand.story(), ["verdict allowed", "outcome allowed 200"]);
    let [verdict, outcome] = stand.ledger.records.as_slice() else { panic!() };
    assert_eq!(verdict.request_id, "5e55-1");
    assert_eq!(verdict.request_id, outcome.request_id);
    assert_eq!(
        (verdict.method.as_str(), verdict.path.as_str(), verdict.host.as_str()),
        ("POST", "/a?b=c", "a")
    );
    assert_eq!(verdict.policy_commit, "c0ffee");
    assert_eq!(outcome.bytes_up, request.len() as u64);
    assert_eq!(outcome.upstream_bytes, request.len() as u64);
    assert_eq!(outcome.bytes_down, answer.len() as u64);
    assert_eq!(outcome.duration_us, 5);
    assert_eq!(stand.out.close, None);
}

#[test]
fn a_denial_is_json_reaches_no_server_and_leaves_the_connection_usable() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(post("/deny", "text/plain", "hello")).workload(get("/next"));
    assert_eq!(stand.up(), get("/next"));
    let down = stand.down();
    let (head, body) = down.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    assert!(!head.contains("close"), "{head}");
    let error: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = serde_json::json!({"error": {"type": "weir_denied", "rule": "rule", "message": "not \"here\"\n", "id": "5e55-1"}});
    assert_eq!(error, expected);
    assert_eq!(stand.story(), ["verdict denied", "outcome denied 403", "verdict allowed"]);
    assert_eq!(stand.ledger.records[1].upstream_bytes, 0);
}

#[test]
fn answers_keep_the_order_of_their_requests() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload([get("/1"), get("/deny"), get("/3")].concat());
    assert_eq!(stand.up(), get("/1") + &get("/3"));
    assert_eq!(stand.down(), "", "the denial waits for the answer before it");
    stand.server(ok("one") + &ok("three"));
    let down = stand.down();
    let positions: Vec<_> =
        ["one", "weir_denied", "three"].iter().map(|text| down.find(text).unwrap()).collect();
    assert!(positions.is_sorted(), "{down}");
}

#[test]
fn a_large_refused_body_ends_the_connection_and_a_small_one_is_drained() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(format!(
        "POST /deny HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        HTTP_DRAIN_BYTES + 1
    ));
    assert!(stand.down().contains("Connection: close"));
    assert_eq!(stand.out.close, Some(Close::Finish));

    let mut stand = Stand::new(FakeJudge::default());
    stand.workload("POST /deny HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n");
    assert_eq!(stand.down(), "");
    stand.workload("\r\n").workload(get("/next"));
    assert!(stand.down().contains("403"));
    assert_eq!(stand.up(), get("/next"));

    let mut stand = Stand::new(FakeJudge::default());
    stand.workload("POST /deny HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..=HTTP_DRAIN_BYTES / 0x8000 {
        stand.workload(["8000\r\n", &"x".repeat(0x8000), "\r\n"].concat());
    }
    assert!(stand.down().contains("Connection: close"));
    assert_eq!((stand.up().as_str(), stand.out.close), ("", Some(Close::Finish)));
}

#[test]
fn a_denied_head_gets_a_head_only() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload("HEAD /deny HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(
        stand.down().starts_with("HTTP/1.1 403") && stand.down().ends_with("\r\n\r\n"),
        "{}",
        stand.down()
    );
}

#[test]
fn malformed_requests_are_answered_recorded_and_the_last() {
    for (text, status) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET /%00a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("GET /\nHost: a\n\n", 400),
    ] {
        let mut stand = Stand::new(FakeJudge::default());
        stand.workload([text, &get("/smuggled")].concat());
        assert!(stand.down().starts_with(&format!("HTTP/1.1 {status} ")), "{text:?}: {}", stand.down());
        assert_eq!(stand.up(), "", "{text:?}");
        assert_eq!(stand.out.close, Some(Close::Finish));
        assert_eq!(stand.story(), ["verdict denied".to_string(), format!("outcome denied {status}")]);
    }
}

#[test]
fn what_weir_cannot_follow_is_refused_with_its_reason() {
    for (text, status, reason) in [
        ("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", 403, "CONNECT"),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 403, "upgrades"),
        ("GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 421, "scheme"),
    ] {
        let mut stand = Stand::new(FakeJudge::default());
        stand.workload(text);
        assert!(stand.down().starts_with(&format!("HTTP/1.1 {status} ")), "{}", stand.down());
        assert!(stand.down().contains(reason) && stand.down().contains("weir_refused"), "{}", stand.down());
        assert_eq!(stand.up(), "");
    }
}

#[test]
fn offers_of_h2c_are_left_out() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, X\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    );
    assert_eq!(stand.up(), "GET / HTTP/1.1\r\nHost: a\r\nConnection: X\r\n\r\n");
    stand.server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\nraw");
    assert!(stand.down().starts_with("HTTP/1.1 502 "), "{}", stand.down());
}

#[test]
fn under_tls_the_host_must_be_the_proved_name() {
    let names = [("api.example", Evidence::Certificate), ("other.example", Evidence::LookedUp)];
    for (host, status) in [
        ("api.example", None),
        ("API.EXAMPLE.:443", None),
        ("10.0.0.1", None),
        ("other.example", Some(421)),
        ("evil.example", Some(421)),
    ] {
        let mut stand = Stand::with(FakeJudge::default(), opening(&names, true));
        stand.workload(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        match status {
            None => assert!(stand.down().is_empty() && !stand.up().is_empty(), "{host}"),
            Some(status) => assert!(stand.down().starts_with(&format!("HTTP/1.1 {status} ")), "{host}"),
        }
    }
}

#[test]
fn a_strict_record_is_on_the_disk_before_a_byte_leaves() {
    let judge = FakeJudge { durability: Durability::Strict, ..FakeJudge::default() };
    let mut stand = Stand::new(judge);
    // The stand answers after the wake: what was sent in that wake is what left without the record.
    let request = post("/", "text/plain", "hello");
    let now = crate::session::Now { wall_ns: 0, mono_ns: 0 };
    let judge = stand.judge.clone();
    let mut wake = super::Wake { now, host: &mut stand.ledger, judge: &judge, out: &mut stand.out };
    let taken = stand.conversation.advance(&mut wake, Input::Workload(request.as_bytes()));
    assert!(stand.out.to_server.is_empty() && stand.out.pause_workload && stand.out.pause_server);
    assert!(taken < request.len(), "the body waits at the rim");
    stand.workload(&request[taken..]);
    assert_eq!(stand.up(), request);
    stand.server(ok("x")).workload(get("/deny"));
    assert_eq!(
        stand.story(),
        ["verdict allowed", "outcome allowed 200", "verdict denied", "outcome denied 403"]
    );
}

#[test]
fn a_ledger_that_cannot_be_written_lets_nothing_pass() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.ledger.full = true;
    stand.workload(get("/"));
    assert_eq!(stand.up(), "");
    assert!(stand.down().starts_with("HTTP/1.1 503 ") && stand.down().contains("weir_failed"));
    let mut stand = Stand::new(FakeJudge { durability: Durability::Strict, ..FakeJudge::default() });
    let now = crate::session::Now { wall_ns: 0, mono_ns: 0 };
    let judge = stand.judge.clone();
    let mut wake = super::Wake { now, host: &mut stand.ledger, judge: &judge, out: &mut stand.out };
    stand.conversation.advance(&mut wake, Input::Workload(get("/").as_bytes()));
    stand.conversation.advance(&mut wake, Input::Recorded(Err("disk".into())));
    assert!(wake.out.to_server.is_empty());
    assert!(String::from_utf8_lossy(wake.out.to_workload.as_slice()).starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_body_that_a_rule_reads_is_held_judged_and_forwarded_as_it_came() {
    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    stand.workload(head).workload("3;x=y\r\nbad\r\n");
    assert_eq!(stand.up(), "");
    stand.workload("4\r\nwood\r\n0\r\nX-T: 1\r\n\r\n");
    assert_eq!(stand.up(), [head, "3;x=y\r\nbad\r\n4\r\nwood\r\n0\r\nX-T: 1\r\n\r\n"].concat());
    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    stand.workload(head).workload("3\r\nbad\r\n4\r\nword\r\n0\r\n\r\n").workload(get("/next"));
    assert!(stand.down().contains("weir_denied"), "a word split over chunks is one word");
    assert_eq!(stand.up(), get("/next"));
}

#[test]
fn held_bodies_are_bounded_and_must_be_readable() {
    for (fields, status) in [
        (format!("Content-Length: {}\r\n", HTTP_BODY_BYTES + 1), 413),
        ("Content-Length: 5\r\nContent-Encoding: gzip\r\n".into(), 403),
        ("Content-Length: 5\r\nContent-Type: application/json; charset=\"UTF-16\"\r\n".into(), 403),
    ] {
        let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
        stand.workload(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\nhello"));
        assert!(stand.down().starts_with(&format!("HTTP/1.1 {status} ")), "{fields}: {}", stand.down());
        assert_eq!(stand.up(), "");
    }
    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    stand.workload("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = ["100000\r\n", &"x".repeat(0x100000), "\r\n"].concat();
    for _ in 0..8 {
        stand.workload(&chunk);
    }
    assert!(stand.down().starts_with("HTTP/1.1 413 "), "{}", stand.down());
    assert_eq!(stand.up(), "");
}

#[test]
fn expectations_are_met_by_whoever_reads_the_body() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    stand.workload(head);
    assert_eq!((stand.up().as_str(), stand.down().as_str()), ("", "HTTP/1.1 100 Continue\r\n\r\n"));
    stand.workload("hello");
    assert_eq!(stand.up(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");

    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(head).server("HTTP/1.1 100 Continue\r\n\r\n").workload("hello").server(ok("x"));
    assert_eq!(stand.up(), [head, "hello"].concat());
    assert_eq!(stand.down(), ["HTTP/1.1 100 Continue\r\n\r\n", &ok("x")].concat());

    // Told no, the client may send its next request where the server waits for a body: nothing more may pass.
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(head).server("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n").workload(get("/smuggled"));
    assert_eq!((stand.up().as_str(), stand.out.close), (head, Some(Close::Finish)));

    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(head.replace("POST /", "POST /deny"));
    assert!(stand.down().contains("Connection: close"));
}

#[test]
fn an_approved_request_leaves_exactly_as_it_was_shown() {
    let mut stand =
        Stand::new(FakeJudge { durability: Durability::Strict, inject: true, ..FakeJudge::default() });
    let request = post("/approve?x=1", "text/plain", "hello");
    stand.workload(&request);
    assert_eq!((stand.up().as_str(), stand.down().as_str()), ("", ""));
    let question = stand.asked[0].clone();
    assert_eq!(question.digest, <[u8; 32]>::from(Sha256::digest(request.as_bytes())));
    assert_eq!(question.summary, "POST a/approve?x=1");
    assert_eq!(stand.out.wake_at, Some(1_000));
    stand.input(Input::Answered(Answer {
        id: question.id.clone(),
        digest: [9; 32],
        granted: true,
        approver: "mallory".into(),
        reason: String::new(),
    }));
    assert_eq!(stand.up(), "", "an answer for other bytes changes nothing");
    stand.answer(true);
    let authorised = request.replace("\r\n\r\n", &format!("\r\nAuthorization: Bearer {CREDENTIAL}\r\n\r\n"));
    assert_eq!(stand.up(), authorised);
    stand.server(ok("x"));
    assert_eq!(stand.story(), ["approval held", "verdict approved", "outcome approved 200"]);
    assert_eq!(stand.ledger.records[1].approver, "bob");
}

#[test]
fn a_held_request_that_is_not_approved_is_refused() {
    let held = || {
        let mut stand = Stand::new(FakeJudge::default());
        stand.workload(get("/approve"));
        assert_eq!(stand.asked.len(), 1);
        stand
    };
    let mut stand = held();
    stand.answer(false).workload(get("/next"));
    assert!(stand.down().contains("weir_denied"));
    assert_eq!(stand.up(), get("/next"));

    let mut stand = held();
    stand.now = 999;
    stand.input(Input::Tick);
    assert_eq!(stand.down(), "");
    stand.now = 1_000;
    stand.input(Input::Tick);
    assert!(stand.down().contains("weir_expired") && stand.out.withdraw);
    assert_eq!(stand.story(), ["approval held", "verdict expired", "outcome expired 403"]);

    let mut stand = held();
    stand.input(Input::WorkloadClosed);
    assert!(stand.out.withdraw);
    assert_eq!((stand.up().as_str(), stand.out.close), ("", Some(Close::Finish)));

    let mut stand = held();
    stand.input(Input::ServerClosed);
    assert!(stand.out.withdraw && stand.down().contains("weir_bad_gateway"));
    assert_eq!(stand.out.close, Some(Close::Finish));
}

#[test]
fn credentials_replace_the_clients_own_and_stay_out_of_records() {
    let mut stand = Stand::new(FakeJudge { inject: true, ..FakeJudge::default() });
    stand.workload("GET / HTTP/1.1\r\nHost: a\r\nauthorization: mine\r\nX: y\r\n\r\n").server(ok("x"));
    assert_eq!(
        stand.up(),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nAuthorization: Bearer {CREDENTIAL}\r\n\r\n")
    );
    let seen = format!("{:?} {:?}", stand.ledger.records, stand.conversation);
    assert!(!seen.contains(CREDENTIAL));

    let mut stand = Stand::new(FakeJudge { inject: true, ..FakeJudge::default() });
    stand.ledger.no_secret = true;
    stand.workload(post("/", "text/plain", "hello")).workload(get("/deny"));
    assert!(stand.down().starts_with("HTTP/1.1 503 "), "{}", stand.down());
    assert_eq!(stand.up(), "");
    let mut stand = Stand::new(FakeJudge { inject: true, ..FakeJudge::default() });
    stand.workload("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(stand.up().is_empty() && stand.down().contains("TRACE"));
}

#[test]
fn json_is_masked_value_by_value() {
    let mut stand = Stand::new(masks());
    let body = format!(
        "{{ \"a\" : \"x\\u0041 {SECRET}\\n\", \"ssn\":123, \"n\":1.50e1, \"o\":[{{\"ssn\":{{\"deep\":true,\"no\":null}}}}], \"ssn\":\"\", \"{SECRET}\":0 }}"
    );
    let expected = "{ \"a\" : \"xA [CARD]\\n\", \"ssn\":\"[SSN]\", \"n\":1.50e1, \"o\":[{\"ssn\":{\"deep\":\"[SSN]\",\"no\":null}}], \"ssn\":\"[SSN]\", \"[CARD]\":0 }";
    stand.workload(post("/", "application/json", &body));
    let length = expected.len();
    let up = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nAccept-Encoding: identity\r\n\r\n{expected}"
    );
    assert_eq!(stand.up(), up);
    stand.server(typed("application/json; charset=utf-8", &body));
    let down = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{expected}"
    );
    assert_eq!(stand.down(), down);
    assert_eq!(stand.story(), ["verdict masked", "outcome masked 200"]);
    assert_eq!(stand.ledger.records[1].masked.get("card"), Some(&4));
    assert_eq!(stand.ledger.records[1].masked.get("ssn"), Some(&6));
}

#[test]
fn nullified_values_become_null() {
    let mut stand = Stand::new(FakeJudge { mask: Some(Mask::Nullify), ..responses() });
    stand.workload(get("/"));
    stand.server(typed("application/json", &format!("[\"{SECRET}\",{{\"ssn\":1}},\"a {SECRET}\"]")));
    assert!(stand.down().ends_with("\r\n\r\n[null,{\"ssn\":null},\"a \"]"), "{}", stand.down());
}

#[test]
fn forms_text_and_queries_are_masked() {
    let mut stand = Stand::new(masks());
    let encoded = SECRET.replace('-', "%2D");
    stand.workload(post(
        &format!("/p?q={encoded}&keep=%61+b"),
        "application/x-www-form-urlencoded",
        &format!("a=%62&ssn=1&b={encoded}&c"),
    ));
    let up = stand.up();
    assert!(up.starts_with("POST /p?q=%5BCARD%5D&keep=%61+b HTTP/1.1\r\n"), "{up}");
    assert!(up.ends_with("\r\n\r\na=%62&ssn=%5BSSN%5D&b=%5BCARD%5D&c"), "{up}");
    assert_eq!(stand.ledger.records[0].path, "/p?q=[CARD]&keep=%61+b");
    stand.server(typed("text/html", &format!("<p>{SECRET}</p>")));
    assert!(stand.down().ends_with("Content-Length: 13\r\n\r\n<p>[CARD]</p>"), "{}", stand.down());

    let mut stand = Stand::new(masks());
    stand.workload(get(&format!("/u/{SECRET}")));
    assert!(stand.up().is_empty() && stand.down().contains("the path holds a protected value"));
    assert_eq!(stand.ledger.records[0].path, "/u/[CARD]");
}

#[test]
fn bodies_without_protected_values_pass_as_they_came() {
    let mut stand = Stand::new(masks());
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n";
    stand.workload([head, "\r\n2\r\nab\r\n0\r\n\r\n"].concat());
    assert_eq!(stand.up(), [head, "Accept-Encoding: identity\r\n\r\n2\r\nab\r\n0\r\n\r\n"].concat());
    let answer = "HTTP/1.1 200 OK\r\nETag: x\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    stand.server(answer);
    assert_eq!(stand.down(), answer);
    assert_eq!(stand.story(), ["verdict masked", "outcome masked 200"]);
}

#[test]
fn secrets_split_over_chunks_are_masked() {
    let mut stand = Stand::new(responses());
    let (one, two) = SECRET.split_at(4);
    stand.workload(get("/"));
    stand.server(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    ));
    assert_eq!(
        stand.down(),
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\n[CARD]"
    );
}

#[test]
fn answers_that_a_mask_cannot_read_are_withheld() {
    for (fields, body, reason) in [
        ("Content-Type: application/json\r\nContent-Encoding: gzip\r\n", "{}", "asked not to"),
        ("Content-Type: application/octet-stream\r\n", "ab", "type"),
        ("", "ab", "type"),
        ("Content-Type: text/event-stream\r\n", "data: x\n\n", "ask for a whole answer"),
        ("Content-Type: application/json\r\n", "{\"a\":", "malformed"),
        ("Content-Type: application/json\r\n", "\"\\ud800\"", "malformed"),
        ("Content-Type: text/plain; charset=utf-16\r\n", "ab", "character set"),
        ("Content-Type: text/plain\r\n", "a\0b\0", "character set"),
    ] {
        let mut stand = Stand::new(responses());
        stand.workload(get("/"));
        stand.server(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()));
        assert!(stand.down().starts_with("HTTP/1.1 502 "), "{fields}: {}", stand.down());
        assert!(
            stand.down().contains("weir_refused") && stand.down().contains(reason),
            "{fields}: {}",
            stand.down()
        );
        // It names the rule that wants to read, not the one that admitted the request.
        assert!(stand.down().contains("read because of hide\""), "{}", stand.down());
        assert!(stand.ledger.records.last().unwrap().reason.contains(reason));
        assert_eq!(stand.out.close, Some(Close::Finish));
    }
    let mut stand = Stand::new(responses());
    stand
        .workload(get("/"))
        .server("HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nab");
    assert!(stand.down().starts_with("HTTP/1.1 502 "));
    let mut stand = Stand::new(responses());
    let empty = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 0\r\n\r\n";
    stand.workload(get("/")).server(empty);
    assert_eq!(stand.down(), empty);
}

#[test]
fn under_masks_clients_cannot_ask_for_codings_or_slices() {
    let mut stand = Stand::new(responses());
    stand.workload("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nRange: bytes=0-1\r\nIf-Range: x\r\nX: y\r\n\r\n");
    assert_eq!(stand.up(), "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nAccept-Encoding: identity\r\n\r\n");
    // Only there: what nothing has to read may come as it likes.
    let mut stand = Stand::new(FakeJudge::default());
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, deflate\r\n\r\n";
    stand.workload(request);
    assert_eq!(stand.up(), request);
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxy";
    stand.server(answer);
    assert_eq!(stand.down(), answer);
}

#[test]
fn response_rules_deny_before_the_client_sees_a_byte() {
    let mut stand = Stand::new(FakeJudge { needs: ANSWER, ..FakeJudge::default() });
    stand.workload(get("/1")).server(ok("a badword here")).workload(get("/2")).server(ok("fine"));
    assert!(stand.down().starts_with("HTTP/1.1 403 ") && !stand.down().contains("badword"));
    assert!(stand.down().ends_with(&ok("fine")));
    assert_eq!(
        stand.story(),
        ["verdict allowed", "outcome denied 403", "verdict allowed", "outcome allowed 200"]
    );
}

#[test]
fn alt_svc_never_reaches_the_client() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server("HTTP/1.1 200 OK\r\nalt-svc: h3=\":443\"\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(stand.down(), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
}

#[test]
fn monitor_mode_passes_and_says_what_it_would_have_done() {
    let mut stand = Stand::new(FakeJudge { monitor: true, ..FakeJudge::default() });
    stand.workload(get("/")).server(ok("x"));
    assert_eq!((stand.up(), stand.down()), (get("/"), ok("x")));
    assert_eq!(stand.story(), ["verdict woulddeny", "outcome woulddeny 200"]);
    assert_eq!(stand.ledger.records[0].rule, "strict");
}

#[test]
fn malformed_answers_become_502_or_a_cut() {
    let mut stand = Stand::new(FakeJudge::default());
    stand
        .workload(get("/"))
        .server("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx");
    assert!(stand.down().starts_with("HTTP/1.1 502 ") && stand.down().contains("weir_bad_gateway"));
    assert_eq!(stand.out.close, Some(Close::Finish));
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n");
    assert_eq!(stand.out.close, Some(Close::Reset));
}

#[test]
fn bytes_nobody_asked_for_reach_nobody() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.server(ok("x"));
    assert_eq!((stand.down().as_str(), stand.out.close), ("", Some(Close::Finish)));
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server(ok("x") + &ok("poison")).workload(get("/2"));
    assert_eq!((stand.down(), stand.out.close), (ok("x"), Some(Close::Finish)));
}

#[test]
fn ends_of_streams_are_kept_apart() {
    // Between requests: like the server.
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server(ok("x")).input(Input::ServerClosed);
    assert_eq!((stand.down(), stand.out.close), (ok("x"), Some(Close::Finish)));
    // A server that never spoke.
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).input(Input::ServerClosed);
    assert!(stand.down().starts_with("HTTP/1.1 502 "));
    assert_eq!(stand.out.close, Some(Close::Finish));
    // A reused connection: clients try again on another.
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server(ok("x")).workload(get("/2")).input(Input::ServerClosed);
    assert_eq!((stand.down(), stand.out.close), (ok("x"), Some(Close::Finish)));
    assert_eq!(stand.story().last().unwrap(), "outcome allowed");
    // A cut body.
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server(&ok("xyz")[..ok("xyz").len() - 1]).input(Input::ServerClosed);
    assert_eq!(stand.out.close, Some(Close::Reset));
    // A body that ends with its connection.
    let text = "HTTP/1.1 200 OK\r\n\r\nabc";
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server(text).input(Input::ServerClosed);
    assert_eq!((stand.down().as_str(), stand.out.close), (text, Some(Close::Finish)));
    // The same under a mask.
    let mut stand = Stand::new(responses());
    stand.workload(get("/"));
    stand
        .server(format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{SECRET}"))
        .input(Input::ServerClosed);
    assert!(stand.down().ends_with("Content-Length: 6\r\n\r\n[CARD]"), "{}", stand.down());
    // A cut body under a mask: nothing was sent yet.
    let mut stand = Stand::new(responses());
    stand
        .workload(get("/"))
        .server("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\nab");
    stand.input(Input::ServerClosed);
    assert!(stand.down().starts_with("HTTP/1.1 502 "));
    // The client's half-close after its request still gets the answer.
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).input(Input::WorkloadClosed);
    assert_eq!(stand.out.close, None);
    stand.server(ok("x"));
    assert_eq!((stand.down(), stand.out.close), (ok("x"), Some(Close::Finish)));
    // A request cut in its body is no request.
    let mut stand = Stand::new(FakeJudge::default());
    let request = post("/", "text/plain", "hello");
    stand.workload(&request[..request.len() - 1]).input(Input::WorkloadClosed);
    assert_eq!(stand.out.close, Some(Close::Reset));
    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    stand.workload(&request[..request.len() - 1]).input(Input::WorkloadClosed);
    assert_eq!((stand.up().as_str(), stand.out.close), ("", Some(Close::Finish)));
    // One cut in its head neither, and both leave their rows.
    for (before, reason) in [("", "of its first message"), (&*get("/"), "of a request head")] {
        let mut stand = Stand::new(FakeJudge::default());
        stand.workload(before).workload("GET /x HTTP/1.1\r\nHost").input(Input::WorkloadClosed);
        assert_eq!(stand.up(), before);
        if !before.is_empty() {
            stand.server(ok("x"));
        }
        assert_eq!(stand.out.close, Some(Close::Finish));
        assert_eq!(stand.story().last().unwrap(), "outcome denied 400");
        assert!(stand.ledger.records.last().unwrap().reason.ends_with(reason));
    }
    // Connection: close on either side.
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").server(ok("x"));
    assert_eq!(stand.out.close, Some(Close::Finish));
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/")).server("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(stand.out.close, Some(Close::Finish));
}

#[test]
fn an_answer_may_come_before_the_request_is_whole() {
    let mut stand = Stand::new(FakeJudge::default());
    let request = post("/", "text/plain", "hello");
    let (one, two) = request.split_at(request.len() - 2);
    stand.workload(one).server(ok("early"));
    assert_eq!((stand.down(), stand.out.close), (ok("early"), None));
    stand.workload(two).workload(get("/next"));
    assert_eq!(stand.up(), request + &get("/next"));
    assert_eq!(stand.story(), ["verdict allowed", "outcome allowed 200", "verdict allowed"]);
}

#[test]
fn pipelines_and_queues_are_bounded() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/").repeat(HTTP_PIPELINE + 5));
    assert_eq!(stand.up(), get("/").repeat(HTTP_PIPELINE));
    assert!(stand.out.pause_workload);
    stand.server(ok("x"));
    assert_eq!(stand.up(), get("/").repeat(HTTP_PIPELINE + 1));

    let mut stand = Stand::new(FakeJudge::default());
    let now = crate::session::Now { wall_ns: 0, mono_ns: 0 };
    let judge = stand.judge.clone();
    let mut wake = super::Wake { now, host: &mut stand.ledger, judge: &judge, out: &mut stand.out };
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 10 * QUEUE_BYTES);
    stand.conversation.advance(&mut wake, Input::Workload(head.as_bytes()));
    let bytes = vec![b'x'; QUEUE_BYTES];
    assert_eq!(stand.conversation.advance(&mut wake, Input::Workload(&bytes)), QUEUE_BYTES);
    assert!(wake.out.pause_workload);
    assert_eq!(stand.conversation.advance(&mut wake, Input::Workload(&bytes)), 0);
}

/// Requests and the answers of a server, as one script.
fn script() -> impl Strategy<Value = Vec<(String, String)>> {
    let body = prop_oneof![
        Just(String::new()),
        "[a-z]{1,40}",
        Just(format!("x {SECRET} y")),
        Just("a badword".into())
    ];
    let exchange = (body.clone(), body, any::<bool>(), any::<bool>(), 0..8u8).prop_map(
        |(up, down, chunk_up, chunk_down, kind)| {
            let framed = |chunked: bool, body: &str| match (chunked, body.is_empty()) {
                (true, true) => "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_string(),
                (true, false) => format!(
                    "Transfer-Encoding: chunked\r\n\r\n{:x};a\r\n{body}\r\n0\r\nT: x\r\n\r\n",
                    body.len()
                ),
                (false, _) => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
            };
            let path = if kind == 0 { "/deny" } else { "/a/./b?c=d" };
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n{}",
                framed(chunk_up, &up)
            );
            let interim = if kind == 1 { "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" } else { "" };
            let answer = format!(
                "{interim}HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{}",
                framed(chunk_down, &down)
            );
            (request, answer)
        },
    );
    prop::collection::vec(exchange, 1..6)
}

/// Everything a conversation made of its input: bytes both ways, the records, how it ended.
type Made = (String, String, Vec<String>, Option<Close>);

fn play(judge: &FakeJudge, exchanges: &[(String, String)], mut cut: impl FnMut(usize) -> usize) -> Made {
    let mut stand = Stand::new(judge.clone());
    let requests: String = exchanges.iter().map(|(request, _)| request.as_str()).collect();
    let mut feed = |stand: &mut Stand, bytes: &[u8], up: bool| {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, after) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
            if up {
                stand.workload(now)
            } else {
                stand.server(now)
            };
            rest = after;
        }
    };
    feed(&mut stand, requests.as_bytes(), true);
    // Only requests that reached the server are answered by it.
    let reached = stand.up().matches("POST ").count();
    let answers: String = exchanges
        .iter()
        .filter(|(request, _)| {
            !(request.contains("/deny") || judge.needs.request_body && request.contains("badword"))
        })
        .take(reached)
        .map(|(_, answer)| answer.as_str())
        .collect();
    feed(&mut stand, answers.as_bytes(), false);
    stand.input(Input::WorkloadClosed);
    let story = stand.ledger.records.iter().map(|record| format!("{record:?}")).collect();
    (stand.up(), stand.down(), story, stand.out.close)
}

proptest! {
    #[test]
    fn any_split_of_a_conversation_is_the_same_conversation(
        exchanges in script(),
        (request_masks, response_masks, hold, answer, strict) in any::<(bool, bool, bool, bool, bool)>(),
        cuts in prop::collection::vec(1..60usize, 1..20),
    ) {
        let judge = FakeJudge {
            needs: Needs { request_body: hold || request_masks, response_body: answer, catalog: false },
            request_masks,
            response_masks,
            durability: if strict { Durability::Strict } else { Durability::Fast },
            ..FakeJudge::default()
        };
        let whole = play(&judge, &exchanges, |left| left);
        let mut index = 0;
        let split = play(&judge, &exchanges, |_| { index += 1; cuts[index % cuts.len()] });
        prop_assert_eq!(&split, &whole);
        let bytewise = play(&judge, &exchanges, |_| 1);
        prop_assert_eq!(&bytewise, &whole);
        if request_masks {
            prop_assert!(!whole.0.contains(SECRET));
        }
        if response_masks {
            prop_assert!(!whole.1.contains(SECRET));
        }
        if answer {
            prop_assert!(!whole.1.contains("badword"));
        }
    }

    /// Without rules the bytes are the client's and the server's own.
    #[test]
    fn allow_all_changes_no_byte(exchanges in script(), cuts in prop::collection::vec(1..60usize, 1..20)) {
        let exchanges: Vec<_> = exchanges.into_iter().filter(|(request, _)| !request.contains("/deny")).collect();
        let mut index = 0;
        let made = play(&FakeJudge::default(), &exchanges, |_| { index += 1; cuts[index % cuts.len()] });
        prop_assert_eq!(made.0, exchanges.iter().map(|(request, _)| request.as_str()).collect::<String>());
        prop_assert_eq!(made.1, exchanges.iter().map(|(_, answer)| answer.as_str()).collect::<String>());
        prop_assert_eq!(made.2.len(), 2 * exchanges.len());
        prop_assert_eq!(made.3, Some(Close::Finish));
    }

    /// Damage anywhere: no panic, no protected value through a mask, and every byte sent was recorded before.
    #[test]
    fn damaged_conversations_end_closed(
        exchanges in script(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..4),
        closes in any::<(bool, bool)>(),
    ) {
        let mut up: Vec<u8> = exchanges.iter().flat_map(|(request, _)| request.bytes()).collect();
        let mut down: Vec<u8> = exchanges.iter().flat_map(|(_, answer)| answer.bytes()).collect();
        for (index, byte, upstream) in damage {
            let bytes = if upstream { &mut up } else { &mut down };
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let mut stand = Stand::new(FakeJudge { response_masks: true, ..FakeJudge::default() });
        for (up, down) in up.chunks(50).zip(down.chunks(50)) {
            stand.workload(up);
            prop_assert!(stand.upstream.is_empty() || !stand.ledger.records.is_empty());
            stand.server(down);
        }
        if closes.0 { stand.input(Input::ServerClosed); }
        if closes.1 { stand.input(Input::WorkloadClosed); }
        prop_assert!(!stand.down().contains(SECRET));
    }

    #[test]
    fn random_bytes_never_panic(pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)), 0..8)) {
        let mut stand = Stand::new(masks());
        for (up, bytes) in pieces {
            if up { stand.workload(bytes) } else { stand.server(bytes) };
        }
        prop_assert_eq!(stand.up(), "");
    }
}
