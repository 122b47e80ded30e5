//! TLS to the server, verified for the name that policy and workload mean; says in words why a certificate is not good.
//! It refuses versions below TLS 1.2, certificates that do not verify, and names that are none.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, ClientConfig};
use weir_core::policy::{Engine, TargetTls};

use super::meter::Metered;
use super::trust::{Trust, TrustError, alert_of, words};
use super::wire::Wire;
use crate::credential::Stamp;

/// A secured upstream leg.
#[derive(Debug)]
pub struct UpstreamTls {
    pub wire: Wire,
    /// What the server chose; `None` when it did not say.
    pub alpn: Option<Vec<u8>>,
    /// The name (or address) that the certificate was verified for.
    pub name: String,
    /// The server's own certificate, for SCRAM channel binding (RFC 5929, `tls-server-end-point`).
    pub certificate: CertificateDer<'static>,
}

#[derive(Debug, thiserror::Error)]
pub enum SecureError {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("{0:?} is neither a host name nor an address: set `tls: {{name: …}}` for this target")]
    Name(String),
    #[error("the server's certificate is not good for {name}: {reason}")]
    Certificate { name: String, reason: String, alert: AlertDescription },
    #[error("TLS handshake with {name} failed: {reason}")]
    Handshake { name: String, reason: String },
    #[error("TLS handshake with {name}: the server closed the connection")]
    Closed { name: String },
    #[error("TLS handshake with {name} took longer than {} s", HANDSHAKE.as_secs())]
    Slow { name: String },
    #[error("this build has no BoringSSL, which the policy asks for (`tls: {{engine: boring}}`)")]
    NoEngine,
}

impl SecureError {
    /// The alert to send to a workload that waits for a certificate (see [`crate::tls::alert`]).
    #[must_use]
    pub fn alert(&self) -> AlertDescription {
        match self {
            SecureError::Certificate { alert, .. } => *alert,
            SecureError::Trust(_) | SecureError::NoEngine => AlertDescription::InternalError,
            SecureError::Name(_) => AlertDescription::UnrecognisedName,
            SecureError::Handshake { .. } | SecureError::Closed { .. } | SecureError::Slow { .. } => {
                AlertDescription::HandshakeFailure
            }
        }
    }

    /// The certificate was seen and refused; other failures may pass by themselves.
    #[must_use]
    pub fn is_verification(&self) -> bool {
        matches!(self, SecureError::Certificate { .. })
    }

    /// Sorts a failed handshake by who is at fault.
    pub(super) fn of(name: &str, fault: &io::Error) -> SecureError {
        let name = name.to_owned();
        match fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => {
                SecureError::Certificate { name, reason: words(why), alert: alert_of(why) }
            }
            Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)) => {
                SecureError::Handshake { name, reason: "the server speaks neither TLS 1.2 nor 1.3".into() }
            }
            Some(rustls::Error::AlertReceived(AlertDescription::CertificateRequired)) => {
                SecureError::Handshake {
                    name,
                    reason: "the server demands a client certificate, which weir does not hold".into(),
                }
            }
            Some(rustls::Error::InvalidMessage(_)) => {
                SecureError::Handshake { name, reason: "the server does not speak TLS here".into() }
            }
            Some(other) => SecureError::Handshake { name, reason: other.to_string() },
            None if fault.kind() == io::ErrorKind::UnexpectedEof => SecureError::Closed { name },
            None => SecureError::Handshake { name, reason: fault.kind().to_string() },
        }
    }
}

/// Secures upstream legs. Sessions are resumed only among legs of the same roots and ALPN, and the same name.
#[derive(Debug)]
pub struct Connector {
    trust: Trust,
    configs: Mutex<Vec<Prepared>>,
}

#[derive(Debug)]
struct Prepared {
    ca: String,
    stamp: Option<Stamp>,
    alpn: Vec<Vec<u8>>,
    config: Arc<ClientConfig>,
}

impl Connector {
    #[must_use]
    pub fn new(trust: Trust) -> Connector {
        Connector { trust, configs: Mutex::default() }
    }

    #[must_use]
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Runs the handshake and verifies the server for `tls.name`, or `name` where the policy gives none. `alpn`: what to
    /// offer, best first; offer only what the workload offered and weir parses.
    ///
    /// # Errors
    /// See [`SecureError`]. No application byte has been sent.
    pub async fn secure(
        &self,
        stream: impl Into<Metered>,
        name: &str,
        tls: &TargetTls,
        alpn: &[&[u8]],
    ) -> Result<UpstreamTls, SecureError> {
        let name = if tls.name.is_empty() { name } else { tls.name.as_str() };
        let name = name.strip_suffix('.').unwrap_or(name);
        let host = ServerName::try_from(name).map_err(|_| SecureError::Name(name.into()))?.to_owned();
        let stream = stream.into();
        let (stamp, verifier) = self.trust.verifier(&tls.ca)?;
        let handshake = async {
            match tls.engine {
                Engine::Rustls => {
                    let config = self.prepare(&tls.ca, stamp, verifier, alpn)?;
                    by_rustls(stream, name, host, config).await
                }
                #[cfg(feature = "boring")]
                Engine::Boring => super::boringssl::secure(stream, name, host, verifier, alpn).await,
                #[cfg(not(feature = "boring"))]
                Engine::Boring => Err(SecureError::NoEngine),
            }
        };
        let slow = |_| SecureError::Slow { name: name.into() };
        tokio::time::timeout(HANDSHAKE, handshake).await.map_err(slow)?
    }

    fn prepare(
        &self,
        ca: &str,
        stamp: Option<Stamp>,
        verifier: Arc<WebPkiServerVerifier>,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, SecureError> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = configs.iter().find(|one| one.ca == ca && one.stamp == stamp && one.alpn == alpn)
        {
            return Ok(Arc::clone(&found.config));
        }
        let alpn: Vec<_> = alpn.iter().map(|name| name.to_vec()).collect();
        let versions = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|fault| SecureError::Handshake { name: String::new(), reason: fault.to_string() })?;
        let mut config = versions.with_webpki_verifier(verifier).with_no_client_auth();
        config.alpn_protocols.clone_from(&alpn);
        let config = Arc::new(config);
        configs.retain(|one| one.ca != ca || one.stamp == stamp);
        if configs.len() >= CONFIGS {
            configs.remove(0);
        }
        configs.push(Prepared { ca: ca.into(), stamp, alpn, config: Arc::clone(&config) });
        Ok(config)
    }
}

async fn by_rustls(
    stream: Metered,
    name: &str,
    host: ServerName<'static>,
    config: Arc<ClientConfig>,
) -> Result<UpstreamTls, SecureError> {
    let connector = tokio_rustls::TlsConnector::from(config);
    let stream = connector.connect(host, stream).await.map_err(|fault| SecureError::of(name, &fault))?;
    let session = stream.get_ref().1;
    let certificate = session.peer_certificates().and_then(<[_]>::first).map(|der| der.clone().into_owned());
    let certificate = certificate.ok_or_else(|| SecureError::Handshake {
        name: name.into(),
        reason: "the server showed no certificate".into(),
    })?;
    let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
    Ok(UpstreamTls { wire: Wire::from(stream), alpn, name: name.into(), certificate })
}

/// A handshake takes two round trips; a server that needs longer holds up a workload that waits.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// (roots, ALPN) pairs kept.
const CONFIGS: usize = 64;
