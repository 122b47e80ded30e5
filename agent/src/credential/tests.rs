//! Secrets on disk, and what a hostile or broken server gets from a login: nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use weir_core::policy::SecretName;

use super::*;
use crate::config::SecretProvider;

fn named(provider: &str, name: &str) -> SecretName {
    SecretName { provider: provider.into(), name: name.into() }
}

fn kv(path: &Path) -> BTreeMap<String, SecretProvider> {
    BTreeMap::from([("kv".to_owned(), SecretProvider::File(path.into()))])
}

fn write(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_secret_is_found_by_provider_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.yaml");
    write(&path, "db: hunter2\npin: \"0123\"\nempty: \"\"\n", 0o600);
    let secrets = Secrets::load(&kv(&path)).unwrap();
    assert_eq!(*secrets.secret(&named("kv", "db")).unwrap(), b"hunter2");
    assert_eq!(*secrets.secret(&named("kv", "pin")).unwrap(), b"0123");
    for (provider, name) in [("kv", "other"), ("vault", "db"), ("kv", "empty")] {
        assert!(secrets.secret(&named(provider, name)).is_err(), "{provider}#{name}");
    }
    assert!(!format!("{secrets:?}").contains("hunter2"));
    assert!(secrets.has_provider("kv") && !secrets.has_provider("vault"));
}

#[test]
fn files_that_others_can_read_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.yaml");
    for mode in [0o640, 0o604, 0o660, 0o644] {
        write(&path, "db: hunter2\n", mode);
        let fault = Secrets::load(&kv(&path)).unwrap_err();
        assert!(fault.contains("chmod 600") && !fault.contains("hunter2"), "{fault}");
    }
    write(&path, "db: hunter2\n", 0o400);
    Secrets::load(&kv(&path)).unwrap();
    if rustix::process::geteuid().is_root() {
        write(&path, "db: hunter2\n", 0o600);
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        assert!(Secrets::load(&kv(&path)).unwrap_err().contains("65534"));
    }
    assert!(Secrets::load(&kv(dir.path())).unwrap_err().contains("regular"));
    assert!(Secrets::load(&kv(&dir.path().join("absent"))).is_err());
}

#[test]
fn a_mistake_in_the_file_names_the_line_and_not_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.yaml");
    for text in
        ["a: b\ndb: {deep: hunter2}\n", "a: b\ndb: [hunter2]\n", "a: b\nhunter2", "a: hunter2\na: hunter2\n"]
    {
        write(&path, text, 0o600);
        let fault = Secrets::load(&kv(&path)).unwrap_err();
        assert!(!fault.contains("hunter2"), "{fault}");
        assert!(fault.contains("line"), "{fault}");
    }
}

#[test]
fn a_rotated_secret_is_used_and_a_spoilt_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.yaml");
    write(&path, "db: old\n", 0o600);
    let secrets = Secrets::load(&kv(&path)).unwrap();
    write(&path, "db: new\n", 0o600);
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(*secrets.secret(&named("kv", "db")).unwrap(), b"new");
    write(&path, "db: newer\n", 0o644);
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(secrets.secret(&named("kv", "db")).is_err(), "the old value is not used on");
    write(&path, "db: newest\n", 0o600);
    assert_eq!(*secrets.secret(&named("kv", "db")).unwrap(), b"newest");
}

#[test]
fn the_environment_is_read_with_its_prefix() {
    // Cargo sets this one; tests must not change the environment of their process.
    let secrets =
        Secrets::load(&BTreeMap::from([("env".to_owned(), SecretProvider::Env("CARGO_PKG_".into()))]))
            .unwrap();
    assert_eq!(*secrets.secret(&named("env", "NAME")).unwrap(), b"weir");
    assert!(secrets.secret(&named("env", "ABSENT")).is_err());
}

/// A server that reads the start-up packet, then plays `script`: each step is sent once the client has answered the last.
async fn login_against(
    script: Vec<Vec<u8>>,
    certificate: Option<&[u8]>,
) -> (Result<Vec<u8>, LoginError>, Vec<u8>) {
    let (mut near, far) = duplex(1 << 20);
    let seen = tokio::spawn(play(far, script));
    let login =
        Login { user: "app", password: &Known(b"hunter2"), parameters: &[("database", "d")], certificate };
    let done = postgres_login(&mut near, &login).await;
    drop(near);
    (done, seen.await.unwrap())
}

async fn play(mut far: DuplexStream, script: Vec<Vec<u8>>) -> Vec<u8> {
    let mut seen = Vec::new();
    for step in script {
        let mut chunk = vec![0; 4_096];
        let count = far.read(&mut chunk).await.unwrap();
        seen.extend_from_slice(&chunk[..count]);
        if far.write_all(&step).await.is_err() {
            break;
        }
    }
    far.shutdown().await.unwrap();
    far.read_to_end(&mut seen).await.unwrap();
    seen
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], &length[..], body].concat()
}

fn request(kind: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], rest].concat())
}

