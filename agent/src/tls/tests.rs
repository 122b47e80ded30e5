//! The CA on disk, what is in a leaf, and the handshake against a rustls client.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio_rustls::TlsConnector;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::*;

struct Host {
    _dir: tempfile::TempDir,
    authority: Arc<Authority>,
    terminator: Arc<Terminator>,
}

fn host() -> Host {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open_or_create(&dir.path().join("ca"), "web-1").unwrap());
    let leaves = Leaves::new(Arc::clone(&authority)).unwrap();
    Host { _dir: dir, authority, terminator: Arc::new(Terminator::new(leaves)) }
}

fn roots(host: &Host) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(host.authority.certificate().clone()).unwrap();
    roots
}

fn client(roots: RootCertStore, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

fn name(host: &str) -> LeafName {
    LeafName::parse(host).unwrap()
}

fn how<'a>(name: &'a LeafName, alpn: &'a [&'a [u8]]) -> Termination<'a> {
    Termination { name, workload: "payments", class: "1", alpn }
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    x509_parser::parse_x509_certificate(der).unwrap().1
}

fn extension<'a>(certificate: &'a X509Certificate<'_>, oid: &str) -> &'a ParsedExtension<'a> {
    let found = certificate.extensions().iter().find(|one| one.oid.to_id_string() == oid);
    found.unwrap_or_else(|| panic!("no extension {oid}")).parsed_extension()
}

fn is_critical(certificate: &X509Certificate<'_>, oid: &str) -> bool {
    certificate.extensions().iter().any(|one| one.oid.to_id_string() == oid && one.critical)
}

#[test]
fn the_ca_is_made_once_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("a/ca");
    let first = Authority::open_or_create(&dir, "web-1").unwrap();
    let again = Authority::open_or_create(&dir, "web-2").unwrap();
    assert_eq!(first.certificate(), again.certificate());
    let mode = |file: &str| dir.join(file).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.pem"), mode("bundle.pem")), (0o600, 0o644, 0o644));
    assert!(first.facts().subject.contains("web-1"), "{}", first.facts().subject);
    assert_eq!(CaFacts::read(&dir).unwrap(), *first.facts());
    let bundle = std::fs::read_to_string(first.bundle_path()).unwrap();
    assert!(bundle.starts_with(&std::fs::read_to_string(first.certificate_path()).unwrap()));
    assert!(!format!("{first:?}").contains("PRIVATE"));
}

#[test]
fn processes_that_start_together_get_one_ca() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let dir = dir.path().to_owned();
        std::thread::spawn(move || Authority::open_or_create(&dir, "n").unwrap().facts().fingerprint.clone())
    };
    let all: Vec<_> = (0..8).map(|_| open()).collect();
    let all: std::collections::BTreeSet<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!(all.len(), 1);
}

#[test]
fn the_ca_may_sign_leaves_and_nothing_else() {
    let host = host();
    let der = host.authority.certificate().clone();
    let ca = parse(&der);
    let ParsedExtension::BasicConstraints(basic) = extension(&ca, "2.5.29.19") else { panic!() };
    assert!(basic.ca && basic.path_len_constraint == Some(0) && is_critical(&ca, "2.5.29.19"));
    let ParsedExtension::KeyUsage(usage) = extension(&ca, "2.5.29.15") else { panic!() };
    assert!(usage.key_cert_sign() && usage.flags.count_ones() == 1 && is_critical(&ca, "2.5.29.15"));
    let years = (ca.validity().not_after.timestamp() - ca.validity().not_before.timestamp()) / 86_400;
    assert!((365..=731).contains(&years), "{years} days");
}

#[test]
fn a_ca_that_is_open_or_mixed_up_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let open =
        |dir: &Path| Authority::open_or_create(dir, "n").map(|_| ()).map_err(|fault| fault.to_string());
    open(dir.path()).unwrap();
    open(other.path()).unwrap();
    let set =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    set(&dir.path().join("ca.key"), 0o640);
    assert!(open(dir.path()).unwrap_err().contains("chmod 600"));
    set(&dir.path().join("ca.key"), 0o600);
    set(dir.path(), 0o777);
    assert!(open(dir.path()).unwrap_err().contains("chmod go-w"));
    set(dir.path(), 0o755);
    std::fs::copy(other.path().join("ca.pem"), dir.path().join("ca.pem")).unwrap();
    assert!(open(dir.path()).unwrap_err().contains("not of the key"));
    std::fs::write(dir.path().join("ca.pem"), "nonsense").unwrap();
    assert!(open(dir.path()).unwrap_err().contains("PEM"));
}

