//! PostgreSQL protocol 3 frames (documentation: "Frontend/Backend Protocol", "Message Formats"): tag, length, body.
//! It refuses lengths that cannot be, before anything is read or allocated for them.

use alloc::vec::Vec;

pub mod backend;
pub mod copy;
pub mod frontend;
pub mod row;
pub mod startup;

/// Bytes of a tag and a length.
pub const HEADER_BYTES: usize = 5;

/// The first five bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// Bytes that follow the length word.
    pub body: usize,
}

impl Header {
    /// Bytes of the message with its tag and length.
    #[must_use]
    pub fn whole(self) -> usize {
        self.body + HEADER_BYTES
    }
}

/// The peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("invalid message length")]
    Length,
    #[error("message is longer than its type may be")]
    TooLong,
    #[error("invalid message type")]
    Tag,
    #[error("malformed message: {0}")]
    Field(&'static str),
    #[error("unsupported protocol version")]
    Version,
}

/// Reads a header; `None` while there are fewer than five bytes. `bound` gives the longest body of a tag, or `None`
/// for a tag that side may not send.
///
/// # Errors
/// A length below 4, above the tag's bound, or an unknown tag.
pub fn header(bytes: &[u8], bound: fn(u8) -> Option<usize>) -> Result<Option<Header>, Violation> {
    let Some((&tag, rest)) = bytes.split_first() else { return Ok(None) };
    let bound = bound(tag).ok_or(Violation::Tag)?;
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| Violation::Length)?;
    let body = length.checked_sub(4).ok_or(Violation::Length)?;
    if body > bound {
        return Err(Violation::TooLong);
    }
    Ok(Some(Header { tag, body }))
}

/// Appends a message whose body `write` adds.
pub fn message(out: &mut Vec<u8>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out);
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    if let Some(word) = out.get_mut(start..start + 4) {
        word.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a string and its NUL; bytes after an inner NUL are dropped, since the protocol cannot carry them.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(text.get(..end).unwrap_or_default());
    out.push(0);
}

/// Reads the fields of one message body, front to back.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    #[must_use]
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// # Errors
    /// Fewer than `count` bytes are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Violation::Field("cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// # Errors
    /// No byte is left.
    pub fn byte(&mut self) -> Result<u8, Violation> {
        let (&byte, rest) = self.rest.split_first().ok_or(Violation::Field("cut short"))?;
        self.rest = rest;
        Ok(byte)
    }

    /// # Errors
    /// Fewer than two bytes are left.
    pub fn int16(&mut self) -> Result<i16, Violation> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>().ok_or(Violation::Field("cut short"))?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*bytes))
    }

    /// # Errors
    /// Fewer than four bytes are left.
    pub fn int32(&mut self) -> Result<i32, Violation> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>().ok_or(Violation::Field("cut short"))?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    /// # Errors
    /// Fewer than four bytes are left.
    pub fn oid(&mut self) -> Result<u32, Violation> {
        self.int32().map(i32::cast_unsigned)
    }

    /// An element count: non-negative Int16, as the server reads it.
    ///
    /// # Errors
    /// Cut short, or negative.
    pub fn count(&mut self) -> Result<usize, Violation> {
        usize::try_from(self.int16()?).map_err(|_| Violation::Field("negative count"))
    }

    /// A NUL-terminated string, without the NUL.
    ///
    /// # Errors
    /// No NUL is left.
    pub fn cstr(&mut self) -> Result<&'a [u8], Violation> {
        let end = memchr::memchr(0, self.rest).ok_or(Violation::Field("unterminated string"))?;
        let text = self.take(end)?;
        self.byte()?;
        Ok(text)
    }

    /// A value with its Int32 length; `None` is SQL NULL.
    ///
    /// # Errors
    /// Cut short, or a length below -1.
    pub fn value(&mut self) -> Result<Option<&'a [u8]>, Violation> {
        match self.int32()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| Violation::Field("negative length"))?;
                self.take(length).map(Some)
            }
        }
    }

    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// # Errors
    /// Bytes are left over.
    pub fn end(&self) -> Result<(), Violation> {
        if self.rest.is_empty() { Ok(()) } else { Err(Violation::Field("bytes left over")) }
    }
}

#[cfg(test)]
mod tests;
