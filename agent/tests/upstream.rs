//! Upstream legs against OpenSSL's server with good and bad certificates: both engines, one verdict, one wording.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use weir::upstream::{Connector, Origin, SecureError, Trust, UpstreamTls, dial};
use weir_core::policy::{Engine, TargetTls};

#[cfg(feature = "boring")]
const ENGINES: &[Engine] = &[Engine::Rustls, Engine::Boring];
#[cfg(not(feature = "boring"))]
const ENGINES: &[Engine] = &[Engine::Rustls];

/// A private CA and a folder for what it signs.
struct Ca {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "test root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    Ca { dir, issuer: Issuer::new(params, key) }
}

impl Ca {
    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, file: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        self.write(file, &params.signed_by(&key, &self.issuer).unwrap().pem(), &key);
    }

    fn write(&self, file: &str, certificate: &str, key: &KeyPair) {
        std::fs::write(self.dir.path().join(format!("{file}.pem")), certificate).unwrap();
        std::fs::write(self.dir.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    fn tls(&self, engine: Engine) -> TargetTls {
        let ca = self.dir.path().join("ca.pem").display().to_string();
        TargetTls { engine, ca, ..TargetTls::default() }
    }
}

/// `openssl s_server`, stopped when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn serve(dir: &Path, file: &str, more: &[&str]) -> Server {
    let mut child = Command::new("openssl")
        .args(["s_server", "-4", "-accept", "127.0.0.1:0", "-naccept", "100"])
        .arg("-cert")
        .arg(dir.join(format!("{file}.pem")))
        .arg("-key")
        .arg(dir.join(format!("{file}.key")))
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is needed for this test");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("s_server says where it listens").unwrap();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.parse().unwrap();
        }
    };
    // The pipe must stay open and empty, or the server stops when it prints.
    std::thread::spawn(move || lines.for_each(drop));
    Server { child, address }
}

async fn secure(server: &Server, name: &str, tls: &TargetTls) -> Result<UpstreamTls, SecureError> {
    let stream = dial(server.address, &Origin::default()).await.unwrap();
    Connector::new(Trust::system(None)).secure(stream, name, tls, &[b"h2", b"http/1.1"]).await
}

#[tokio::test]
async fn good_certificates_verify_by_name_and_by_address() {
    let ca = ca();
    ca.sign("good", &["db.example.test", "127.0.0.1"], |_| {});
    for version in ["-tls1_2", "-tls1_3"] {
        let server = serve(ca.dir.path(), "good", &[version, "-alpn", "http/1.1"]);
        for engine in ENGINES {
            for name in ["db.example.test", "DB.example.test.", "127.0.0.1"] {
                let leg = secure(&server, name, &ca.tls(*engine)).await.unwrap();
                assert_eq!(leg.name, name.trim_end_matches('.'));
                assert_eq!(leg.alpn.as_deref(), Some(b"http/1.1".as_slice()));
                assert!(!leg.certificate.is_empty());
            }
        }
    }
}

