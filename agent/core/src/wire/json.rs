//! JSON (RFC 8259) as spans: where each key and value stands and under which keys, so that one value can be replaced
//! and every other byte kept. It refuses what readers disagree about: bad UTF-8, lone surrogates, trailing text, depth.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use memchr::memchr3;
use nom::branch::alt;
use nom::bytes::complete::{tag, take_while_m_n, take_while1};
use nom::combinator::{opt, recognize};
use nom::{IResult, Parser};

use crate::limits::JSON_DEPTH;

#[cfg(test)]
mod tests;

/// What stands at a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A member's name, quotes included. The last step of the path is this key.
    Key,
    /// A string value, quotes included.
    String,
    Number,
    /// `true` or `false`.
    Boolean,
    Null,
}

/// How many values a text holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    One,
    /// One after another, as in NDJSON.
    Many,
}

/// Why a text is not JSON, without a byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("the JSON is malformed")]
    Syntax,
    #[error("the JSON is not UTF-8")]
    Encoding,
    #[error("a JSON string holds half of a surrogate pair")]
    Surrogate,
    #[error("the JSON is nested too deep")]
    Depth,
}

/// The keys from the root to a value. Arrays add no step: `{"a": [{"b": 1}]}` has the path `a`, `b`.
pub type Path<'p, 'a> = &'p [Cow<'a, str>];

/// Shows every key and every scalar value of `bytes` in order, duplicates included.
///
/// # Errors
/// Text that is not strict JSON; values before the fault have been shown by then.
pub fn scan<'a>(
    bytes: &'a [u8],
    documents: Documents,
    mut visit: impl FnMut(Path<'_, 'a>, Range<usize>, Kind),
) -> Result<(), JsonError> {
    let text = core::str::from_utf8(bytes).map_err(|_| JsonError::Encoding)?;
    let mut scan = Scan { text, at: 0, path: Vec::new(), open: Vec::new() };
    loop {
        scan.space();
        scan.document(&mut visit)?;
        scan.space();
        match documents {
            _ if scan.at == text.len() => return Ok(()),
            Documents::One => return Err(JsonError::Syntax),
            Documents::Many => {}
        }
    }
}

/// The text of a string token (quotes included).
///
/// # Errors
/// Not a string token, a bad escape, or half of a surrogate pair.
pub fn unescape(token: &str) -> Result<Cow<'_, str>, JsonError> {
    let inner = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(JsonError::Syntax)?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    while let Some((plain, after)) = rest.split_once('\\') {
        text.push_str(plain);
        let (character, after) = escape(after)?;
        text.push(character);
        rest = after;
    }
    text.push_str(rest);
    Ok(Cow::Owned(text))
}

/// Appends `text` as a string token. Only what must be escaped is.
pub fn quote(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0') as u8;
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
            byte => out.push(byte),
        }
    }
    out.push(b'"');
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    path: Vec<Cow<'a, str>>,
    open: Vec<Container>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

impl<'a> Scan<'a> {
    /// One value with everything in it. A loop, not a recursion: depth costs no stack.
    fn document(
        &mut self,
        visit: &mut impl FnMut(Path<'_, 'a>, Range<usize>, Kind),
    ) -> Result<(), JsonError> {
        loop {
            // Here a value must begin.
            match self.peek() {
                Some(b'[') => {
                    self.enter(Container::Array)?;
                    if !self.took(b']') {
                        continue;
                    }
                    self.open.pop();
                }
                Some(b'{') => {
                    self.enter(Container::Object)?;
                    if !self.took(b'}') {
                        self.key(visit)?;
                        continue;
                    }
                    self.open.pop();
                }
                Some(_) | None => {
                    let (span, kind) = self.scalar()?;
                    visit(&self.path, span, kind);
                }
            }
            // Here a value has ended: close what ends with it.
            loop {
                self.space();
                let Some(container) = self.open.last().copied() else { return Ok(()) };
                if container == Container::Object {
                    self.path.pop();
                }
                let end = if container == Container::Array { b']' } else { b'}' };
                if self.took(b',') {
                    match container {
                        Container::Array => self.space(),
                        Container::Object => self.key(visit)?,
                    }
                    break;
                }
                if !self.took(end) {
                    return Err(JsonError::Syntax);
                }
                self.open.pop();
            }
        }
    }

    fn enter(&mut self, container: Container) -> Result<(), JsonError> {
        if self.open.len() == JSON_DEPTH {
            return Err(JsonError::Depth);
        }
        self.open.push(container);
        self.at += 1;
        self.space();
        Ok(())
    }

