//! Chunked bodies (RFC 9112 section 7.1): sizes, extensions and trailers are checked, and can be forwarded as they came.
//! It refuses sizes with sign, prefix, spaces or more than 16 digits, bare line ends, and trailers that would frame or route.

use memchr::memchr;
use nom::bytes::complete::{tag, take_while, take_while_m_n};
use nom::combinator::opt;
use nom::{IResult, Parser};

use super::head::{field_line, is_value};
use super::{Step, Violation};
use crate::limits::{HTTP_CHUNK_LINE_BYTES, HTTP_FIELDS, HTTP_HEAD_BYTES, HTTP_LINE_BYTES};

/// Where in a chunked body the stream stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Chunked {
    state: State,
    trailer_bytes: usize,
    trailer_fields: usize,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Content(u64),
    ContentEnd,
    Trailer,
    Done,
}

impl Chunked {
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    pub(super) fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        match self.state {
            State::Size => self.size(input),
            State::Content(left) => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                let left = left - taken as u64;
                self.state = if left == 0 { State::ContentEnd } else { State::Content(left) };
                Ok(Step { taken, content: 0..taken })
            }
            State::ContentEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok(framing(2))
                }
                [] | [b'\r'] => Ok(framing(0)),
                [..] => Err(Violation::ChunkEnd),
            },
            State::Trailer => self.trailer(input),
            State::Done => Ok(framing(0)),
        }
    }

    fn size(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let Some(line) = line(input, HTTP_CHUNK_LINE_BYTES, Violation::LongChunkLine)? else {
            return Ok(framing(0));
        };
        let (_, size) = size_line(line).map_err(|_| Violation::ChunkSize)?;
        self.state = match size {
            0 => State::Trailer,
            size => State::Content(size),
        };
        Ok(framing(line.len()))
    }

    fn trailer(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let Some(line) = line(input, HTTP_LINE_BYTES, Violation::LargeHead)? else {
            return Ok(framing(0));
        };
        self.trailer_bytes += line.len();
        if self.trailer_bytes > HTTP_HEAD_BYTES {
            return Err(Violation::LargeHead);
        }
        if line == b"\r\n" {
            self.state = State::Done;
            return Ok(framing(2));
        }
        self.trailer_fields += 1;
        if self.trailer_fields > HTTP_FIELDS {
            return Err(Violation::ManyFields);
        }
        let (_, field) = field_line(line).map_err(|_| Violation::Trailer)?;
        if FORBIDDEN_TRAILERS.iter().any(|name| field.is(name)) {
            return Err(Violation::Trailer);
        }
        Ok(framing(line.len()))
    }
}

fn framing(taken: usize) -> Step {
    Step { taken, content: 0..0 }
}

/// The next line with its line feed, once it is complete.
fn line(input: &[u8], limit: usize, beyond: Violation) -> Result<Option<&[u8]>, Violation> {
    let window = input.get(..limit).unwrap_or(input);
    match memchr(b'\n', window) {
        Some(end) => Ok(window.get(..=end)),
        None if window.len() < limit => Ok(None),
        None => Err(beyond),
    }
}

/// `1*16HEXDIG [";" extension] CRLF`.
fn size_line(line: &[u8]) -> IResult<&[u8], u64> {
    let (rest, (digits, _, _)) = (
        take_while_m_n(1, 16, |byte: u8| byte.is_ascii_hexdigit()),
        opt((tag(";"), take_while(is_value))),
        tag("\r\n"),
    )
        .parse(line)?;
    let size = digits
        .iter()
        .fold(0u64, |size, byte| size << 4 | u64::from((*byte as char).to_digit(16).unwrap_or(0)));
    Ok((rest, size))
}

/// Fields that must not stand in trailers because they frame, route or authenticate (RFC 9110 section 6.5.1).
const FORBIDDEN_TRAILERS: &[&str] = &[
    "transfer-encoding",
    "content-length",
    "host",
    "trailer",
    "connection",
    "upgrade",
    "te",
    "expect",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "content-encoding",
    "content-type",
    "content-range",
    "alt-svc",
];
