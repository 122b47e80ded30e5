//! The lines of a head (RFC 9112 section 2.2 and 5): where it ends, and its fields, as ranges of the original bytes.
//! It refuses bare CR or LF, folded lines, space before the colon, control bytes, and heads beyond the limits.

use core::ops::Range;

use memchr::memchr;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::{IResult, Parser};

use super::{Framing, Violation};
use crate::limits::{HTTP_FIELDS, HTTP_HEAD_BYTES, HTTP_LINE_BYTES};

/// Finds the end of a head in a growing buffer and never looks at a byte twice.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScan {
    start: usize,
    line: usize,
    seen: usize,
}

impl HeadScan {
    /// The range of the head with its final empty line, once it is complete. One empty line before it is skipped
    /// (RFC 9112 section 2.2) and is not part of the range. `bytes` must begin where it began in the last call.
    ///
    /// # Errors
    /// Line ends other than CR LF, and heads beyond the limits, as soon as they show.
    pub fn find(&mut self, bytes: &[u8]) -> Result<Option<Range<usize>>, Violation> {
        loop {
            let rest = bytes.get(self.seen..).unwrap_or_default();
            let Some(at) = memchr(b'\n', rest) else {
                self.seen = bytes.len();
                self.bounded(bytes.len())?;
                // No head can end inside what is left of the limit: say so before the buffer is full.
                return if bytes.len() - self.start >= HTTP_HEAD_BYTES {
                    Err(Violation::LargeHead)
                } else {
                    Ok(None)
                };
            };
            let end = self.seen + at + 1;
            self.bounded(end)?;
            let line = bytes.get(self.line..end).unwrap_or_default();
            if !line.ends_with(b"\r\n") {
                return Err(Violation::BareLineEnd);
            }
            self.seen = end;
            if line.len() > 2 {
                self.line = end;
            } else if self.line != self.start {
                return Ok(Some(self.start..end));
            } else if self.start == 0 {
                (self.start, self.line) = (end, end);
            } else {
                return Err(Violation::EmptyLines);
            }
        }
    }

    /// Whether some of a head has been seen.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.seen > self.start
    }

    fn bounded(&self, end: usize) -> Result<(), Violation> {
        let first = self.line == self.start;
        if end - self.line > HTTP_LINE_BYTES {
            return Err(if first { Violation::LongTarget } else { Violation::LargeHead });
        }
        if end - self.start > HTTP_HEAD_BYTES { Err(Violation::LargeHead) } else { Ok(()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// One field line: its name, its value without white space around it, and the whole line with CR LF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
    pub line: &'a [u8],
}

impl Field<'_> {
    /// Names are compared without regard to ASCII case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a head that was parsed before.
#[derive(Debug, Clone)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(block: &'a [u8]) -> Self {
        Self(block)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let (rest, field) = field_line(self.0).ok()?;
        self.0 = rest;
        Some(field)
    }
}

/// Checks every field line of `block` (which ends with the empty line) and shows each to `visit`.
pub(super) fn each_field<'a>(
    block: &'a [u8],
    mut visit: impl FnMut(&Field<'a>) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let mut rest = block;
    let mut count = 0;
    while rest != b"\r\n" {
        let (after, field) = field_line(rest).map_err(|_| diagnose(rest))?;
        count += 1;
        if count > HTTP_FIELDS {
            return Err(Violation::ManyFields);
        }
        visit(&field)?;
        rest = after;
    }
    Ok(())
}

/// `field-name ":" OWS field-value OWS CRLF`; nothing else.
pub(super) fn field_line(input: &[u8]) -> IResult<&[u8], Field<'_>> {
    let (rest, (name, _, value, _)) =
        (take_while1(is_token), tag(":"), take_while(is_value), tag("\r\n")).parse(input)?;
    let line = input.get(..input.len() - rest.len()).unwrap_or_default();
    Ok((rest, Field { name, value: trim(value), line }))
}

/// Why a field line was refused.
fn diagnose(rest: &[u8]) -> Violation {
    let line = memchr(b'\n', rest).and_then(|end| rest.get(..end)).unwrap_or(rest);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Violation::Folded;
    }
    if line.iter().any(|&byte| !is_value(byte)) {
        return Violation::ControlByte;
    }
    let name = memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
    if name.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Violation::SpaceBeforeColon;
    }
    Violation::Field
}

/// What the framing fields of a message say (RFC 9112 section 6.1 to 6.3), before method and status are looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lengths {
    length: Option<u64>,
    chunked: bool,
}

impl Lengths {
    /// Takes note of the field where it is about framing.
    pub(super) fn note(&mut self, field: &Field<'_>) -> Result<(), Violation> {
        if field.is("content-length") {
            if self.length.is_some() {
                return Err(Violation::ManyLengths);
            }
            self.length = Some(decimal(field.value).ok_or(Violation::Length)?);
        } else if field.is("transfer-encoding") {
            if self.chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::TransferEncoding);
            }
            self.chunked = true;
        }
        Ok(())
    }

    /// `None`: no field says how long the body is.
    pub(super) fn framing(self, version: Version) -> Result<Option<Framing>, Violation> {
        match (self.length, self.chunked, version) {
            (Some(_), true, _) => Err(Violation::LengthAndEncoding),
            (None, true, Version::Http10) => Err(Violation::OldTransferEncoding),
            (None, true, Version::Http11) => Ok(Some(Framing::Chunked)),
            (Some(0), false, _) => Ok(Some(Framing::Empty)),
            (Some(length), false, _) => Ok(Some(Framing::Length(length))),
            (None, false, _) => Ok(None),
        }
    }
}

/// What `Connection` fields say about the time after this message (RFC 9112 section 9.3).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Persistence {
    close: bool,
    keep_alive: bool,
}

impl Persistence {
    pub(super) fn note(&mut self, value: &[u8]) {
        for token in tokens(value) {
            self.close |= token.eq_ignore_ascii_case(b"close");
            self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    pub(super) fn persistent(self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

/// The members of a comma-separated list, without white space, empty members left out.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|token| !token.is_empty())
}

/// `1*DIGIT` that fits 64 bits.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |sum, byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
    })
}

/// Removes optional white space (SP and HTAB) at both ends.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// Bytes a field value may hold: HTAB, SP, visible characters and obs-text.
pub(super) fn is_value(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
            || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};