#[test]
fn an_expired_ca_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Authority::open_or_create(dir.path(), "n").unwrap();
    let key = std::fs::read_to_string(dir.path().join("ca.key")).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let fault = Authority::open_or_create(dir.path(), "n").unwrap_err().to_string();
    assert!(fault.contains("not valid"), "{fault}");
}

#[test]
fn a_leaf_is_for_one_name_and_satisfies_strict_verifiers() {
    let host = host();
    let leaves = host.terminator.leaves();
    let ca_der = host.authority.certificate().clone();
    let ca = parse(&ca_der);
    let ParsedExtension::SubjectKeyIdentifier(ski) = extension(&ca, "2.5.29.14") else { panic!() };
    for (asked, expected) in [
        ("API.Example.com.", GeneralName::DNSName("api.example.com")),
        ("192.0.2.7", GeneralName::IPAddress(&[192, 0, 2, 7])),
        ("::ffff:192.0.2.7", GeneralName::IPAddress(&[192, 0, 2, 7])),
    ] {
        let leaf = leaves.leaf(&name(asked), "w").unwrap();
        let parsed = parse(&leaf.cert[0]);
        let ParsedExtension::SubjectAlternativeName(names) = extension(&parsed, "2.5.29.17") else {
            panic!()
        };
        assert_eq!(names.general_names, vec![expected]);
        let ParsedExtension::AuthorityKeyIdentifier(aki) = extension(&parsed, "2.5.29.35") else { panic!() };
        assert_eq!(aki.key_identifier.as_ref().unwrap().0, ski.0);
        let ParsedExtension::ExtendedKeyUsage(usage) = extension(&parsed, "2.5.29.37") else { panic!() };
        assert!(usage.server_auth && !usage.client_auth && !usage.any);
        let ParsedExtension::KeyUsage(usage) = extension(&parsed, "2.5.29.15") else { panic!() };
        assert!(usage.digital_signature() && usage.flags.count_ones() == 1);
        assert!(!parsed.is_ca());
        assert_eq!(parsed.raw_serial().len(), 16);
        let (from, to) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        assert!(to - from <= 7 * 86_400, "{} s", to - from);
        assert!(from <= x509_parser::time::ASN1Time::now().timestamp() - 3_500);
        assert_ne!(
            parsed.public_key().subject_public_key.data,
            ca.public_key().subject_public_key.data,
            "the CA's key must not be the leaf's"
        );
    }
    let serial = |host: &str| parse(&leaves.leaf(&name(host), "w").unwrap().cert[0]).raw_serial().to_vec();
    assert_ne!(serial("a.example"), serial("b.example"));
}

#[test]
fn only_names_and_addresses_get_leaves() {
    for bad in
        ["", ".", "*.example.com", "a..b", "a b", "a/b", "-a.example", "ex\u{e4}mple.com", &"a".repeat(300)]
    {
        assert_eq!(LeafName::parse(bad), None, "{bad:?}");
    }
    assert_eq!(name("2001:DB8::1").to_string(), "2001:db8::1");
    assert_eq!(name(&format!("{}.example.com", "a".repeat(63))).to_string().len(), 75);
}

#[test]
fn long_names_are_minted() {
    let long = format!("{0}.{0}.{0}.example", "a".repeat(60));
    let host = host();
    let leaf = host.terminator.leaves().leaf(&name(&long), "w").unwrap();
    assert!(parse(&leaf.cert[0]).subject().to_string().contains("weir leaf"));
}

#[test]
fn a_hundred_first_requests_mint_once() {
    let host = host();
    let all: Vec<_> = (0..100)
        .map(|_| {
            let terminator = Arc::clone(&host.terminator);
            std::thread::spawn(move || {
                terminator.leaves().leaf(&name("one.example"), "w").unwrap().cert[0].to_vec()
            })
        })
        .collect();
    let all: std::collections::BTreeSet<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!((all.len(), host.terminator.leaves().minted()), (1, 1));
}

#[test]
fn a_flood_of_names_stops_its_workload_alone() {
    let host = host();
    let leaves = host.terminator.leaves();
    let flood = (0..2_000).map(|n| leaves.leaf(&name(&format!("h{n}.example")), "bad"));
    let refused = flood.filter(|leaf| matches!(leaf, Err(LeafError::TooFast { .. }))).count();
    assert!(refused > 500, "{refused}");
    assert!(leaves.leaf(&name("h0.example"), "bad").is_ok(), "kept leaves cost nothing");
    assert!(leaves.leaf(&name("new.example"), "good").is_ok());
}

