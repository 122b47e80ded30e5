//! The TLS ClientHello (RFC 8446 section 4.1.2), read only for the server name and ALPN: weir's TLS itself is rustls.
//! It refuses SSLv2 hellos, records out of bounds, and a hello whose inner lengths do not add up.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use nom::bytes::complete::take;
use nom::combinator::{all_consuming, rest};
use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16, be_u24};
use nom::{IResult, Parser};

use crate::limits::SNIFF_BYTES;

#[cfg(test)]
mod tests;

/// What a client offers, as far as routing needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientHello {
    /// Server name, lower case, a DNS name (RFC 6066 section 3 forbids addresses).
    pub sni: Option<String>,
    /// Protocol names in the client's order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// Reads a ClientHello from the first bytes of a connection. `Ok(None)`: more bytes are needed.
///
/// # Errors
/// A fixed text that says which rule was broken.
pub fn client_hello(bytes: &[u8]) -> Result<Option<ClientHello>, &'static str> {
    let Some(handshake) = reassemble(bytes)? else { return Ok(None) };
    let (_, body) = all_consuming(hello_message).parse(&handshake).map_err(|_| MALFORMED)?;
    read(body).map(Some)
}

const MALFORMED: &str = "malformed TLS ClientHello";
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Largest plaintext record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// Joins the payloads of handshake records until one whole handshake message is there.
fn reassemble(bytes: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut message: Vec<u8> = Vec::new();
    let mut input = bytes;
    loop {
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err("TLS begins with another message than ClientHello");
        }
        if let [_, high, middle, low, body @ ..] = message.as_slice() {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length + 4 > SNIFF_BYTES {
                return Err("TLS ClientHello is too large");
            }
            // Nothing may follow in the last record: the client must wait for the server (RFC 8446 section 5.1).
            match body.len() {
                present if present == length => return Ok(Some(message)),
                present if present > length => return Err(MALFORMED),
                _ => {}
            }
        }
        let (kind, version, length) = match input {
            [kind, major, _, high, low, ..] => (*kind, *major, usize::from(*high) << 8 | usize::from(*low)),
            [kind, ..] if *kind != HANDSHAKE => return Err("not a TLS handshake record"),
            [_, major, ..] if *major != 3 => return Err("not TLS 1.x"),
            [..] => return Ok(None),
        };
        if kind != HANDSHAKE || version != 3 {
            return Err("not a TLS handshake record");
        }
        if length == 0 || length > RECORD_BYTES {
            return Err("TLS record of a forbidden length");
        }
        let present = input.get(5..).unwrap_or_default();
        message.extend_from_slice(present.get(..length).unwrap_or(present));
        if present.len() < length {
            // The header of the message may show a fault already; the loop above looks only at whole records.
            return match message.first() {
                Some(kind) if *kind != CLIENT_HELLO => {
                    Err("TLS begins with another message than ClientHello")
                }
                Some(_) | None => Ok(None),
            };
        }
        input = present.get(length..).unwrap_or_default();
    }
}

fn hello_message(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let (input, _) = be_u8(input)?;
    length_data(be_u24).parse(input)
}

/// `legacy_version random session_id cipher_suites compression_methods [extensions]`.
fn read(body: &[u8]) -> Result<ClientHello, &'static str> {
    let (_, (_, _, session, ciphers, compressions, extensions)) = all_consuming((
        be_u16,
        take(32usize),
        length_data(be_u8),
        length_data(be_u16),
        length_data(be_u8),
        rest,
    ))
    .parse(body)
    .map_err(|_: nom::Err<nom::error::Error<&[u8]>>| MALFORMED)?;
    if session.len() > 32 || ciphers.is_empty() || ciphers.len() % 2 != 0 || compressions.is_empty() {
        return Err(MALFORMED);
    }
    let mut hello = ClientHello::default();
    if extensions.is_empty() {
        return Ok(hello);
    }
    let (_, list) = all_consuming(length_data(be_u16))
        .parse(extensions)
        .map_err(|_: nom::Err<nom::error::Error<&[u8]>>| MALFORMED)?;
    let (_, extensions) = all_consuming(many0(extension)).parse(list).map_err(|_| MALFORMED)?;
    let mut kinds: Vec<u16> = extensions.iter().map(|(kind, _)| *kind).collect();
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
        return Err("TLS ClientHello repeats an extension");
    }
    for (kind, content) in extensions {
        match kind {
            0 => hello.sni = Some(server_name(content)?),
            16 => hello.alpn = protocols(content)?,
            _ => {}
        }
    }
    Ok(hello)
}

fn extension(input: &[u8]) -> IResult<&[u8], (u16, &[u8])> {
    (be_u16, length_data(be_u16)).parse(input)
}

fn server_name(content: &[u8]) -> Result<String, &'static str> {
    const BAD: &str = "TLS ClientHello names the server in a malformed way";
    let one = |input| -> IResult<&[u8], (u8, &[u8])> { (be_u8, length_data(be_u16)).parse(input) };
    let (_, list) = all_consuming(length_data(be_u16))
        .parse(content)
        .map_err(|_: nom::Err<nom::error::Error<&[u8]>>| BAD)?;
    // Exactly one name of type host_name: no other type was ever defined.
    let (_, (kind, name)) = all_consuming(one).parse(list).map_err(|_| BAD)?;
    let name = core::str::from_utf8(name).map_err(|_| BAD)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let name = name.strip_suffix('.').unwrap_or(name);
    if kind != 0
        || name.is_empty()
        || name.len() > 253
        || !name.bytes().all(plain)
        || name.parse::<IpAddr>().is_ok()
    {
        return Err(BAD);
    }
    Ok(name.to_ascii_lowercase())
}

fn protocols(content: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    const BAD: &str = "TLS ClientHello offers protocols in a malformed way";
    let (_, list) = all_consuming(length_data(be_u16))
        .parse(content)
        .map_err(|_: nom::Err<nom::error::Error<&[u8]>>| BAD)?;
    let names = many0(length_data::<_, nom::error::Error<&[u8]>, _>(be_u8));
    let (_, names) = all_consuming(names).parse(list).map_err(|_| BAD)?;
    if names.is_empty() || names.iter().any(|name| name.is_empty()) {
        return Err(BAD);
    }
    Ok(names.into_iter().map(<[u8]>::to_vec).collect())
}
