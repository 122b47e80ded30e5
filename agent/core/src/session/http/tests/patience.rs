//! Slow workloads, in virtual time.

use super::stand::{FakeJudge, Stand};
use super::{BODY, get, ok, post};
use crate::limits::{HTTP_BODY_BYTE_NS, HTTP_BODY_NS, HTTP_HEAD_NS};
use crate::session::{Close, Input};

/// Sleeps as the rim does: until the session wants to be woken.
fn wake(stand: &mut Stand) {
    stand.now = stand.out.wake_at.expect("a time to wake at");
    stand.input(Input::Tick);
}

#[test]
fn a_head_that_does_not_end_is_ended() {
    let mut stand = Stand::new(FakeJudge::default());
    assert_eq!(stand.out.wake_at, None, "silence is not a head");
    stand.now = 7;
    stand.workload("GET / HTTP/1.1\r\nHost: a\r\n");
    assert_eq!(stand.out.wake_at, Some(7 + HTTP_HEAD_NS));
    // A line now and then buys no time.
    for line in 1..10 {
        stand.now = line * HTTP_HEAD_NS / 10;
        stand.workload("X: y\r\n").input(Input::Tick);
    }
    assert_eq!((stand.down().as_str(), stand.out.wake_at), ("", Some(7 + HTTP_HEAD_NS)));
    wake(&mut stand);
    assert!(stand.down().starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{}", stand.down());
    assert!(stand.down().contains("did not end within 30 s"), "{}", stand.down());
    assert_eq!(stand.story(), ["verdict denied", "outcome denied 408"]);
    assert!(stand.ledger.records[0].reason.contains("30 s"));
    assert_eq!((stand.up().as_str(), stand.out.close, stand.out.wake_at), ("", Some(Close::Finish), None));
}

#[test]
fn idle_connections_have_all_the_time_they_want() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get("/1"));
    assert_eq!(stand.out.wake_at, None, "the server may take its time");
    stand.server(ok("one"));
    assert_eq!(stand.out.wake_at, None);
    stand.now = 100 * HTTP_HEAD_NS;
    stand.input(Input::Tick).workload(get("/2")).server(ok("two"));
    assert_eq!((stand.up(), stand.out.close), (get("/1") + &get("/2"), None));
}

#[test]
fn each_head_has_its_own_time() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload("GET /1 HTTP/1.1\r\n");
    stand.now = HTTP_HEAD_NS - 1;
    stand.workload("Host: a\r\n\r\nGET /2 HTTP/1.1\r\n");
    assert_eq!(stand.out.wake_at, Some(2 * HTTP_HEAD_NS - 1));
    wake(&mut stand);
    assert_eq!(stand.down(), "", "the first is answered first");
    stand.server(ok("one"));
    assert!(stand.down().starts_with(&ok("one")) && stand.down().contains("HTTP/1.1 408 "));
}

#[test]
fn a_body_that_weir_holds_must_come_at_a_bearable_rate() {
    let whole = post("/", "text/plain", &"x".repeat(100_000));
    let (first, rest) = whole.split_at(50_100);
    let body = 50_100 - (whole.len() - 100_000);
    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    stand.workload(first);
    assert_eq!(stand.out.wake_at, Some(HTTP_BODY_NS + body as u64 * HTTP_BODY_BYTE_NS));
    stand.now = HTTP_BODY_NS;
    stand.workload(rest);
    assert_eq!((stand.up(), stand.out.wake_at), (whole.clone(), None));

    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    stand.workload(first);
    wake(&mut stand);
    assert!(stand.down().starts_with("HTTP/1.1 408 "), "{}", stand.down());
    assert_eq!(stand.story(), ["verdict denied", "outcome denied 408"]);
    assert_eq!((stand.up().as_str(), stand.out.close), ("", Some(Close::Finish)));
}

#[test]
fn a_body_that_streams_holds_nothing_and_may_stall() {
    let mut stand = Stand::new(FakeJudge::default());
    let whole = post("/", "text/plain", "hello");
    stand.workload(&whole[..whole.len() - 1]);
    assert_eq!((stand.up().as_str(), stand.out.wake_at), (&whole[..whole.len() - 1], None));
}

#[test]
fn a_refusal_does_not_wait_for_a_body_that_never_comes() {
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload("POST /deny HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell");
    assert_eq!(stand.down(), "");
    wake(&mut stand);
    assert!(stand.down().starts_with("HTTP/1.1 403 ") && stand.down().contains("Connection: close"));
    assert_eq!(stand.out.close, Some(Close::Finish));
}

#[test]
fn who_waits_for_an_invitation_is_not_late() {
    let mut stand = Stand::new(FakeJudge { needs: BODY, ..FakeJudge::default() });
    stand.workload(get("/first"));
    let second = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    stand.workload(second);
    assert_eq!(stand.out.wake_at, None);
    stand.now = 9;
    stand.server(ok("one"));
    assert_eq!(stand.out.wake_at, Some(9 + HTTP_BODY_NS));
}
