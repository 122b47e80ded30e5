//! Paths that servers read differently: forwarded as they came, judged in every reading, recorded as sent.

use alloc::format;

use super::stand::{FakeJudge, SECRET, Stand};
use super::{get, masks, ok};

#[test]
fn doubtful_paths_are_forwarded_and_recorded_as_they_came() {
    let mut stand = Stand::new(FakeJudge::default());
    for path in ["/@scope%2fname", "/a%20b/./c", "/x\\y", "/a;v=1"] {
        stand.workload(get(path)).server(ok("x"));
        assert!(stand.up().ends_with(&get(path)), "{path}: {}", stand.up());
        assert_eq!(stand.ledger.records.last().unwrap().path, path);
    }
    assert!(stand.story().iter().all(|line| !line.contains("denied")), "{:?}", stand.story());
}

#[test]
fn rows_hold_no_protected_value_however_the_path_hides_it() {
    for path in [
        format!("/c/{SECRET}"),
        format!("/c/{}", SECRET.replace('4', "%34")),
        // Dot segments take it away from the normal form, not from what is sent.
        format!("/{SECRET}/../x"),
        format!("/{SECRET}%2f..%2fx"),
    ] {
        let mut stand = Stand::new(FakeJudge::default());
        stand.workload(get(&path));
        let row = &stand.ledger.records[0].path;
        assert!(row.contains("[CARD]") && !row.contains(SECRET) && !row.contains("%34111"), "{path}: {row}");
        // Under a mask it may not leave.
        let mut stand = Stand::new(masks());
        stand.workload(get(&path));
        assert_eq!(stand.up(), "", "{path}");
        assert!(stand.down().contains("the path holds a protected value"), "{path}: {}", stand.down());
    }
}

#[test]
fn an_approver_sees_the_path_as_sent_and_as_it_may_be_read() {
    for (path, summary) in [
        ("/approve/x", "GET 10.0.0.1/approve/x"),
        (
            "/approve/..%2fadmin?x=1",
            "GET 10.0.0.1/approve/..%2fadmin?x=1 (read as /approve/..%2Fadmin or /admin)",
        ),
        ("/%61pprove%0a", "GET 10.0.0.1/%61pprove%0a (read as /approve\\n)"),
    ] {
        let mut stand = Stand::new(FakeJudge::default());
        stand.workload(get(path));
        assert_eq!(stand.asked[0].summary, summary);
    }
    let mut stand = Stand::new(FakeJudge::default());
    stand.workload(get(&format!("/approve%2f{SECRET}")));
    assert!(!stand.asked[0].summary.contains(SECRET), "{}", stand.asked[0].summary);
}
