//! weir's own PostgreSQL login: StartupMessage, then trust, md5, SCRAM-SHA-256 or SCRAM-SHA-256-PLUS, up to ReadyForQuery.
//! It refuses a clear-text password outside verified TLS, a server that cannot prove it knows the password, and floods.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::authentication::sasl::{SCRAM_SHA_256, SCRAM_SHA_256_PLUS};
use postgres_protocol::message::frontend;
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use weir_core::limits::PG_AUTH_BYTES;
use zeroize::Zeroize;

use super::proof::Prover;
use crate::lane::message::Binding;

/// Who logs in, how.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    pub user: &'a str,
    pub password: &'a dyn Prover,
    /// The workload's start-up parameters, `user` and `_pq_.` options left out; the protocol is 3.0, so a client that asked
    /// for more must be told so (NegotiateProtocolVersion) by the session.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The server's certificate when the leg is verified TLS: allows clear text, and binds SCRAM to it.
    pub certificate: Option<&'a [u8]>,
}

impl std::fmt::Debug for Login<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server's own refusal (28P01, 3D000, 53300 …): code and message may be told to the workload.
    #[error("the server refuses the login: {code} {message}")]
    Refused { code: String, message: String },
    #[error("the server asks for {0}, which weir does not do")]
    Method(String),
    #[error("the server wants the password in clear text on a connection without verified TLS")]
    ClearText,
    /// The server could not prove that it knows the password, or broke SCRAM: nothing it says is to be believed.
    #[error("the server did not prove itself in SCRAM: {0}")]
    Unproven(String),
    #[error("the server broke the protocol at log-in: {0}")]
    Violation(&'static str),
    #[error("the password: {0}")]
    Password(String),
    #[error("start-up parameter {0:?} may not be sent")]
    Parameter(String),
    #[error("the connection broke at log-in: {0}")]
    Lost(io::ErrorKind),
    #[error("the server took longer than {} s to log in", LOGIN.as_secs())]
    Slow,
}

/// Logs in and returns what the server sent after AuthenticationOk, through ReadyForQuery, byte for byte: it belongs to the
/// workload's client. Not one byte beyond is read.
///
/// # Errors
/// See [`LoginError`]; none holds a secret.
pub async fn postgres_login<S>(stream: &mut S, login: &Login<'_>) -> Result<Vec<u8>, LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let whole = async {
        send(stream, startup(login)?).await?;
        authenticate(stream, login).await?;
        greeting(stream).await
    };
    tokio::time::timeout(LOGIN, whole).await.map_err(|_| LoginError::Slow)?
}

async fn authenticate<S>(stream: &mut S, login: &Login<'_>) -> Result<(), LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut asked = false;
    loop {
        let body = authentication(stream).await?;
        let (kind, rest) = body.split_first_chunk::<4>().ok_or(LoginError::Violation("a short request"))?;
        let kind = i32::from_be_bytes(*kind);
        match kind {
            OK => return Ok(()),
            // One password exchange a login: a server that asks twice is after something.
            _ if asked => return Err(LoginError::Violation("asks for the password twice")),
            CLEAR_TEXT if login.certificate.is_none() => return Err(LoginError::ClearText),
            CLEAR_TEXT => {
                let password = login.password.clear_text().map_err(LoginError::Password)?;
                send_password(stream, &password).await?;
            }
            MD5 => {
                let salt = rest.try_into().map_err(|_| LoginError::Violation("a salt of another length"))?;
                let answer = login.password.md5(login.user, salt).map_err(LoginError::Password)?;
                send_password(stream, &answer).await?;
            }
            SASL => scram(stream, login, rest).await?,
            other => return Err(LoginError::Method(method(other))),
        }
        asked = true;
    }
}

/// RFC 5802 and 7677; the server's signature is checked before anything it says is passed on.
async fn scram<S>(stream: &mut S, login: &Login<'_>, offer: &[u8]) -> Result<(), LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let offered = |name: &str| offer.split(|byte| *byte == 0).any(|one| one == name.as_bytes());
    let endpoint = login.certificate.and_then(server_end_point);
    let (mechanism, binding) = match endpoint {
        Some(hash) if offered(SCRAM_SHA_256_PLUS) => (SCRAM_SHA_256_PLUS, Binding::EndPoint(hash)),
        // `y`: we could have bound, and a server that offered it will notice that somebody struck its offer out.
        Some(_) if offered(SCRAM_SHA_256) => (SCRAM_SHA_256, Binding::Unrequested),
        None if offered(SCRAM_SHA_256) => (SCRAM_SHA_256, Binding::Unsupported),
        Some(_) | None => return Err(LoginError::Method("an unknown SASL mechanism".into())),
    };
    let mut scram = login.password.scram(binding).map_err(LoginError::Password)?;
    let mut out = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut out).map_err(|_| too_long())?;
    send(stream, out).await?;
    scram.update(&expect(stream, SASL_CONTINUE).await?).map_err(LoginError::Unproven)?;
    let mut out = BytesMut::new();
    frontend::sasl_response(scram.message(), &mut out).map_err(|_| too_long())?;
    send(stream, out).await?;
    scram.finish(&expect(stream, SASL_FINAL).await?).map_err(LoginError::Unproven)
}

