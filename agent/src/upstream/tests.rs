//! When a PostgreSQL leg gets TLS, what a server may answer to SSLRequest, what a dial and a cut stream say.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_core::policy::{Engine, TargetTls, TlsMode};

use super::postgres::{Plan, carry_out, plan};
use super::*;
use crate::tls::{Authority, LeafName, Leaves, Prefixed, Termination, Terminator};

#[test]
fn policy_loopback_and_purpose_decide_about_tls() {
    let asked = Purpose::Relay { client_asked: true };
    let silent = Purpose::Relay { client_asked: false };
    for (mode, loopback, purpose, expected) in [
        (TlsMode::Off, false, asked, Plan::Plain),
        (TlsMode::Off, false, Purpose::Login, Plan::Plain),
        (TlsMode::Verify, true, silent, Plan::Required),
        (TlsMode::Verify, false, silent, Plan::Required),
        (TlsMode::Auto, true, asked, Plan::Plain),
        (TlsMode::Auto, true, Purpose::Login, Plan::Plain),
        (TlsMode::Auto, false, asked, Plan::IfOffered),
        (TlsMode::Auto, false, silent, Plan::Plain),
        (TlsMode::Auto, false, Purpose::Login, Plan::Required),
    ] {
        assert_eq!(plan(mode, loopback, purpose), expected, "{mode:?} {loopback} {purpose:?}");
    }
}

/// A server that answers `answer` to SSLRequest, then waits.
async fn answering(answer: &'static [u8]) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request, [0, 0, 0, 8, 4, 210, 22, 47]);
        stream.write_all(answer).await.unwrap();
        if answer.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    });
    dial(address, &Origin::default()).await.unwrap()
}

async fn outcome(answer: &'static [u8], mode: TlsMode) -> Result<bool, PostgresError> {
    let connector = Connector::new(Trust::system(None));
    let tls = TargetTls { mode, ..TargetTls::default() };
    let purpose = Purpose::Relay { client_asked: true };
    postgres_leg(&connector, answering(answer).await, "db.example", &tls, purpose)
        .await
        .map(|leg| matches!(leg, PostgresLeg::Tls(_)))
}

#[tokio::test]
async fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    let fault = outcome(b"N", TlsMode::Verify).await.unwrap_err();
    assert!(matches!(fault, PostgresError::NoTls { .. }), "{fault}");
    assert!(fault.to_string().contains("mode: off"));
}

#[tokio::test]
async fn bytes_behind_the_answer_are_an_attack() {
    for answer in [b"SX".as_slice(), b"N\0\0", b"S\x16\x03\x03"] {
        let fault = outcome(answer, TlsMode::Verify).await.unwrap_err();
        assert!(matches!(fault, PostgresError::Smuggled { .. }), "{answer:?}: {fault}");
    }
}

#[tokio::test]
async fn other_answers_are_no_postgresql() {
    let fault = outcome(b"E", TlsMode::Verify).await.unwrap_err();
    assert!(matches!(fault, PostgresError::NotPostgres { .. }), "{fault}");
    let fault = outcome(b"", TlsMode::Verify).await.unwrap_err();
    assert!(matches!(fault, PostgresError::Lost { .. }), "{fault}");
}

#[tokio::test]
async fn a_client_that_was_content_with_plain_text_gets_what_the_server_has() {
    let connector = Connector::new(Trust::system(None));
    let tls = TargetTls::default();
    let leg =
        carry_out(Plan::IfOffered, &connector, answering(b"N").await, "db.example", &tls).await.unwrap();
    assert!(matches!(leg, PostgresLeg::Plain(_)));
    // A server that offers TLS and then does not prove itself is not used in plain text.
    let server = server();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = dial(listener.local_addr().unwrap(), &Origin::default()).await.unwrap();
    let far = async {
        let (mut accepted, _) = listener.accept().await.unwrap();
        accepted.read_exact(&mut [0; 8]).await.unwrap();
        accepted.write_all(b"S").await.unwrap();
        let name = LeafName::parse("db.example").unwrap();
        let how = Termination { name: &name, workload: "w", class: "1", alpn: &[] };
        server.terminator.accept(accepted, how).await
    };
    let (_, leg) = tokio::join!(far, carry_out(Plan::IfOffered, &connector, stream, "db.example", &tls));
    let fault = leg.unwrap_err();
    assert!(
        matches!(fault, PostgresError::Unverified(_)) && fault.to_string().contains("mode: off"),
        "{fault}"
    );
}

#[tokio::test]
async fn plain_text_on_loopback_asks_nothing() {
    let connector = Connector::new(Trust::system(None));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = dial(listener.local_addr().unwrap(), &Origin::default()).await.unwrap();
    let purpose = Purpose::Relay { client_asked: true };
    let leg = postgres_leg(&connector, stream, "127.0.0.1", &TargetTls::default(), purpose).await.unwrap();
    let PostgresLeg::Plain(wire) = leg else { panic!("{leg:?}") };
    let (mut server, _) = listener.accept().await.unwrap();
    drop(wire);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "no SSLRequest was sent");
}