#[tokio::test]
async fn what_follows_authentication_is_returned_byte_for_byte() {
    let greeting = [message(b'S', b"a\0b\0"), message(b'K', &[7; 8]), message(b'Z', b"I")].concat();
    let all = [request(0, b""), greeting.clone(), b"EXTRA".to_vec()].concat();
    let (done, seen) = login_against(vec![all], None).await;
    assert_eq!(done.unwrap(), greeting);
    assert_eq!(seen, b"\0\0\0\x1d\0\x03\0\0user\0app\0database\0d\0\0");
}

#[tokio::test]
async fn clear_text_needs_verified_tls() {
    let ask = request(3, b"");
    let (done, seen) = login_against(vec![ask.clone()], None).await;
    assert!(matches!(done, Err(LoginError::ClearText)), "{done:?}");
    assert!(!seen.windows(7).any(|window| window == b"hunter2"));
    let end = [request(0, b""), message(b'Z', b"I")].concat();
    let (done, seen) = login_against(vec![ask, end], Some(b"any")).await;
    done.unwrap();
    assert!(seen.ends_with(b"hunter2\0"));
}

#[tokio::test]
async fn a_refusal_keeps_its_code_and_loses_control_characters() {
    let body = b"SFATAL\0C28P01\0Mpassword authentication failed\x1b[31m\n for user \"app\"\0\0";
    let (done, _) = login_against(vec![message(b'E', body)], None).await;
    let Err(LoginError::Refused { code, message }) = done else { panic!("{done:?}") };
    assert_eq!(code, "28P01");
    assert_eq!(message, "password authentication failed[31m for user \"app\"");
}

#[tokio::test]
async fn a_server_that_does_not_prove_itself_is_not_believed() {
    let offer = request(10, b"SCRAM-SHA-256\0\0");
    // It lets the client in without ever showing its signature.
    let shortcut = [request(0, b""), message(b'Z', b"I")].concat();
    let (done, _) = login_against(vec![offer.clone(), shortcut], None).await;
    assert!(matches!(done, Err(LoginError::Violation(_))), "{done:?}");
    // It answers with a nonce that is not ours.
    let first = request(11, b"r=forged,s=c2FsdA==,i=4096");
    let (done, _) = login_against(vec![offer, first], None).await;
    assert!(matches!(done, Err(LoginError::Unproven(_))), "{done:?}");
}

#[tokio::test]
async fn passwords_are_given_once_and_only_in_known_ways() {
    let (done, _) = login_against(vec![request(5, b"salt"), request(5, b"tlas")], None).await;
    assert!(matches!(done, Err(LoginError::Violation(_))), "{done:?}");
    for (ask, word) in
        [(request(7, b""), "GSSAPI"), (request(10, b"OAUTHBEARER\0\0"), "SASL"), (request(99, b""), "99")]
    {
        let (done, seen) = login_against(vec![ask], None).await;
        let fault = done.unwrap_err().to_string();
        assert!(fault.contains(word), "{fault}");
        assert!(seen.ends_with(b"d\0\0"), "nothing beyond the start-up packet");
    }
}

#[tokio::test]
async fn floods_and_broken_lengths_end_the_login() {
    let huge = [b'R', 0x7f, 0xff, 0xff, 0xff].to_vec();
    let short = [b'R', 0, 0, 0, 3].to_vec();
    let notices = message(b'N', b"x\0").repeat(2_000);
    let settings = [request(0, b""), message(b'S', &[b'a'; 60_000]).repeat(6)].concat();
    let rows = [request(0, b""), message(b'D', b"\0\0")].concat();
    for script in [huge, short, notices, settings, rows] {
        let (done, _) = login_against(vec![script], None).await;
        assert!(matches!(done, Err(LoginError::Violation(_))), "{done:?}");
    }
    let (done, _) = login_against(vec![b"R\0\0".to_vec()], None).await;
    assert!(
        matches!(done, Err(LoginError::Violation(_) | LoginError::Lost(_) | LoginError::Slow)),
        "{done:?}"
    );
}

#[tokio::test]
async fn parameters_cannot_smuggle() {
    for bad in [("user", "root"), ("_pq_.x", "1"), ("a\0user", "root"), ("a", "b\0user"), ("", "x")] {
        let (mut near, _far) = duplex(1 << 16);
        let login = Login { user: "app", password: &Known(b"p"), parameters: &[bad], certificate: None };
        let done = postgres_login(&mut near, &login).await;
        assert!(matches!(done, Err(LoginError::Parameter(_))), "{bad:?}");
    }
}

#[test]
fn a_login_is_never_printed() {
    let login = Login { user: "app", password: &Known(b"hunter2"), parameters: &[], certificate: None };
    assert!(!format!("{login:?}").contains("hunter2") && !format!("{login:?}").contains("104"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_from_a_server_end_in_an_answer(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let done = runtime.block_on(async {
            let (mut near, mut far) = duplex(1 << 16);
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let login = Login { user: "app", password: &Known(b"hunter2"), parameters: &[], certificate: None };
            let answer = postgres_login(&mut near, &login).await;
            drop(far);
            answer
        });
        let told = format!("{done:?}");
        proptest::prop_assert!(!told.contains("hunter2"));
    }
}