async fn expect<S>(stream: &mut S, kind: i32) -> Result<Vec<u8>, LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut body = authentication(stream).await?;
    match body.split_first_chunk::<4>() {
        Some((head, _)) if i32::from_be_bytes(*head) == kind => Ok(body.split_off(4)),
        Some(_) | None => Err(LoginError::Violation("leaves SCRAM in the middle")),
    }
}

/// The next authentication request; notices before it are dropped, an ErrorResponse ends the login.
async fn authentication<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, LoginError> {
    for _ in 0..MESSAGES {
        let (kind, body) = message(stream).await?;
        match kind {
            b'R' => return Ok(body),
            b'N' => {}
            b'E' => return Err(refusal(&body)),
            b'v' => return Err(LoginError::Violation("knows no protocol 3.0")),
            _ => return Err(LoginError::Violation("sends another message before it has authenticated")),
        }
    }
    Err(LoginError::Violation("sends too many notices"))
}

async fn greeting<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, LoginError> {
    let mut all = Vec::with_capacity(512);
    for _ in 0..MESSAGES {
        let (kind, body) = message(stream).await?;
        match kind {
            b'E' => return Err(refusal(&body)),
            b'S' | b'K' | b'N' | b'Z' => {}
            _ => return Err(LoginError::Violation("sends another message before ReadyForQuery")),
        }
        let length = u32::try_from(body.len() + 4).map_err(|_| too_long())?;
        all.push(kind);
        all.extend_from_slice(&length.to_be_bytes());
        all.extend_from_slice(&body);
        if kind == b'Z' {
            return Ok(all);
        }
        if all.len() > GREETING_BYTES {
            return Err(too_long());
        }
    }
    Err(LoginError::Violation("sends too many messages before ReadyForQuery"))
}

async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(u8, Vec<u8>), LoginError> {
    let lost = |fault: io::Error| LoginError::Lost(fault.kind());
    let mut head = [0_u8; 5];
    stream.read_exact(&mut head).await.map_err(lost)?;
    let [kind, length @ ..] = head;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| too_long())?;
    let length = length.checked_sub(4).ok_or(LoginError::Violation("a length below four"))?;
    if length > PG_AUTH_BYTES {
        return Err(too_long());
    }
    let mut body = vec![0_u8; length];
    stream.read_exact(&mut body).await.map_err(lost)?;
    Ok((kind, body))
}

fn startup(login: &Login<'_>) -> Result<BytesMut, LoginError> {
    let bad = |name: &str| LoginError::Parameter(name.chars().take(64).collect());
    for (name, value) in login.parameters {
        if *name == "user"
            || name.is_empty()
            || name.starts_with("_pq_.")
            || name.contains('\0')
            || value.contains('\0')
        {
            return Err(bad(name));
        }
    }
    let all = std::iter::once(("user", login.user)).chain(login.parameters.iter().copied());
    let mut out = BytesMut::new();
    frontend::startup_message(all, &mut out).map_err(|_| bad("user"))?;
    Ok(out)
}

async fn send_password<S: AsyncWrite + Unpin>(stream: &mut S, password: &[u8]) -> Result<(), LoginError> {
    let mut out = BytesMut::with_capacity(password.len() + 6);
    frontend::password_message(password, &mut out)
        .map_err(|_| LoginError::Method("a password without NUL bytes".into()))?;
    send(stream, out).await
}

/// Sends and wipes: the buffer may hold the password.
async fn send<S: AsyncWrite + Unpin>(stream: &mut S, mut bytes: BytesMut) -> Result<(), LoginError> {
    let sent = async {
        stream.write_all(&bytes).await?;
        stream.flush().await
    };
    let sent = sent.await.map_err(|fault| LoginError::Lost(fault.kind()));
    bytes.zeroize();
    sent
}

/// SQLSTATE and message of an ErrorResponse, shortened and without control characters.
fn refusal(body: &[u8]) -> LoginError {
    let field = |wanted: u8, most: usize| {
        let found = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(&[wanted]));
        let text = String::from_utf8_lossy(found.unwrap_or_default());
        text.chars().filter(|letter| !letter.is_control()).take(most).collect::<String>()
    };
    LoginError::Refused { code: field(b'C', 5), message: field(b'M', 300) }
}

/// The hash of the server's certificate (RFC 5929, 4.1): by its signature's hash, MD5 and SHA-1 raised to SHA-256. `None`
/// where the signature names no hash (Ed25519) or hides it in parameters (RSA-PSS): then there is no binding.
pub(super) fn server_end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    match certificate.signature_algorithm.algorithm.to_id_string().as_str() {
        // md5/sha1/sha256 with RSA; ecdsa with sha1/sha256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(der).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(der).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(der).to_vec()),
        _ => None,
    }
}

fn method(kind: i32) -> String {
    match kind {
        2 => "Kerberos V5".into(),
        7 | 8 => "GSSAPI".into(),
        9 => "SSPI".into(),
        other => format!("authentication method {other}"),
    }
}

fn too_long() -> LoginError {
    LoginError::Violation("a message beyond the bound")
}

// PostgreSQL, "Message Formats", Authentication*.
const OK: i32 = 0;
const CLEAR_TEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;
/// Messages a server may send in one phase; PostgreSQL 18 sends about 20.
const MESSAGES: usize = 1_000;
/// Bytes between AuthenticationOk and ReadyForQuery; PostgreSQL 18 sends about 500.
const GREETING_BYTES: usize = 256 * 1024;
/// A server forks, resolves, asks its directory: longer than that is stuck.
const LOGIN: Duration = Duration::from_secs(30);
