//! weir's login against a real PostgreSQL: every method, over TLS and plain, right and wrong passwords, bound and unbound.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};
use weir::credential::{Known, Login, LoginError, postgres_login};
use weir::upstream::{
    Connector, Origin, PostgresError, PostgresLeg, Purpose, Trust, UpstreamTls, dial, postgres_leg,
    postgres_tls,
};
use weir_core::policy::{TargetTls, TlsMode};

/// A private cluster, stopped and removed when dropped.
struct Cluster {
    dir: tempfile::TempDir,
    address: SocketAddr,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.dir.path().join("data");
        as_postgres(&bin("pg_ctl")).args(["-m", "immediate", "stop", "-D"]).arg(data).output().ok();
    }
}

fn bin(program: &str) -> PathBuf {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is needed for this test (apt install postgresql)")
        .map(|entry| entry.unwrap().path().join("bin").join(program))
        .filter(|path| path.exists())
        .collect();
    versions.sort();
    versions.pop().expect("PostgreSQL's programs")
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn done(command: &mut Command) {
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn cluster(signer: &'static SignatureAlgorithm) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path(), signer);
    std::fs::write(dir.path().join("pw"), "root-pw\n").unwrap();
    if rustix::process::geteuid().is_root() {
        done(Command::new("chown").args(["-R", "postgres:postgres"]).arg(dir.path()));
    }
    let data = dir.path().join("data");
    done(
        as_postgres(&bin("initdb"))
            .args(["--no-sync", "-U", "postgres", "-A", "scram-sha-256", "--locale=C.UTF-8", "--pwfile"])
            .arg(dir.path().join("pw"))
            .arg("-D")
            .arg(&data),
    );
    let hba = "hostssl all bound 127.0.0.1/32 scram-sha-256\nhost all postgres,scram 127.0.0.1/32 scram-sha-256\n\
               host all hashed 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\nhost all open 127.0.0.1/32 trust\n";
    std::fs::write(data.join("pg_hba.conf"), hba).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = dir.path().display();
    let options = format!(
        "-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off -c ssl=on \
         -c ssl_cert_file={place}/server.pem -c ssl_key_file={place}/server.key"
    );
    let log = dir.path().join("log");
    done(
        as_postgres(&bin("pg_ctl")).args(["-w", "start", "-o", &options, "-l"]).arg(log).arg("-D").arg(&data),
    );
    let cluster = Cluster { address: SocketAddr::from(([127, 0, 0, 1], port)), dir };
    cluster.sql(
        "create role scram login password 'scram-pw'; create role bound login password 'bound-pw'; \
         create role clear login password 'clear-pw'; create role open login; \
         set password_encryption = 'md5'; create role hashed login password 'hashed-pw'",
    );
    cluster
}

/// `ca.pem`, `server.pem` and `server.key`; the CA's algorithm is the one that channel binding hashes by.
fn certify(dir: &Path, signer: &'static SignatureAlgorithm) {
    let mut root = CertificateParams::default();
    root.distinguished_name.push(DnType::CommonName, "test root");
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate_for(signer).unwrap();
    std::fs::write(dir.join("ca.pem"), root.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(root, key);
    let server = CertificateParams::new(vec!["db.example.test".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("server.pem"), server.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    let path = dir.join("server.key");
    std::fs::write(&path, key.serialize_pem()).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

impl Cluster {
    fn sql(&self, text: &str) {
        let port = self.address.port().to_string();
        done(
            Command::new(bin("psql"))
                .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-d", "postgres", "-c", text])
                // libpq itself cannot bind to a certificate signed with Ed25519, and gives up.
                .env("PGSSLMODE", "disable")
                .env("PGPASSWORD", "root-pw"),
        );
    }

    fn tls(&self) -> TargetTls {
        let ca = self.dir.path().join("ca.pem").display().to_string();
        TargetTls { ca, ..TargetTls::default() }
    }

    async fn over_tls(&self) -> UpstreamTls {
        let stream = dial(self.address, &Origin::default()).await.unwrap();
        let connector = Connector::new(Trust::system(None));
        postgres_tls(&connector, stream, "db.example.test", &self.tls()).await.unwrap()
    }

    async fn log_in(&self, user: &str, password: &str, tls: bool) -> Result<Vec<u8>, LoginError> {
        let parameters = [("database", "postgres"), ("application_name", "weir-test")];
        let mut login =
            Login { user, password: &Known(password.as_bytes()), parameters: &parameters, certificate: None };
        if tls {
            let mut leg = self.over_tls().await;
            login.certificate = Some(&leg.certificate);
            return postgres_login(&mut leg.wire, &login).await;
        }
        postgres_login(&mut dial(self.address, &Origin::default()).await.unwrap(), &login).await
    }
}

fn assert_greeting(greeting: &[u8]) {
    let text = String::from_utf8_lossy(greeting);
    assert!(text.contains("server_version") && text.contains("weir-test"), "{text}");
    let key = greeting.windows(5).position(|head| head == b"K\0\0\0\x0c");
    assert!(key.is_some(), "BackendKeyData");
    assert!(greeting.ends_with(b"Z\0\0\0\x05I"));
}

#[tokio::test]
async fn every_method_logs_in_with_the_right_password_alone() {
    let cluster = cluster(&PKCS_ECDSA_P256_SHA256);
    for (user, password) in
        [("scram", "scram-pw"), ("hashed", "hashed-pw"), ("clear", "clear-pw"), ("open", "")]
    {
        for tls in [true, false] {
            if user == "clear" && !tls {
                let fault = cluster.log_in(user, password, tls).await.unwrap_err();
                assert!(matches!(fault, LoginError::ClearText), "{fault}");
                continue;
            }
            assert_greeting(&cluster.log_in(user, password, tls).await.unwrap());
            if user == "open" {
                continue;
            }
            let fault = cluster.log_in(user, "wrong-pw", tls).await.unwrap_err();
            let LoginError::Refused { code, message } = &fault else { panic!("{user}: {fault}") };
            assert_eq!(code, "28P01", "{message}");
            assert!(!format!("{fault} {fault:?}").contains("wrong-pw"));
        }
    }
    let fault = cluster.log_in("nobody", "x", true).await.unwrap_err();
    assert!(matches!(&fault, LoginError::Refused { code, .. } if code == "28000"), "{fault}");
    the_session_goes_on_where_the_login_ended(&cluster).await;
    legs_are_secured_as_the_policy_says(&cluster).await;
}

async fn the_session_goes_on_where_the_login_ended(cluster: &Cluster) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut leg = cluster.over_tls().await;
    let login = Login {
        user: "scram",
        password: &Known(b"scram-pw"),
        parameters: &[("database", "postgres")],
        certificate: None,
    };
    let login = Login { certificate: Some(&leg.certificate), ..login };
    postgres_login(&mut leg.wire, &login).await.unwrap();
    leg.wire.write_all(b"Q\0\0\0\x18select current_user\0").await.unwrap();
    leg.wire.flush().await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"Z\0\0\0\x05I") {
        assert!(leg.wire.read_buf(&mut answer).await.unwrap() > 0);
    }
    assert!(answer.starts_with(b"T") && answer.windows(5).any(|word| word == b"scram"));
}

async fn legs_are_secured_as_the_policy_says(cluster: &Cluster) {
    let connector = Connector::new(Trust::system(None));
    let asked = Purpose::Relay { client_asked: true };
    for (tls, purpose, expected) in [
        (TargetTls { mode: TlsMode::Verify, ..cluster.tls() }, asked, Ok(true)),
        (TargetTls { mode: TlsMode::Off, ..cluster.tls() }, asked, Ok(false)),
        (TargetTls { mode: TlsMode::Auto, ..cluster.tls() }, Purpose::Login, Ok(false)),
        (TargetTls { mode: TlsMode::Verify, ..TargetTls::default() }, asked, Err("tls: {ca: FILE}")),
        (
            TargetTls { mode: TlsMode::Verify, name: "other.example".into(), ..cluster.tls() },
            asked,
            Err("another name"),
        ),
    ] {
        let stream = dial(cluster.address, &Origin::default()).await.unwrap();
        let leg = postgres_leg(&connector, stream, "db.example.test", &tls, purpose).await;
        let seen = leg.map(|leg| matches!(leg, PostgresLeg::Tls(_)));
        match (seen, expected) {
            (Ok(seen), Ok(expected)) => assert_eq!(seen, expected, "{tls:?}"),
            (Err(fault @ PostgresError::Unverified(_)), Err(words)) => {
                assert!(fault.to_string().contains(words), "{fault}");
            }
            (seen, expected) => panic!("{seen:?} is not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn scram_is_bound_to_the_certificate_the_server_showed() {
    for (signer, bound) in
        [(&PKCS_ECDSA_P256_SHA256, true), (&PKCS_ECDSA_P384_SHA384, true), (&PKCS_ED25519, false)]
    {
        let cluster = cluster(signer);
        assert_greeting(&cluster.log_in("bound", "bound-pw", true).await.unwrap());
        if !bound {
            continue;
        }
        // Positive control: bound to another certificate, the same password is refused by the server.
        let mut leg = cluster.over_tls().await;
        let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let other = CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&other).unwrap();
        let login = Login {
            user: "bound",
            password: &Known(b"bound-pw"),
            parameters: &[],
            certificate: Some(other.der()),
        };
        let fault = postgres_login(&mut leg.wire, &login).await.unwrap_err();
        assert!(fault.to_string().contains("channel binding"), "{fault}");
    }
}
