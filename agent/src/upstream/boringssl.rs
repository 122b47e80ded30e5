//! BoringSSL for upstream legs that ask for it: a browser-like ClientHello, its FIPS module, an independent second stack.
//! It refuses to judge certificates by itself: the chain goes to the same verifier that rustls uses.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use boring::error::ErrorStack;
use boring::ssl::{
    ErrorCode, Ssl, SslAlert, SslContext, SslMethod, SslRef, SslVerifyError, SslVerifyMode, SslVersion,
};
use rustls::CertificateError;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_boring::{HandshakeError, SslStreamBuilder};

use super::meter::Metered;
use super::secure::{SecureError, UpstreamTls};
use super::wire::Wire;

/// What the verifier said, if it said no.
type Refusal = Arc<Mutex<Option<rustls::Error>>>;

pub(super) async fn secure(
    stream: Metered,
    name: &str,
    host: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
    alpn: &[&[u8]],
) -> Result<UpstreamTls, SecureError> {
    let refusal = Refusal::default();
    let failed = |reason: String| SecureError::Handshake { name: name.into(), reason };
    let ssl = prepare(host, verifier, alpn, &refusal)
        .map_err(|fault| failed(format!("BoringSSL cannot be set up: {fault}")))?;
    let connected = SslStreamBuilder::new(ssl, CutIsError(stream)).connect().await;
    let stream = connected.map_err(|fault| explain(name, &refusal, &fault))?;
    let shown = stream.ssl().peer_certificate().and_then(|certificate| certificate.to_der().ok());
    let certificate = shown.ok_or_else(|| failed("the server showed no certificate".into()))?;
    let alpn = stream.ssl().selected_alpn_protocol().map(<[u8]>::to_vec);
    Ok(UpstreamTls { wire: Wire::from(stream), alpn, name: name.into(), certificate: certificate.into() })
}

fn prepare(
    host: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
    alpn: &[&[u8]],
    refusal: &Refusal,
) -> Result<Ssl, ErrorStack> {
    let mut ssl = Ssl::new(context()?)?;
    if let ServerName::DnsName(name) = &host {
        ssl.set_hostname(name.as_ref())?;
    }
    let offer: Vec<u8> = alpn
        .iter()
        .filter_map(|name| Some((u8::try_from(name.len()).ok()?, name)))
        .flat_map(|(length, name)| std::iter::once(length).chain(name.iter().copied()))
        .collect();
    if !offer.is_empty() {
        ssl.set_alpn_protos(&offer)?;
    }
    let refusal = Arc::clone(refusal);
    ssl.set_custom_verify_callback(SslVerifyMode::PEER, move |ssl| {
        verify(ssl, &host, &verifier).map_err(|fault| {
            let alert = alert_of(&fault);
            *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
            SslVerifyError::Invalid(alert)
        })
    });
    Ok(ssl)
}

/// One context for all legs; what differs (roots, name, ALPN) is set on each connection. No session is ever resumed here.
fn context() -> Result<&'static SslContext, ErrorStack> {
    static CONTEXT: OnceLock<SslContext> = OnceLock::new();
    if let Some(context) = CONTEXT.get() {
        return Ok(context);
    }
    let mut builder = SslContext::builder(SslMethod::tls())?;
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_grease_enabled(true);
    builder.set_permute_extensions(true);
    Ok(CONTEXT.get_or_init(|| builder.build()))
}

fn verify(ssl: &SslRef, host: &ServerName<'_>, verifier: &WebPkiServerVerifier) -> Result<(), rustls::Error> {
    let malformed = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
    let chain = ssl.peer_cert_chain().ok_or(rustls::Error::NoCertificatesPresented)?;
    let mut chain: Vec<CertificateDer<'static>> = chain
        .iter()
        .map(|certificate| certificate.to_der().map(CertificateDer::from).map_err(|_| malformed()))
        .collect::<Result<_, _>>()?;
    if chain.is_empty() {
        return Err(rustls::Error::NoCertificatesPresented);
    }
    let server = chain.remove(0);
    verifier.verify_server_cert(&server, &chain, host, &[], UnixTime::now()).map(|_| ())
}

fn alert_of(fault: &rustls::Error) -> SslAlert {
    match fault {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => SslAlert::UNKNOWN_CA,
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => SslAlert::CERTIFICATE_EXPIRED,
        _ => SslAlert::BAD_CERTIFICATE,
    }
}

fn explain(name: &str, refusal: &Refusal, fault: &HandshakeError<CutIsError>) -> SecureError {
    if let Some(why) = refusal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return SecureError::of(name, &io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let text = fault.to_string();
    let named = |reason: &str| SecureError::Handshake { name: name.into(), reason: reason.into() };
    if let Some(lost) = fault.as_io_error() {
        return SecureError::of(name, &io::Error::from(lost.kind()));
    }
    match fault.code() {
        Some(ErrorCode::SYSCALL | ErrorCode::ZERO_RETURN) => SecureError::Closed { name: name.into() },
        // BoringSSL's reasons are upper-case words, without bytes of the peer.
        _ if text.contains("PROTOCOL_VERSION") || text.contains("UNSUPPORTED_PROTOCOL") => {
            named("the server speaks neither TLS 1.2 nor 1.3")
        }
        _ if text.contains("CERTIFICATE_REQUIRED") => {
            named("the server demands a client certificate, which weir does not hold")
        }
        _ if text.contains("WRONG_VERSION_NUMBER") => named("the server does not speak TLS here"),
        _ => named(&text),
    }
}

/// BoringSSL's wrapper reports a bare FIN below TLS as an end; here it is an error, and only close_notify is an end
/// (after which BoringSSL reads no more).
#[derive(Debug)]
pub struct CutIsError(Metered);

impl CutIsError {
    pub(super) fn socket(&self) -> &TcpStream {
        self.0.tcp()
    }
}

impl AsyncRead for CutIsError {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (into.filled().len(), into.remaining());
        ready!(Pin::new(&mut self.0).poll_read(context, into))?;
        if room > 0 && into.filled().len() == before {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CutIsError {
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
