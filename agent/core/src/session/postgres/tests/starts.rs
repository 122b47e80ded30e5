//! Start-up, authentication, injection, cancel, and hostile first bytes.

use super::*;

#[test]
fn authentication_passes_in_order_and_plus_is_taken_out_of_the_offer() {
    let mut rig = Rig::new(Words::default());
    let hello = startup(&[("user", "ann"), ("database", "db"), ("options", "-c statement_timeout=5s")]);
    rig.client(&hello);
    assert_eq!(rig.to_server, hello);
    rig.server(&framed(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"));
    assert_eq!(rig.to_client, framed(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"));
    let first = framed(b'p', b"SCRAM-SHA-256\0\0\0\0\x01n");
    rig.client(&[first.clone(), query("select 1")].concat());
    assert_eq!(rig.to_server, [hello.clone(), first.clone()].concat());
    let end = [ok(), parameter("client_encoding", "UTF8"), framed(b'K', &[0; 8]), ready(b'I')].concat();
    rig.server(&end);
    assert!(rig.to_client.ends_with(&end));
    assert_eq!(rig.to_server, [hello, first, query("select 1")].concat());
    assert!(rig.desk.records.iter().all(|record| !record.statement.contains("SCRAM")));
}

#[test]
fn replication_and_settings_that_change_rights_are_refused() {
    for (pairs, code) in [
        (vec![("user", "a"), ("replication", "database")], "0A000"),
        (vec![("user", "a"), ("options", "-c role=drop")], "42501"),
        (vec![("user", "a"), ("options", "-O")], "08P01"),
    ] {
        let mut rig = Rig::new(Words::default());
        rig.client(&startup(&pairs));
        assert_eq!((rig.to_server.len(), rig.close), (0, Some(Close::Finish)));
        assert!(contains(&rig.to_client, code) && contains(&rig.to_client, "FATAL"));
    }
}

#[test]
fn hostile_first_bytes_end_in_a_protocol_error() {
    for bytes in
        [[0_u8, 0, 0, 0].as_slice(), &[0x80, 0, 0, 0], &[0x7f, 0xff, 0xff, 0xff], &[0, 0, 0x27, 0x11]]
    {
        let mut rig = Rig::new(Words::default());
        rig.client(bytes);
        assert!(contains(&rig.to_client, "08P01") && rig.close.is_some() && rig.to_server.is_empty());
    }
    let mut rig = Rig::new(Words::default());
    rig.client(&startup(&[("user", "ann")])[..9]);
    assert_eq!(rig.close, None);
    rig.event(Input::WorkloadClosed);
    assert!(contains(&rig.to_client, "08P01") && rig.to_server.is_empty());
}

#[test]
fn an_injected_login_shows_the_client_a_login_of_its_own() {
    let inject = Inject::Login {
        user: "rw".into(),
        password: SecretName { provider: "kv".into(), name: "pw".into() },
        clear_text: false,
    };
    let mut rig = Rig::with(Words::default(), Some(Arc::new(inject)));
    rig.client(&startup_version(196_610, &[("user", "ann"), ("application_name", "x"), ("_pq_.y", "1")]));
    let login = rig.login.clone().unwrap();
    assert_eq!((login.user.as_str(), rig.to_server.len()), ("rw", 0));
    assert_eq!(
        login.parameters,
        [("database".into(), "ann".into()), ("application_name".into(), "x".into())]
    );
    let messages = [parameter("client_encoding", "UTF8"), framed(b'K', &[0; 8]), ready(b'I')].concat();
    rig.event(Input::LoggedIn(messages.clone()));
    assert_eq!(tags(&rig.to_client), "vRSKZ");
    assert!(rig.to_client.ends_with(&messages));
    rig.client(&query("select 1"));
    assert_eq!(rig.to_server, query("select 1"));
}

#[test]
fn a_cancel_request_is_recorded_and_forwarded() {
    let mut rig = Rig::new(Words::default());
    let cancel = [16_u32, 80_877_102, 7, 8].map(u32::to_be_bytes).concat();
    rig.client(&cancel);
    assert_eq!(rig.to_server, cancel);
    assert_eq!(rig.desk.records[0].reason, "cancel request");
    rig.event(Input::ServerClosed);
    assert_eq!(rig.close, Some(Close::Finish));
    let mut rig = Rig::new(Words::default());
    rig.client(&[&[0, 0, 0, 12][..], &80_877_102_u32.to_be_bytes(), &[0; 4]].concat());
    assert!(rig.to_server.is_empty() && rig.close.is_some());
}

#[test]
fn an_overlong_password_is_a_violation() {
    let mut rig = Rig::new(Words::default());
    rig.client(&startup(&[("user", "ann")]));
    rig.server(&framed(b'R', &[0, 0, 0, 3]));
    rig.clear();
    rig.client(&[b'p', 0, 2, 0, 0]);
    assert!(contains(&rig.to_client, "08P01") && rig.to_server.is_empty());
}

#[test]
fn a_failed_dial_is_a_reset() {
    let mut rig = Rig::new(Words::default());
    rig.client(&startup(&[("user", "ann")]));
    rig.event(Input::ServerClosed);
    assert_eq!(rig.close, Some(Close::Reset));
}

#[test]
fn a_database_that_no_policy_targets_is_refused_before_the_server_is_dialled() {
    let mut rig = Rig::new(Words::default());
    rig.client(&startup(&[("user", "app"), ("database", "forbidden")]));
    assert_eq!((rig.to_server.len(), rig.close), (0, Some(Close::Finish)));
    assert!(contains(&rig.to_client, "42501"));
    assert!(rig.desk.records.iter().any(|record| record.decision == Decision::Denied));
}
