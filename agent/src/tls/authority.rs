//! The host's CA on disk: made once, its key never readable by others, and the bundle clients are pointed at.
//! It refuses a key that others can read, a certificate that is not of that key, and a CA outside its validity.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The CA: signs leaves and knows where clients find it.
pub struct Authority {
    dir: PathBuf,
    facts: CaFacts,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says, for people and for `weir check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFacts {
    pub subject: String,
    /// SHA-256 of the DER, lower-case hex.
    pub fingerprint: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub der: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    Unusable { path: PathBuf, reason: String },
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority")
            .field("dir", &self.dir)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Loads the CA of `dir`, or makes it: `ca.key` (0600), `ca.pem`, and `bundle.pem` (the system's roots and ours).
    /// Two processes that start at once get the same CA.
    ///
    /// # Errors
    /// The folder or the key is open to others; key and certificate do not belong together; the CA is outside its validity.
    pub fn open_or_create(dir: &Path, node: &str) -> Result<Authority, AuthorityError> {
        let lock = open_folder(dir)?;
        lock.lock().map_err(|source| file(dir, source))?;
        let key = open_or_create_key(&dir.join(KEY))?;
        let path = dir.join(CERTIFICATE);
        if !path.try_exists().map_err(|source| file(&path, source))? {
            let made = sign_root(&key, node).map_err(|fault| unusable(&path, fault))?;
            replace(&path, pem("CERTIFICATE", &made).as_bytes(), 0o644)?;
        }
        let facts = CaFacts::read(dir)?;
        facts.check(&path, key.public_key_raw())?;
        let certificate = CertificateDer::from(facts.der.clone());
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|fault| unusable(&path, fault))?;
        let authority = Authority { dir: dir.to_owned(), facts, certificate, issuer };
        authority.write_bundle()?;
        Ok(authority)
    }

    #[must_use]
    pub fn facts(&self) -> &CaFacts {
        &self.facts
    }

    /// The CA's own certificate. Upstream legs must not trust it: a leaf of ours proves nothing about a server.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// `ca.pem`: our certificate alone (for `NODE_EXTRA_CA_CERTS` and trust stores that add).
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        self.dir.join(CERTIFICATE)
    }

    /// `bundle.pem`: the system's roots and ours (for `SSL_CERT_FILE` and its like, which replace).
    #[must_use]
    pub fn bundle_path(&self) -> PathBuf {
        self.dir.join(BUNDLE)
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The system's roots change under us, so the bundle is written anew at every start.
    fn write_bundle(&self) -> Result<(), AuthorityError> {
        let path = self.bundle_path();
        let mut text = pem("CERTIFICATE", &self.certificate);
        for root in rustls_native_certs::load_native_certs().certs {
            if root != self.certificate {
                text.push_str(&pem("CERTIFICATE", &root));
            }
        }
        if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        replace(&path, text.as_bytes(), 0o644)
    }
}

impl CaFacts {
    /// Reads `ca.pem` of `dir`, without the key.
    ///
    /// # Errors
    /// No CA yet, or a file that is no certificate.
    pub fn read(dir: &Path) -> Result<CaFacts, AuthorityError> {
        let path = dir.join(CERTIFICATE);
        let text = fs::read(&path).map_err(|source| file(&path, source))?;
        let der =
            CertificateDer::from_pem_slice(&text).map_err(|_| unusable(&path, "not a PEM certificate"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|_| unusable(&path, "not an X.509 certificate"))?;
        Ok(CaFacts {
            subject: parsed.subject().to_string(),
            fingerprint: Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect(),
            not_before: instant(parsed.validity().not_before.timestamp()),
            not_after: instant(parsed.validity().not_after.timestamp()),
            der: der.to_vec(),
        })
    }

    fn check(&self, path: &Path, public_key: &[u8]) -> Result<(), AuthorityError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(&self.der)
            .map_err(|_| unusable(path, "not an X.509 certificate"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != public_key {
            return Err(unusable(path, "is not of the key in ca.key: restore the matching pair"));
        }
        let now = SystemTime::now();
        if now < self.not_before || now >= self.not_after {
            return Err(unusable(
                path,
                "the CA is not valid at the time this host shows: check the clock, or move ca.key and ca.pem away, \
                 start again and run `weir ca install`",
            ));
        }
        Ok(())
    }
}

fn open_folder(dir: &Path) -> Result<File, AuthorityError> {
    if !dir.try_exists().map_err(|source| file(dir, source))? {
        // Clients read `bundle.pem` here, so a narrow umask of the service must not close the folder.
        fs::DirBuilder::new().recursive(true).create(dir).map_err(|source| file(dir, source))?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir, open).map_err(|source| file(dir, source))?;
    }
    let folder = File::open(dir).map_err(|source| file(dir, source))?;
    let facts = folder.metadata().map_err(|source| file(dir, source))?;
    if facts.mode() & 0o022 != 0 {
        return Err(unusable(dir, "others may write to this folder: chmod go-w"));
    }
    Ok(folder)
}

fn open_or_create_key(path: &Path) -> Result<KeyPair, AuthorityError> {
    match File::open(path) {
        Ok(opened) => {
            let facts = opened.metadata().map_err(|source| file(path, source))?;
            if facts.mode() & 0o077 != 0 {
                return Err(unusable(
                    path,
                    "others may read the CA's key: chmod 600, and think about a new CA",
                ));
            }
            let text = Zeroizing::new(io::read_to_string(opened).map_err(|source| file(path, source))?);
            let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
                .map_err(|_| unusable(path, "not a PKCS#8 key in PEM"))?;
            KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
                .map_err(|_| unusable(path, "not a P-256 key"))
        }
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => {
            let key =
                KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|fault| unusable(path, fault))?;
            let text = Zeroizing::new(key.serialize_pem());
            replace(path, text.as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(source) => Err(file(path, source)),
    }
}

fn sign_root(key: &KeyPair, node: &str) -> Result<CertificateDer<'static>, rcgen::Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    // The key's mark keeps two CAs of one host apart in trust stores. A common name has at most 64 characters (RFC 5280, A.1).
    let mark: String =
        Sha256::digest(key.public_key_raw()).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let node: String = node.chars().take(44).collect();
    subject.push(DnType::OrganizationName, "weir");
    subject.push(DnType::CommonName, format!("weir CA {node} {mark}"));
    params.distinguished_name = subject;
    params.serial_number = Some(serial());
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + CA_VALIDITY).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params.self_signed(key)?.der().clone())
}

/// 127 random bits, positive (RFC 5280, 4.1.2.2 asks for a positive number of at most 20 octets).
pub(super) fn serial() -> SerialNumber {
    let mut bytes = [0_u8; 16];
    // The kernel's generator does not fail after boot; without it a serial that repeats would be signed.
    getrandom::fill(&mut bytes).expect("the kernel has randomness");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Writes beside, syncs, renames: a reader sees the old file or the new one, and never one with a wider mode.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        match fs::remove_file(&beside) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => return Err(fault),
            Ok(()) | Err(_) => {}
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        out.write_all(content)?;
        out.set_permissions(fs::Permissions::from_mode(mode))?;
        out.sync_all()?;
        fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    })();
    written.map_err(|source| file(path, source))
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

fn instant(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn file(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::File { path: path.into(), source }
}

fn unusable(path: &Path, reason: impl ToString) -> AuthorityError {
    AuthorityError::Unusable { path: path.into(), reason: reason.to_string() }
}

const KEY: &str = "ca.key";
const CERTIFICATE: &str = "ca.pem";
const BUNDLE: &str = "bundle.pem";
/// Clients whose clocks run late still accept what was made a moment ago.
pub(super) const BACKDATE: Duration = Duration::from_secs(3_600);
/// Two years: long enough that rotation is planned, short enough that it happens.
const CA_VALIDITY: Duration = Duration::from_secs(730 * 86_400);