#[tokio::test]
async fn a_failed_dial_keeps_its_errno() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let fault = dial(address, &Origin::default()).await.unwrap_err();
    assert_eq!(fault.errno(), libc::ECONNREFUSED, "{fault}");
    let foreign = Origin { source: Some("192.0.2.1".parse().unwrap()), ..Origin::default() };
    assert_eq!(dial(address, &foreign).await.unwrap_err().errno(), libc::EADDRNOTAVAIL);
}

#[tokio::test]
async fn the_workloads_source_address_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = Origin { source: Some("127.0.0.9".parse().unwrap()), ..Origin::default() };
    let stream = dial(listener.local_addr().unwrap(), &origin).await.unwrap();
    assert_eq!(stream.local_addr().unwrap().ip(), origin.source.unwrap());
    assert!(stream.nodelay().unwrap());
}

/// A server with a CA of its own, and the trust that knows it.
struct Server {
    _dir: tempfile::TempDir,
    terminator: Terminator,
    connector: Connector,
}

fn server() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let authority = std::sync::Arc::new(Authority::open_or_create(dir.path(), "server").unwrap());
    let connector = Connector::new(Trust::of([authority.certificate().clone()]));
    Server { _dir: dir, terminator: Terminator::new(Leaves::new(authority).unwrap()), connector }
}

impl Server {
    async fn pair(&self, engine: Engine, asked: &str) -> (Wire, Result<UpstreamTls, SecureError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(listener.local_addr().unwrap(), &Origin::default()).await.unwrap();
        let name = LeafName::parse("db.example").unwrap();
        let how = Termination { name: &name, workload: "w", class: "1", alpn: &[b"http/1.1"] };
        let (accepted, _) = listener.accept().await.unwrap();
        let tls = TargetTls { engine, name: "db.example".into(), ..TargetTls::default() };
        let (far, near) = tokio::join!(
            self.terminator.accept(Prefixed::new(Vec::new(), accepted), how),
            self.connector.secure(stream, asked, &tls, &[b"h2", b"http/1.1"]),
        );
        (Wire::from(far.unwrap()), near)
    }
}

#[cfg(feature = "boring")]
const ENGINES: &[Engine] = &[Engine::Rustls, Engine::Boring];
#[cfg(not(feature = "boring"))]
const ENGINES: &[Engine] = &[Engine::Rustls];

#[tokio::test]
async fn the_policys_name_comes_before_the_clients_and_the_protocol_is_told() {
    let server = server();
    for engine in ENGINES {
        let (mut far, near) = server.pair(*engine, "192.0.2.1").await;
        let mut near = near.unwrap();
        assert_eq!((near.name.as_str(), near.alpn.as_deref()), ("db.example", Some(b"http/1.1".as_slice())));
        assert!(near.wire.is_tls() && far.is_tls());
        near.wire.write_all(b"ping").await.unwrap();
        near.wire.flush().await.unwrap();
        let mut seen = [0; 4];
        far.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"ping", "{engine:?}");
    }
}

#[tokio::test]
async fn an_orderly_end_is_an_end_and_a_cut_is_an_error() {
    let server = server();
    for engine in ENGINES {
        for orderly in [true, false] {
            let (mut far, near) = server.pair(*engine, "db.example").await;
            let mut near = near.unwrap().wire;
            far.write_all(b"half").await.unwrap();
            far.flush().await.unwrap();
            if orderly {
                far.shutdown().await.unwrap();
            } else {
                // A FIN without close_notify: what somebody in between can forge.
                socket2::SockRef::from(far.tcp()).shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut all = Vec::new();
            let end = near.read_to_end(&mut all).await;
            assert_eq!(all, b"half");
            match end {
                Ok(_) => assert!(orderly, "{engine:?}: a cut looked like an end"),
                Err(fault) => assert!(!orderly && is_truncation(&fault), "{engine:?}: {fault}"),
            }
            // The other direction is still open (half-close).
            near.write_all(b"rest").await.unwrap();
            near.shutdown().await.unwrap();
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"rest", "{engine:?}");
        }
    }
}

#[tokio::test]
async fn a_reset_leg_resets_its_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = Wire::from(dial(listener.local_addr().unwrap(), &Origin::default()).await.unwrap());
    let (mut far, _) = listener.accept().await.unwrap();
    near.reset();
    let fault = far.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(fault.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_is_no_name_is_refused_before_a_byte_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = dial(listener.local_addr().unwrap(), &Origin::default()).await.unwrap();
    let connector = Connector::new(Trust::system(None));
    let fault = connector.secure(stream, "not a name", &TargetTls::default(), &[]).await.unwrap_err();
    assert!(matches!(fault, SecureError::Name(_)) && fault.to_string().contains("tls: {name"), "{fault}");
}

#[tokio::test]
async fn a_ca_file_that_is_unusable_refuses_the_leg() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.pem");
    std::fs::write(&empty, "no certificate here").unwrap();
    for ca in [dir.path().join("absent.pem"), empty] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = dial(listener.local_addr().unwrap(), &Origin::default()).await.unwrap();
        let tls = TargetTls { ca: ca.display().to_string(), ..TargetTls::default() };
        let fault =
            Connector::new(Trust::system(None)).secure(stream, "a.example", &tls, &[]).await.unwrap_err();
        assert!(matches!(fault, SecureError::Trust(_)) && fault.to_string().contains("tls.ca"), "{fault}");
    }
}
