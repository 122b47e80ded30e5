//! Whom the upstream leg trusts: the system's roots, and the `ca` file of a target. One verifier for both TLS engines.
//! It refuses our own CA as a root: a leaf that weir minted proves nothing about a server.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{AlertDescription, CertificateError, RootCertStore};

use crate::credential::Stamp;
use crate::lane::counter::Counter;

#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the policy's `tls.ca` {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the policy's `tls.ca` {path}: {reason}")]
    Unusable { path: PathBuf, reason: String },
    #[error(
        "this host has no root certificates: install ca-certificates, or give the target `tls: {{ca: …}}`"
    )]
    NoRoots,
}

/// Roots by `ca` file; the empty path is the system alone.
#[derive(Debug)]
pub struct Trust {
    system: RootCertStore,
    verifiers: Mutex<HashMap<String, (Instant, Verifier)>>,
    /// Reads `ca` files for a process that may not; `None` reads them here.
    counter: Option<Arc<Counter>>,
}

/// A verifier, and the state of its `ca` file when that was read.
type Verifier = (Option<Stamp>, Arc<WebPkiServerVerifier>);

impl Trust {
    /// Reads the system's roots once; a change of them needs a restart.
    #[must_use]
    pub fn system(ours: Option<&CertificateDer<'_>>) -> Trust {
        let roots = rustls_native_certs::load_native_certs().certs;
        Trust::of(roots.into_iter().filter(|root| ours.is_none_or(|ours| root != ours)))
    }

    /// Just these roots.
    #[must_use]
    pub fn of(roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Trust {
        let mut system = RootCertStore::empty();
        system.add_parsable_certificates(roots);
        Trust { system, verifiers: Mutex::default(), counter: None }
    }

    /// Lets the keeper read `ca` files.
    #[must_use]
    pub fn reading_by(mut self, counter: Arc<Counter>) -> Trust {
        self.counter = Some(counter);
        self
    }

    /// How many roots the system gave.
    #[must_use]
    pub fn roots(&self) -> usize {
        self.system.len()
    }

    /// The verifier for a target's `ca` file and a mark of the file's state; the file is read again when it changes.
    pub(super) fn verifier(&self, ca: &str) -> Result<Verifier, TrustError> {
        let path = Path::new(ca);
        let mut verifiers = self.verifiers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((looked, found)) = verifiers.get(ca)
            && (ca.is_empty() || self.counter.is_some() && looked.elapsed() < LOOK_EACH)
        {
            return Ok(found.clone());
        }
        let file = |source| TrustError::File { path: path.into(), source };
        let (stamp, text) = match (&self.counter, ca) {
            (_, "") => (None, None),
            (Some(counter), _) => {
                let (stamp, text) = counter.authority(ca).map_err(file)?;
                (Some(stamp), Some(text))
            }
            // Read below if it has changed.
            (None, _) => (Some(Stamp::of(path).map_err(file)?), None),
        };
        if let Some((looked, found)) = verifiers.get_mut(ca).filter(|(_, (at, _))| *at == stamp) {
            *looked = Instant::now();
            return Ok(found.clone());
        }
        let mut roots = self.system.clone();
        if stamp.is_some() {
            let text = text.map_or_else(|| std::fs::read(path), Ok).map_err(file)?;
            add(&mut roots, path, &text)?;
        }
        let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crate::tls::provider())
            .build()
            .map_err(|_| TrustError::NoRoots)?;
        if verifiers.len() >= FILES {
            verifiers.clear();
        }
        verifiers.insert(ca.to_owned(), (Instant::now(), (stamp, Arc::clone(&built))));
        Ok((stamp, built))
    }
}

fn add(roots: &mut RootCertStore, path: &Path, text: &[u8]) -> Result<(), TrustError> {
    let unusable = |reason: &str| TrustError::Unusable { path: path.into(), reason: reason.into() };
    let before = roots.len();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|_| unusable("not PEM"))?;
        roots.add(certificate).map_err(|_| unusable("holds a certificate that cannot be a root"))?;
    }
    if roots.len() == before {
        return Err(unusable("holds no certificate"));
    }
    Ok(())
}

/// Why the verifier said no, in words for an audit row and for the person who must mend it.
pub(super) fn words(fault: &CertificateError) -> String {
    use CertificateError as C;
    match fault {
        C::Expired | C::ExpiredContext { .. } => "it has expired".into(),
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "it is not valid yet (or this host's clock is late)".into()
        }
        C::UnknownIssuer => "its issuer is not trusted here (self-signed, or a private CA)".into(),
        C::NotValidForName => "it is for another name".into(),
        C::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "it names no host at all".into()
        }
        C::NotValidForNameContext { presented, .. } => {
            let shown: Vec<_> =
                presented.iter().take(4).map(|name| name.escape_default().to_string()).collect();
            let more = if presented.len() > 4 { ", …" } else { "" };
            format!("it is for another name ({}{more})", shown.join(", "))
        }
        C::Revoked => "it has been revoked".into(),
        C::BadSignature => {
            "its signature does not fit the trusted CA of its issuer's name (another CA of that name?)".into()
        }
        C::BadEncoding => "it is malformed".into(),
        C::Other(inner) if inner.to_string().contains("CaUsedAsEndEntity") => {
            "it is a CA's own certificate (self-signed as a CA), used as a server's".into()
        }
        // The enum may grow: what is new is told in the library's words and refused all the same.
        other => other.to_string(),
    }
}

/// The alert that says the same to a TLS client (RFC 8446, 6.2).
pub(super) fn alert_of(fault: &CertificateError) -> AlertDescription {
    use CertificateError as C;
    match fault {
        C::Expired | C::ExpiredContext { .. } | C::NotValidYet | C::NotValidYetContext { .. } => {
            AlertDescription::CertificateExpired
        }
        C::UnknownIssuer => AlertDescription::UnknownCA,
        C::Revoked => AlertDescription::CertificateRevoked,
        _ => AlertDescription::BadCertificate,
    }
}

/// A file that changed is in use within this time, where the keeper reads it.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// `ca` files kept; policies name a handful.
const FILES: usize = 64;