#[tokio::test]
async fn bad_certificates_are_refused_with_the_reason() {
    let ca = ca();
    let other = self::ca();
    ca.sign("expired", &["db.example.test"], |params| params.not_after = date_time_ymd(2020, 1, 1));
    ca.sign("early", &["db.example.test"], |params| params.not_before = date_time_ymd(3000, 1, 1));
    ca.sign("name", &["other.example.test"], |_| {});
    ca.sign("purpose", &["db.example.test"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    other.sign("stranger", &["db.example.test"], |_| {});
    std::fs::copy(other.dir.path().join("stranger.pem"), ca.dir.path().join("stranger.pem")).unwrap();
    std::fs::copy(other.dir.path().join("stranger.key"), ca.dir.path().join("stranger.key")).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["db.example.test".to_owned()]).unwrap();
    ca.write("own", &own.self_signed(&key).unwrap().pem(), &key);
    for (file, words) in [
        ("expired", "expired"),
        ("early", "not valid yet"),
        ("name", "another name"),
        ("purpose", "usage"),
        ("stranger", "another CA of that name"),
        ("own", "not trusted here"),
    ] {
        let server = serve(ca.dir.path(), file, &[]);
        for engine in ENGINES {
            let fault = secure(&server, "db.example.test", &ca.tls(*engine)).await.unwrap_err();
            assert!(fault.is_verification(), "{engine:?} {file}: {fault}");
            assert!(fault.to_string().contains(words), "{engine:?} {file}: {fault}");
        }
    }
}

#[tokio::test]
async fn a_private_ca_is_trusted_only_where_the_target_says_so() {
    let ca = ca();
    ca.sign("good", &["db.example.test"], |_| {});
    let server = serve(ca.dir.path(), "good", &[]);
    for engine in ENGINES {
        let tls = TargetTls { engine: *engine, ..TargetTls::default() };
        assert!(secure(&server, "db.example.test", &tls).await.unwrap_err().is_verification(), "{engine:?}");
    }
}

#[tokio::test]
async fn servers_below_tls_1_2_are_refused() {
    let ca = ca();
    ca.sign("good", &["db.example.test"], |_| {});
    for version in ["-tls1", "-tls1_1"] {
        let server = serve(ca.dir.path(), "good", &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        for engine in ENGINES {
            let fault = secure(&server, "db.example.test", &ca.tls(*engine)).await.unwrap_err();
            assert!(matches!(fault, SecureError::Handshake { .. }), "{engine:?}: {fault:?}");
            assert!(fault.to_string().contains("neither TLS 1.2 nor 1.3"), "{engine:?}: {fault}");
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_named_as_such() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4_096]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    for engine in ENGINES {
        let stream = dial(address, &Origin::default()).await.unwrap();
        let tls = TargetTls { engine: *engine, ..TargetTls::default() };
        let fault = Connector::new(Trust::system(None))
            .secure(stream, "db.example.test", &tls, &[])
            .await
            .unwrap_err();
        assert!(fault.to_string().contains("does not speak TLS"), "{engine:?}: {fault}");
    }
}

#[tokio::test]
async fn a_demand_for_a_client_certificate_is_told() {
    use tokio::io::AsyncReadExt;
    let ca = ca();
    ca.sign("good", &["db.example.test"], |_| {});
    let server = serve(ca.dir.path(), "good", &["-Verify", "1", "-tls1_2"]);
    for engine in ENGINES {
        // In TLS 1.2 the refusal comes in the handshake; in 1.3 it is the first read that fails.
        assert!(secure(&server, "db.example.test", &ca.tls(*engine)).await.is_err(), "{engine:?}");
    }
    let server = serve(ca.dir.path(), "good", &["-Verify", "1", "-tls1_3"]);
    for engine in ENGINES {
        if let Ok(mut leg) = secure(&server, "db.example.test", &ca.tls(*engine)).await {
            assert!(leg.wire.read(&mut [0; 16]).await.is_err(), "{engine:?}");
        }
    }
}

#[tokio::test]
async fn a_changed_ca_file_is_read_again() {
    let ca = ca();
    ca.sign("good", &["db.example.test"], |_| {});
    let server = serve(ca.dir.path(), "good", &[]);
    let connector = Connector::new(Trust::system(None));
    let other = self::ca();
    let tls = ca.tls(Engine::Rustls);
    let right = std::fs::read(&tls.ca).unwrap();
    for (text, good) in [
        (right.clone(), true),
        (std::fs::read(other.dir.path().join("ca.pem")).unwrap(), false),
        (right, true),
    ] {
        std::fs::write(&tls.ca, text).unwrap();
        let stream = dial(server.address, &Origin::default()).await.unwrap();
        assert_eq!(connector.secure(stream, "db.example.test", &tls, &[]).await.is_ok(), good);
    }
}
