//! The positive control of everything else: without weir, unmodified clients reach the lab's servers and see real values.

use std::process::Command;

use weir_tests::{Lab, Postgres, Web, agent::done};

#[test]
fn without_weir_clients_see_real_values() {
    let lab = Lab::new("control").unwrap();
    let postgres = Postgres::start(&lab, weir_tests::postgres::Options::default()).unwrap();
    assert_eq!(postgres.admin("shop", "SELECT ssn FROM customers WHERE id = 1").unwrap(), "219-45-6789");
    assert_eq!(postgres.admin("shop", "SELECT count(*) FROM orders").unwrap(), "30");

    let web = Web::start(&lab).unwrap();
    let url = format!("http://127.0.0.1:{}/customers", web.port);
    let answer = done(Command::new("curl").args(["-sS", &url]).output().unwrap()).unwrap();
    assert!(answer.out.contains("ada@example.com"), "{answer:?}");
    let url = format!("https://127.0.0.1:{}/whoami", web.tls_port);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-H", "Authorization: Bearer own", &url]).arg("--cacert").arg(&web.ca);
    let answer = done(curl.output().unwrap()).unwrap();
    assert!(answer.out.contains("Bearer own"), "{answer:?}");
    weir_tests::process::until("the access log is written", || {
        web.seen().is_ok_and(|seen| seen.contains("GET /whoami 200 auth=\"Bearer own\""))
    })
    .unwrap();
}