    /// `"key" :` and the space up to its value; the key becomes the last step of the path.
    fn key(&mut self, visit: &mut impl FnMut(Path<'_, 'a>, Range<usize>, Kind)) -> Result<(), JsonError> {
        self.space();
        let span = self.string()?;
        self.path.push(unescape(self.text.get(span.clone()).unwrap_or_default())?);
        visit(&self.path, span, Kind::Key);
        self.space();
        if !self.took(b':') {
            return Err(JsonError::Syntax);
        }
        self.space();
        Ok(())
    }

    fn scalar(&mut self) -> Result<(Range<usize>, Kind), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'"') {
            let span = self.string()?;
            unescape(self.text.get(span.clone()).unwrap_or_default())?;
            return Ok((span, Kind::String));
        }
        let (rest, kind) = plain_scalar(self.rest()).map_err(|_| JsonError::Syntax)?;
        self.at = self.text.len() - rest.len();
        Ok((start..self.at, kind))
    }

    /// A string token; its escapes are checked by [`unescape`].
    fn string(&mut self) -> Result<Range<usize>, JsonError> {
        let start = self.at;
        if !self.took(b'"') {
            return Err(JsonError::Syntax);
        }
        loop {
            let rest = self.rest().as_bytes();
            // Control bytes are looked for apart, once the end is known.
            let at = memchr3(b'"', b'\\', b'\n', rest).ok_or(JsonError::Syntax)?;
            match rest.get(at) {
                Some(b'"') => {
                    self.at += at + 1;
                    break;
                }
                Some(b'\\') if rest.get(at + 1).is_some_and(u8::is_ascii) => self.at += at + 2,
                Some(_) | None => return Err(JsonError::Syntax),
            }
        }
        let span = start..self.at;
        let control =
            self.text.as_bytes().get(span.clone()).unwrap_or_default().iter().any(|byte| *byte < 0x20);
        if control { Err(JsonError::Syntax) } else { Ok(span) }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn took(&mut self, byte: u8) -> bool {
        let took = self.peek() == Some(byte);
        self.at += usize::from(took);
        took
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

fn plain_scalar(input: &str) -> IResult<&str, Kind> {
    alt((
        tag("true").map(|_| Kind::Boolean),
        tag("false").map(|_| Kind::Boolean),
        tag("null").map(|_| Kind::Null),
        number.map(|_| Kind::Number),
    ))
    .parse(input)
}

/// `[-] int [frac] [exp]`; no leading zeros, no leading plus.
fn number(input: &str) -> IResult<&str, &str> {
    let digits = || take_while1(|character: char| character.is_ascii_digit());
    let first = |character: char| matches!(character, '1'..='9');
    let whole = alt((tag("0"), recognize((take_while_m_n(1, 1, first), opt(digits())))));
    let exponent = (alt((tag("e"), tag("E"))), opt(alt((tag("+"), tag("-")))), digits());
    recognize((opt(tag("-")), whole, opt((tag("."), digits())), opt(exponent))).parse(input)
}

/// What follows a backslash.
fn escape(rest: &str) -> Result<(char, &str), JsonError> {
    let kind = rest.bytes().next().ok_or(JsonError::Syntax)?;
    let simple = match kind {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(rest.get(1..).ok_or(JsonError::Syntax)?),
        _ => return Err(JsonError::Syntax),
    };
    Ok((simple, rest.get(1..).unwrap_or_default()))
}

/// Four hex digits, and the second half where the first is half of a surrogate pair.
fn unicode(rest: &str) -> Result<(char, &str), JsonError> {
    let (unit, rest) = hex4(rest)?;
    if !(0xd800..0xe000).contains(&unit) {
        return char::from_u32(unit).map(|character| (character, rest)).ok_or(JsonError::Surrogate);
    }
    let (low, rest) = hex4(rest.strip_prefix("\\u").ok_or(JsonError::Surrogate)?)?;
    if unit >= 0xdc00 || !(0xdc00..0xe000).contains(&low) {
        return Err(JsonError::Surrogate);
    }
    let joined = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
    char::from_u32(joined).map(|character| (character, rest)).ok_or(JsonError::Surrogate)
}

fn hex4(text: &str) -> Result<(u32, &str), JsonError> {
    let (digits, rest) = text.split_at_checked(4).ok_or(JsonError::Syntax)?;
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(JsonError::Syntax);
    }
    u32::from_str_radix(digits, 16).map(|unit| (unit, rest)).map_err(|_| JsonError::Syntax)
}
