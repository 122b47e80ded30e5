//! A request head (RFC 9112 section 3): the line, and the few fields that decide how the connection goes on.
//! It refuses what smuggling needs: doubtful lengths, doubtful hosts, spaces in the request line.

use nom::bytes::complete::{tag, take_while1};
use nom::{IResult, Parser};

use super::head::{Lengths, Persistence, each_field, is_token, tokens};
use super::{Authority, Fields, Framing, Target, Version, Violation};

/// A complete, well-formed request head. All slices lie in the bytes it was parsed from.
#[derive(Debug, Clone)]
pub struct RequestHead<'a> {
    bytes: &'a [u8],
    line: usize,
    pub method: &'a str,
    pub target: Target<'a>,
    pub version: Version,
    /// From the Host field or an absolute target; absent only in HTTP/1.0 or when the name is taken from elsewhere.
    pub host: Option<Authority<'a>>,
    pub framing: Framing,
    pub persistent: bool,
    /// `Expect: 100-continue`.
    pub expects: bool,
    pub upgrade: Upgrade,
    pub content_type: &'a [u8],
    /// A Content-Encoding other than `identity`.
    pub encoded: bool,
}

/// What an `Upgrade` field offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Upgrade {
    #[default]
    None,
    /// HTTP/2 without TLS only: an offer that may be left out (RFC 9110 section 7.8).
    H2c,
    /// A WebSocket or another protocol.
    Other,
}

impl<'a> RequestHead<'a> {
    /// Parses exactly one head, from the request line to the empty line.
    ///
    /// # Errors
    /// Anything outside the grammar, and every form that two parsers could read differently.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Violation> {
        let (block, (method, target, version)) = request_line(bytes).map_err(|_| diagnose(bytes))?;
        let method = core::str::from_utf8(method).map_err(|_| Violation::RequestLine)?;
        let target = Target::parse(method, target)?;
        let mut head = Self {
            bytes,
            line: bytes.len() - block.len(),
            method,
            target,
            version: version?,
            host: None,
            framing: Framing::Empty,
            persistent: false,
            expects: false,
            upgrade: Upgrade::None,
            content_type: b"",
            encoded: false,
        };
        head.read_fields(block)?;
        head.settle_host()?;
        Ok(head)
    }

    /// The head as it came.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The request line with its CR LF.
    #[must_use]
    pub fn line(&self) -> &'a [u8] {
        self.bytes.get(..self.line).unwrap_or_default()
    }

    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.bytes.get(self.line..).unwrap_or_default())
    }

    fn read_fields(&mut self, block: &'a [u8]) -> Result<(), Violation> {
        let mut lengths = Lengths::default();
        let mut persistence = Persistence::default();
        let (mut types, mut hosts) = (0, 0);
        each_field(block, |field| {
            // Only names of these lengths matter here; most fields are passed over by this comparison alone.
            match field.name.len() {
                4 if field.is("host") => {
                    hosts += 1;
                    self.host = Some(Authority::parse(field.value).ok_or(Violation::Host)?);
                }
                6 if field.is("expect") => {
                    if !field.value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Violation::Expect);
                    }
                    self.expects = true;
                }
                7 if field.is("upgrade") => self.upgrade = self.upgrade.and(field.value),
                10 if field.is("connection") => persistence.note(field.value),
                12 if field.is("content-type") => {
                    types += 1;
                    self.content_type = field.value;
                }
                16 if field.is("content-encoding") => {
                    self.encoded |=
                        tokens(field.value).any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
                }
                14 | 17 => lengths.note(field)?,
                _ => {}
            }
            Ok(())
        })?;
        if hosts > 1 {
            return Err(Violation::ManyHosts);
        }
        if types > 1 {
            return Err(Violation::Field);
        }
        self.framing = lengths.framing(self.version)?.unwrap_or(Framing::Empty);
        self.persistent = persistence.persistent(self.version);
        Ok(())
    }

    /// RFC 9112 section 3.2: one Host in 1.1; an absolute target must name the same host.
    fn settle_host(&mut self) -> Result<(), Violation> {
        if self.host.is_none() && self.version == Version::Http11 {
            return Err(Violation::NoHost);
        }
        if let Target::Absolute { authority, .. } = &self.target {
            match &self.host {
                Some(host) if !host.same(authority) => return Err(Violation::HostMismatch),
                Some(_) | None => self.host = Some(*authority),
            }
        }
        Ok(())
    }
}

impl Upgrade {
    fn and(self, value: &[u8]) -> Upgrade {
        tokens(value).fold(self, |seen, token| match seen {
            Upgrade::None | Upgrade::H2c if token.eq_ignore_ascii_case(b"h2c") => Upgrade::H2c,
            Upgrade::None | Upgrade::H2c | Upgrade::Other => Upgrade::Other,
        })
    }
}

type Line<'a> = (&'a [u8], &'a [u8], Result<Version, Violation>);

/// `method SP request-target SP HTTP-version CRLF`.
fn request_line(input: &[u8]) -> IResult<&[u8], Line<'_>> {
    let (rest, (method, _, target, _, _, version, _)) = (
        take_while1(is_token),
        tag(" "),
        take_while1(|byte| matches!(byte, 0x21..=0x7e)),
        tag(" "),
        tag("HTTP/"),
        take_while1(|byte: u8| byte.is_ascii_digit() || byte == b'.'),
        tag("\r\n"),
    )
        .parse(input)?;
    Ok((rest, (method, target, version_of(version))))
}

pub(super) fn version_of(text: &[u8]) -> Result<Version, Violation> {
    match text {
        b"1.1" => Ok(Version::Http11),
        b"1.0" => Ok(Version::Http10),
        _ => Err(Violation::Version),
    }
}

fn diagnose(bytes: &[u8]) -> Violation {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let control = line.strip_suffix(b"\r").unwrap_or(line).iter().any(|byte| *byte < 0x20 || *byte == 0x7f);
    if control { Violation::ControlByte } else { Violation::RequestLine }
}