#[test]
fn the_longest_unused_leaf_makes_room() {
    let host = host();
    let leaves = host.terminator.leaves();
    let per = leaves::MINTS_AT_ONCE as usize;
    for n in 0..leaves::LEAVES + 10 {
        leaves.leaf(&name("kept.example"), "first").unwrap();
        leaves.leaf(&name(&format!("h{n}.example")), &format!("w{}", n / per)).unwrap();
    }
    let before = leaves.minted();
    leaves.leaf(&name("kept.example"), "first").unwrap();
    assert_eq!(leaves.minted(), before, "a leaf in use stays");
    leaves.leaf(&name("h0.example"), "first").unwrap();
    assert_eq!(leaves.minted(), before + 1, "the longest unused was dropped");
}

type Accepted = Result<tokio_rustls::server::TlsStream<DuplexStream>, AcceptError>;
type Connected = std::io::Result<tokio_rustls::client::TlsStream<DuplexStream>>;

async fn shake(
    host: &Host,
    how: Termination<'_>,
    config: Arc<ClientConfig>,
    sni: &str,
) -> (Accepted, Connected) {
    let (near, far) = duplex(64 * 1024);
    let sni = ServerName::try_from(sni.to_owned()).unwrap();
    let connected = async move {
        let mut stream = TlsConnector::from(config).connect(sni, near).await?;
        // The server's tickets come with its first bytes.
        let mut hello = [0; 2];
        stream.read_exact(&mut hello).await?;
        Ok(stream)
    };
    let accepted = async {
        let mut stream = host.terminator.accept(far, how).await?;
        stream.write_all(b"hi").await.ok();
        stream.flush().await.ok();
        Ok(stream)
    };
    tokio::join!(accepted, connected)
}

