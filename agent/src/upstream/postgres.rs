//! PostgreSQL's own way into TLS: SSLRequest, one byte of answer, then the handshake; and whether a leg needs it.
//! It refuses a server's `N` where TLS was required, and bytes that follow the answer (a man in the middle's).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_core::policy::{TargetTls, TlsMode};

use super::meter::Metered;
use super::secure::{Connector, SecureError, UpstreamTls};
use super::wire::Wire;

/// A PostgreSQL leg, ready for the StartupMessage.
#[derive(Debug)]
pub enum PostgresLeg {
    Plain(Wire),
    Tls(UpstreamTls),
}

/// What the leg will carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The workload's own login, byte for byte. weir answered `N` to its SSLRequest, if it sent one.
    Relay { client_asked: bool },
    /// A credential that weir holds: without a rule that says otherwise it travels in verified TLS only.
    Login,
}

#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    #[error(
        "the server at {name} answers that it has no TLS, and this connection must have it: set `tls: {{mode: off}}` in the \
         policy file of this target if plain text is meant"
    )]
    NoTls { name: String },
    #[error("the server at {name} sent bytes after its answer to SSLRequest: someone may stand between")]
    Smuggled { name: String },
    #[error("the server at {name} does not answer SSLRequest as PostgreSQL does")]
    NotPostgres { name: String },
    #[error("the server at {name} did not answer SSLRequest within {} s", ANSWER.as_secs())]
    Slow { name: String },
    #[error("the connection to {name} broke before TLS: {kind}")]
    Lost { name: String, kind: io::ErrorKind },
    #[error(
        "{0}. Give the target `tls: {{ca: FILE}}` (and `name:`), or `tls: {{mode: off}}`, in the policy file"
    )]
    Unverified(SecureError),
    #[error(transparent)]
    Secure(SecureError),
}

/// Decides whether the leg gets TLS, and secures it. `name`: what to verify (host name or address); the policy's `tls.name`
/// comes first.
///
/// # Errors
/// See [`PostgresError`]. A certificate that does not verify is never passed over.
pub async fn postgres_leg(
    connector: &Connector,
    stream: impl Into<Metered>,
    name: &str,
    tls: &TargetTls,
    purpose: Purpose,
) -> Result<PostgresLeg, PostgresError> {
    let stream = stream.into();
    let peer = stream.tcp().peer_addr().map_err(|fault| lost(name, &fault))?;
    carry_out(plan(tls.mode, peer.ip().to_canonical().is_loopback(), purpose), connector, stream, name, tls)
        .await
}

pub(super) async fn carry_out(
    plan: Plan,
    connector: &Connector,
    stream: impl Into<Metered>,
    name: &str,
    tls: &TargetTls,
) -> Result<PostgresLeg, PostgresError> {
    let mut stream = stream.into();
    match plan {
        Plan::Plain => Ok(PostgresLeg::Plain(stream.into())),
        Plan::Required => postgres_tls(connector, stream, name, tls).await.map(PostgresLeg::Tls),
        Plan::IfOffered => match ask(&mut stream, name).await? {
            Answer::Tls => handshake(connector, stream, name, tls).await.map(PostgresLeg::Tls),
            Answer::Plain => Ok(PostgresLeg::Plain(stream.into())),
        },
    }
}

/// SSLRequest, `S`, verified TLS; anything else is an error (PostgreSQL, "SSL Session Encryption").
///
/// # Errors
/// See [`PostgresError`].
pub async fn postgres_tls(
    connector: &Connector,
    stream: impl Into<Metered>,
    name: &str,
    tls: &TargetTls,
) -> Result<UpstreamTls, PostgresError> {
    let mut stream = stream.into();
    match ask(&mut stream, name).await? {
        Answer::Tls => handshake(connector, stream, name, tls).await,
        Answer::Plain => Err(PostgresError::NoTls { name: name.into() }),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plan {
    Plain,
    /// Verified TLS or nothing.
    Required,
    /// As `sslmode=prefer`, but verified: the client, told `N`, was content with plain text.
    IfOffered,
}

pub(super) fn plan(mode: TlsMode, loopback: bool, purpose: Purpose) -> Plan {
    match (mode, purpose) {
        (TlsMode::Off, _) => Plan::Plain,
        (TlsMode::Verify, _) => Plan::Required,
        // Nobody stands between two sockets of one host.
        (TlsMode::Auto, _) if loopback => Plan::Plain,
        (TlsMode::Auto, Purpose::Login) => Plan::Required,
        (TlsMode::Auto, Purpose::Relay { client_asked: true }) => Plan::IfOffered,
        (TlsMode::Auto, Purpose::Relay { client_asked: false }) => Plan::Plain,
    }
}

enum Answer {
    Tls,
    Plain,
}

async fn ask(stream: &mut Metered, name: &str) -> Result<Answer, PostgresError> {
    let mut answer = [0_u8; 1];
    let exchange = async {
        stream.write_all(&SSL_REQUEST).await?;
        stream.read_exact(&mut answer).await
    };
    let slow = |_| PostgresError::Slow { name: name.into() };
    tokio::time::timeout(ANSWER, exchange).await.map_err(slow)?.map_err(|fault| lost(name, &fault))?;
    // Nothing may follow before our next message. What comes later still meets the TLS parser, never a reader of plain text.
    match stream.tcp().try_read(&mut [0_u8; 1]) {
        Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
        Err(fault) => return Err(lost(name, &fault)),
        Ok(0) => return Err(lost(name, &io::ErrorKind::UnexpectedEof.into())),
        Ok(_) => return Err(PostgresError::Smuggled { name: name.into() }),
    }
    match answer {
        [b'S'] => Ok(Answer::Tls),
        [b'N'] => Ok(Answer::Plain),
        [_] => Err(PostgresError::NotPostgres { name: name.into() }),
    }
}

async fn handshake(
    connector: &Connector,
    stream: Metered,
    name: &str,
    tls: &TargetTls,
) -> Result<UpstreamTls, PostgresError> {
    connector.secure(stream, name, tls, &[ALPN]).await.map_err(|fault| {
        if fault.is_verification() { PostgresError::Unverified(fault) } else { PostgresError::Secure(fault) }
    })
}

fn lost(name: &str, fault: &io::Error) -> PostgresError {
    PostgresError::Lost { name: name.into(), kind: fault.kind() }
}

/// Length 8, code 80877103 (PostgreSQL, "Message Formats").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// Servers from 17 on choose it; older ones ignore the offer.
const ALPN: &[u8] = b"postgresql";
/// One round trip and a fork of the server.
const ANSWER: Duration = Duration::from_secs(10);
