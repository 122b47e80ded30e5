//! The workload's handshake: one server configuration a (policy class, ALPN), one leaf a connection.
//! It refuses early data, a ticket of another policy class, and a client whose SNI is not the name that was judged.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::leaves::{LeafError, LeafName, Leaves};

/// How one connection is to be terminated.
#[derive(Debug, Clone, Copy)]
pub struct Termination<'a> {
    /// The client's SNI, or the recorded address when it sent none.
    pub name: &'a LeafName,
    /// Label of the connecting workload: new names are paid for by it.
    pub workload: &'a str,
    /// Connections of one class may resume each other's sessions. Say what the connection verdict hung on (workload,
    /// policy commit, target): another class means another ticket key, so a full handshake.
    pub class: &'a str,
    /// Protocols to agree on, best first: what the upstream chose. Empty: no ALPN.
    pub alpn: &'a [&'a [u8]],
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The workload does not trust the host's CA, or pins another certificate.
    #[error(
        "the client does not accept weir's certificate for {name} ({how}): give it the host's CA (`weir ca show`)"
    )]
    ClientDistrusts { name: String, how: Distrust },
    /// The ClientHello that rustls read names another host than the one that was judged.
    #[error("the client asks for another name than {name}")]
    OtherName { name: String },
    #[error("TLS with the client: {reason}")]
    Violation { reason: String },
    #[error("the client took longer than {} s for its TLS handshake", HANDSHAKE.as_secs())]
    Slow,
    #[error("the client closed before our certificate")]
    Gone,
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// How a client showed its distrust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    Alert(AlertDescription),
    /// Closed or reset right after our certificate, without an alert: count two in ten minutes before believing it.
    Closed,
}

impl std::fmt::Display for Distrust {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Distrust::Alert(alert) => write!(out, "alert {alert:?}"),
            Distrust::Closed => out.write_str("closed right after the certificate"),
        }
    }
}

/// Terminates TLS for the workloads of this host.
#[derive(Debug)]
pub struct Terminator {
    leaves: Leaves,
    /// Oldest first.
    classes: Mutex<VecDeque<Class>>,
}

#[derive(Debug)]
struct Class {
    name: String,
    alpn: Vec<Vec<u8>>,
    config: Arc<ServerConfig>,
}

impl Terminator {
    #[must_use]
    pub fn new(leaves: Leaves) -> Terminator {
        Terminator { leaves, classes: Mutex::default() }
    }

    #[must_use]
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Runs the handshake. `stream` begins with the ClientHello (see [`super::Prefixed`]). Mint nothing for a peer that
    /// failed verification: secure the upstream leg first.
    ///
    /// A client may finish the handshake and look at the certificate afterwards (Node does): its distrust can be a close with
    /// no byte of application traffic, which only the relay sees.
    ///
    /// # Errors
    /// See [`AcceptError`]. On every error the stream is gone; alerts that were due have been sent.
    pub async fn accept<S>(&self, stream: S, how: Termination<'_>) -> Result<TlsStream<S>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let certified = self.leaves.leaf(how.name, how.workload)?;
        let only = Arc::new(OneLeaf::new(how.name.clone(), certified));
        // The template holds all that is costly to build; this copy is a few reference counts.
        let mut config = ServerConfig::clone(&*self.template(how.class, how.alpn)?);
        config.cert_resolver = Arc::clone(&only) as Arc<dyn ResolvesServerCert>;
        let handshake = TlsAcceptor::from(Arc::new(config)).accept(stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Err(_) => Err(AcceptError::Slow),
            Ok(Err(fault)) => Err(only.explain(&fault)),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    fn template(&self, class: &str, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, AcceptError> {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = classes.iter().find(|known| known.name == class && known.alpn == alpn) {
            return Ok(Arc::clone(&found.config));
        }
        let config = Arc::new(build(alpn).map_err(|fault| AcceptError::Setup(fault.to_string()))?);
        if classes.len() >= CLASSES {
            classes.pop_front();
        }
        let alpn = alpn.iter().map(|name| name.to_vec()).collect();
        classes.push_back(Class { name: class.to_owned(), alpn, config: Arc::clone(&config) });
        Ok(config)
    }
}

/// The plaintext record that tells a client, whose ClientHello has been read but not answered, why it gets no server
/// (RFC 8446, 6): the same class of alert that the upstream's failure would have caused it.
#[must_use]
pub fn alert(description: AlertDescription) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, u8::from(description)]
}

fn build(alpn: &[&[u8]]) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoLeaf));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// Stands in the template; every connection puts its own leaf there.
#[derive(Debug)]
struct NoLeaf;

impl ResolvesServerCert for NoLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Gives the one leaf, and only to a client that asks for its name.
#[derive(Debug)]
struct OneLeaf {
    name: LeafName,
    certified: Arc<CertifiedKey>,
    given: AtomicBool,
    refused: AtomicBool,
}

impl OneLeaf {
    fn new(name: LeafName, certified: Arc<CertifiedKey>) -> Self {
        Self { name, certified, given: AtomicBool::new(false), refused: AtomicBool::new(false) }
    }

    fn explain(&self, fault: &io::Error) -> AcceptError {
        let name = self.name.to_string();
        if self.refused.load(Ordering::Relaxed) {
            return AcceptError::OtherName { name };
        }
        let given = self.given.load(Ordering::Relaxed);
        match fault.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) if given && is_distrust(*alert) => {
                AcceptError::ClientDistrusts { name, how: Distrust::Alert(*alert) }
            }
            Some(other) => AcceptError::Violation { reason: other.to_string() },
            None if given => AcceptError::ClientDistrusts { name, how: Distrust::Closed },
            None => AcceptError::Gone,
        }
    }
}

impl ResolvesServerCert for OneLeaf {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(LeafName::parse);
        if asked.is_none_or(|asked| asked.as_ref() == Some(&self.name)) {
            self.given.store(true, Ordering::Relaxed);
            return Some(Arc::clone(&self.certified));
        }
        self.refused.store(true, Ordering::Relaxed);
        None
    }
}

fn is_distrust(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::UnknownCA
            | A::BadCertificate
            | A::CertificateUnknown
            | A::CertificateExpired
            | A::CertificateRevoked
            | A::UnsupportedCertificate
    )
}

/// A handshake takes a few round trips of one host; a client that needs longer is stuck.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// (policy class, ALPN) pairs kept, about 2 KB each; the oldest is rebuilt (20 µs) when it comes back.
const CLASSES: usize = 256;