#[tokio::test]
async fn a_client_that_trusts_us_gets_its_name_and_protocol() {
    let host = host();
    for (asked, alpn, chosen) in [
        ("api.example.com", vec![b"h2".as_slice(), b"http/1.1"], Some(b"http/1.1".as_slice())),
        ("192.0.2.7", vec![], None),
        ("2001:db8::1", vec![b"http/1.1"], Some(b"http/1.1")),
    ] {
        let config = client(roots(&host), &alpn);
        let leaf = name(asked);
        let (accepted, connected) = shake(&host, how(&leaf, &[b"http/1.1"]), config, asked).await;
        let (accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        assert_eq!(accepted.get_ref().1.alpn_protocol(), chosen);
        drop(accepted);
        assert!(connected.read_u8().await.is_err());
    }
}

#[tokio::test]
async fn no_common_protocol_is_refused() {
    let host = host();
    let leaf = name("a.example");
    let config = client(roots(&host), &[b"h2"]);
    let (accepted, connected) = shake(&host, how(&leaf, &[b"http/1.1"]), config, "a.example").await;
    assert!(matches!(accepted, Err(AcceptError::Violation { .. })), "{accepted:?}");
    assert!(connected.unwrap_err().to_string().contains("NoApplicationProtocol"));
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_known_as_such() {
    let host = host();
    let leaf = name("a.example");
    let stranger = self::host();
    let config = client(roots(&stranger), &[]);
    let (accepted, _) = shake(&host, how(&leaf, &[]), config, "a.example").await;
    let Err(AcceptError::ClientDistrusts { how: Distrust::Alert(alert), name }) = accepted else {
        panic!("{accepted:?}")
    };
    assert_eq!((alert, name.as_str()), (AlertDescription::UnknownCA, "a.example"));
}

/// The bytes that a client would send first.
fn client_hello(sni: &'static str) -> Vec<u8> {
    let config = client(RootCertStore::empty(), &[]);
    let mut session = rustls::ClientConnection::new(config, ServerName::try_from(sni).unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_close_after_our_certificate_is_distrust_and_before_it_is_not() {
    let host = host();
    let leaf = name("a.example");
    for (bytes, distrust) in
        [(client_hello("a.example"), true), (client_hello("a.example")[..40].to_vec(), false)]
    {
        let (mut near, far) = duplex(64 * 1024);
        near.write_all(&bytes).await.unwrap();
        near.shutdown().await.unwrap();
        let fault = host.terminator.accept(far, how(&leaf, &[])).await.unwrap_err();
        let seen = matches!(fault, AcceptError::ClientDistrusts { how: Distrust::Closed, .. });
        assert!(seen == distrust && (distrust || matches!(fault, AcceptError::Gone)), "{fault:?}");
    }
}

#[tokio::test]
async fn another_name_than_the_judged_one_gets_no_certificate() {
    let host = host();
    let judged = name("allowed.example");
    let config = client(roots(&host), &[]);
    let (accepted, connected) = shake(&host, how(&judged, &[]), config, "secret.example").await;
    assert!(matches!(accepted, Err(AcceptError::OtherName { .. })), "{accepted:?}");
    assert!(connected.is_err());
}

#[tokio::test]
async fn garbage_is_the_clients_fault() {
    let host = host();
    let leaf = name("a.example");
    let (mut near, far) = duplex(1024);
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let fault = host.terminator.accept(far, how(&leaf, &[])).await.unwrap_err();
    assert!(matches!(fault, AcceptError::Violation { .. }), "{fault:?}");
}

#[tokio::test]
async fn a_client_that_stops_in_the_handshake_is_dropped() {
    let host = host();
    let leaf = name("a.example");
    let (mut near, far) = duplex(1024);
    near.write_all(&client_hello("a.example")[..100]).await.unwrap();
    assert!(matches!(host.terminator.accept(far, how(&leaf, &[])).await, Err(AcceptError::Slow)));
}

#[tokio::test]
async fn sessions_resume_within_a_policy_class_only() {
    use rustls::HandshakeKind::{Full, Resumed};
    let host = host();
    let leaf = name("a.example");
    let config = client(roots(&host), &[]);
    for (class, kind) in [("1", Full), ("1", Resumed), ("2", Full), ("2", Resumed)] {
        let how = Termination { class, ..how(&leaf, &[]) };
        let (accepted, connected) = shake(&host, how, Arc::clone(&config), "a.example").await;
        let (accepted, _connected) = (accepted.unwrap(), connected.unwrap());
        let seen = accepted.get_ref().1.handshake_kind();
        // X25519MLKEM768 against our own preferences needs no retry, so a full handshake is exactly `Full`.
        assert_eq!(seen, Some(kind), "class {class}");
    }
}

/// Gives one byte a read. (A pipe of one byte will not do: rustls reads nothing while it has something to send.)
struct Dribble(DuplexStream);

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut single = ReadBuf::new(&mut one);
        std::task::ready!(Pin::new(&mut self.0).poll_read(context, &mut single))?;
        into.put_slice(single.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[tokio::test]
async fn a_hello_in_single_bytes_behind_a_sniffed_front_is_understood() {
    let host = host();
    let leaf = name("a.example");
    let (near, middle) = duplex(64 * 1024);
    let config = client(roots(&host), &[]);
    let sni = ServerName::try_from("a.example").unwrap();
    let client = tokio::spawn(async move {
        let mut stream = TlsConnector::from(config).connect(sni, near).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    });
    let mut middle = Dribble(middle);
    let mut front = vec![0; 700];
    middle.read_exact(&mut front).await.unwrap();
    let mut stream = host.terminator.accept(Prefixed::new(front, middle), how(&leaf, &[])).await.unwrap();
    let mut asked = [0; 4];
    stream.read_exact(&mut asked).await.unwrap();
    stream.write_all(&asked).await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(&client.await.unwrap(), b"ping");
}

#[test]
fn an_alert_is_one_plain_record() {
    assert_eq!(alert(AlertDescription::UnknownCA), [0x15, 3, 3, 0, 2, 2, 48]);
}

proptest::proptest! {
    #[test]
    fn any_front_and_any_read_size_give_the_same_bytes(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000),
        cut in 0_usize..2_000,
        step in 1_usize..300,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let cut = cut.min(bytes.len());
        let read = runtime.block_on(async {
            let mut stream = Prefixed::new(bytes[..cut].to_vec(), &bytes[cut..]);
            let mut all = Vec::new();
            let mut buffer = vec![0; step];
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => return all,
                    count => all.extend_from_slice(&buffer[..count]),
                }
            }
        });
        proptest::prop_assert_eq!(read, bytes);
    }
}

#[test]
fn our_own_ca_is_no_root_for_servers() {
    let host = host();
    let ours = host.authority.certificate();
    let trust = crate::upstream::Trust::of([ours.clone()]);
    assert_eq!(trust.roots(), 1, "the certificate can be a root");
    let filtered = crate::upstream::Trust::system(Some(&CertificateDer::from(ours.to_vec())));
    assert_eq!(filtered.roots(), crate::upstream::Trust::system(None).roots());
}
