//! A response head (RFC 9112 section 4): status, how long the body is, and what it is made of.
//! It refuses lengths that two parsers could read differently, and bodies where the status forbids one.

use nom::bytes::complete::{tag, take, take_while, take_while1};
use nom::combinator::opt;
use nom::{IResult, Parser};

use super::head::{Lengths, Persistence, each_field, is_value, tokens};
use super::request::version_of;
use super::{Fields, Framing, Version, Violation};

/// A complete, well-formed response head. All slices lie in the bytes it was parsed from.
#[derive(Debug, Clone)]
pub struct ResponseHead<'a> {
    bytes: &'a [u8],
    line: usize,
    pub version: Version,
    pub status: u16,
    /// How the body is delimited, given the method of the request.
    pub framing: Framing,
    pub persistent: bool,
    pub content_type: &'a [u8],
    /// A Content-Encoding other than `identity`.
    pub encoded: bool,
    /// There is an `Alt-Svc` field.
    pub alternatives: bool,
}

impl<'a> ResponseHead<'a> {
    /// Parses exactly one head, from the status line to the empty line. `head` says that the request was HEAD.
    ///
    /// # Errors
    /// Anything outside the grammar, and every form that two parsers could read differently.
    pub fn parse(bytes: &'a [u8], head: bool) -> Result<Self, Violation> {
        let (block, (version, status)) = status_line(bytes).map_err(|_| Violation::StatusLine)?;
        let version = version?;
        let status = status_of(status).ok_or(Violation::StatusLine)?;
        let mut response = Self {
            bytes,
            line: bytes.len() - block.len(),
            version,
            status,
            framing: Framing::Empty,
            persistent: false,
            content_type: b"",
            encoded: false,
            alternatives: false,
        };
        let mut lengths = Lengths::default();
        let mut persistence = Persistence::default();
        let mut types = 0;
        each_field(block, |field| {
            match field.name.len() {
                7 if field.is("alt-svc") => response.alternatives = true,
                10 if field.is("connection") => persistence.note(field.value),
                12 if field.is("content-type") => {
                    types += 1;
                    response.content_type = field.value;
                }
                16 if field.is("content-encoding") => {
                    response.encoded |=
                        tokens(field.value).any(|coding| !coding.eq_ignore_ascii_case(b"identity"));
                }
                14 | 17 => lengths.note(field)?,
                _ => {}
            }
            Ok(())
        })?;
        if types > 1 {
            return Err(Violation::Field);
        }
        let stated = lengths.framing(version)?;
        response.framing = framing(stated, status, head)?;
        response.persistent = persistence.persistent(version) && response.framing != Framing::UntilClose;
        Ok(response)
    }

    /// The head as it came.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The status line with its CR LF.
    #[must_use]
    pub fn line(&self) -> &'a [u8] {
        self.bytes.get(..self.line).unwrap_or_default()
    }

    #[must_use]
    pub fn fields(&self) -> Fields<'a> {
        Fields::new(self.bytes.get(self.line..).unwrap_or_default())
    }

    /// 1xx: another head follows for the same request.
    #[must_use]
    pub fn interim(&self) -> bool {
        self.status < 200
    }
}

/// RFC 9112 section 6.3. A 204 or 1xx that announces a body is refused, since not every client would read it.
fn framing(stated: Option<Framing>, status: u16, head: bool) -> Result<Framing, Violation> {
    if status < 200 || status == 204 {
        return match stated {
            None | Some(Framing::Empty) => Ok(Framing::Empty),
            Some(Framing::Length(_) | Framing::Chunked | Framing::UntilClose) => {
                Err(Violation::ForbiddenBody)
            }
        };
    }
    if head || status == 304 {
        return Ok(Framing::Empty);
    }
    Ok(stated.unwrap_or(Framing::UntilClose))
}

type Line<'a> = (Result<Version, Violation>, &'a [u8]);

/// `HTTP-version SP status-code [SP reason-phrase] CRLF`; the second space is left out by some servers.
fn status_line(input: &[u8]) -> IResult<&[u8], Line<'_>> {
    let (rest, (_, version, _, status, _, _)) = (
        tag("HTTP/"),
        take_while1(|byte: u8| byte.is_ascii_digit() || byte == b'.'),
        tag(" "),
        take(3usize),
        opt((tag(" "), take_while(is_value))),
        tag("\r\n"),
    )
        .parse(input)?;
    Ok((rest, (version_of(version), status)))
}

fn status_of(digits: &[u8]) -> Option<u16> {
    let text =
        core::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|status| (100..600).contains(status))
}
