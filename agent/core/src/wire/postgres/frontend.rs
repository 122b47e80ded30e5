//! Messages of a client after start-up, and the few that weir sends in its own name.
//! It refuses fields that do not fill the message exactly: what the server would reject is rejected here first.

use alloc::vec::Vec;

use super::{Fields, Violation, cstr, message};
use crate::limits::{PG_CONTROL_BYTES, PG_MESSAGE_BYTES};

/// A client message that is read as a whole. CopyData is not here: it streams.
#[derive(Debug, Clone, Copy)]
pub enum Front<'a> {
    Query { text: &'a [u8] },
    Parse { name: &'a [u8], text: &'a [u8] },
    Bind(Bind<'a>),
    Describe { what: Target, name: &'a [u8] },
    Execute { portal: &'a [u8] },
    Close { what: Target, name: &'a [u8] },
    FunctionCall { function: u32 },
    CopyDone,
    CopyFail,
    Flush,
    Sync,
    Terminate,
}

/// What a Describe or Close names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Statement,
    Portal,
}

#[derive(Debug, Clone, Copy)]
pub struct Bind<'a> {
    pub portal: &'a [u8],
    pub statement: &'a [u8],
    /// Big-endian Int16 each: none, one for all, or one a column.
    formats: &'a [u8],
}

impl Bind<'_> {
    /// Result format of a column: 0 text, 1 binary.
    #[must_use]
    pub fn format(&self, column: usize) -> i16 {
        let (codes, _) = self.formats.as_chunks::<2>();
        match codes {
            [] => 0,
            [one] => i16::from_be_bytes(*one),
            // A wrong number of codes is an error in the server.
            many => many.get(column).map_or(0, |code| i16::from_be_bytes(*code)),
        }
    }
}

/// Longest body of a client message, or `None` for a tag that clients do not send in a session (`p` is handled
/// apart during authentication).
#[must_use]
pub fn bound(tag: u8) -> Option<usize> {
    match tag {
        b'Q' | b'P' | b'B' | b'F' | b'd' => Some(PG_MESSAGE_BYTES),
        b'D' | b'E' | b'C' | b'H' | b'S' | b'X' | b'c' | b'f' => Some(PG_CONTROL_BYTES),
        _ => None,
    }
}

/// Reads the body of a message.
///
/// # Errors
/// An unknown tag, or fields that do not fill the body exactly.
pub fn parse(tag: u8, body: &[u8]) -> Result<Front<'_>, Violation> {
    let mut fields = Fields::new(body);
    let front = match tag {
        b'Q' => Front::Query { text: fields.cstr()? },
        b'P' => {
            let (name, text) = (fields.cstr()?, fields.cstr()?);
            let types = fields.count()?;
            fields.take(types * 4)?;
            Front::Parse { name, text }
        }
        b'B' => Front::Bind(bind(&mut fields)?),
        b'D' => Front::Describe { what: target(&mut fields)?, name: fields.cstr()? },
        b'E' => {
            let portal = fields.cstr()?;
            fields.int32()?;
            Front::Execute { portal }
        }
        b'C' => Front::Close { what: target(&mut fields)?, name: fields.cstr()? },
        b'F' => {
            let function = fields.oid()?;
            fields.take(fields.rest().len())?;
            Front::FunctionCall { function }
        }
        b'f' => {
            fields.cstr()?;
            Front::CopyFail
        }
        b'c' => Front::CopyDone,
        b'H' => Front::Flush,
        b'S' => Front::Sync,
        b'X' => Front::Terminate,
        _ => return Err(Violation::Tag),
    };
    fields.end()?;
    Ok(front)
}

fn bind<'a>(fields: &mut Fields<'a>) -> Result<Bind<'a>, Violation> {
    let (portal, statement) = (fields.cstr()?, fields.cstr()?);
    let codes = fields.count()?;
    fields.take(codes * 2)?;
    // Up to 65,535 parameters: the server reads this one count as unsigned.
    let parameters = fields.int16()?.cast_unsigned();
    for _ in 0..parameters {
        fields.value()?;
    }
    let codes = fields.count()?;
    Ok(Bind { portal, statement, formats: fields.take(codes * 2)? })
}

fn target(fields: &mut Fields<'_>) -> Result<Target, Violation> {
    match fields.byte()? {
        b'S' => Ok(Target::Statement),
        b'P' => Ok(Target::Portal),
        _ => Err(Violation::Field("neither statement nor portal")),
    }
}

pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    message(out, b'Q', |body| cstr(body, text));
}

pub fn parse_message(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    message(out, b'P', |body| {
        cstr(body, name);
        cstr(body, text);
        body.extend_from_slice(&0_i16.to_be_bytes());
    });
}

/// Without parameters, all results in text.
pub fn bind_message(out: &mut Vec<u8>, portal: &[u8], statement: &[u8]) {
    message(out, b'B', |body| {
        cstr(body, portal);
        cstr(body, statement);
        body.extend_from_slice(&[0; 6]);
    });
}

pub fn describe(out: &mut Vec<u8>, what: Target, name: &[u8]) {
    message(out, b'D', |body| named(body, what, name));
}

pub fn close(out: &mut Vec<u8>, what: Target, name: &[u8]) {
    message(out, b'C', |body| named(body, what, name));
}

/// `rows` 0 means no limit.
pub fn execute(out: &mut Vec<u8>, portal: &[u8], rows: i32) {
    message(out, b'E', |body| {
        cstr(body, portal);
        body.extend_from_slice(&rows.to_be_bytes());
    });
}

pub fn flush(out: &mut Vec<u8>) {
    message(out, b'H', |_| {});
}

pub fn sync(out: &mut Vec<u8>) {
    message(out, b'S', |_| {});
}

/// A call of the function with this OID, without arguments.
pub fn function_call(out: &mut Vec<u8>, function: u32) {
    message(out, b'F', |body| {
        body.extend_from_slice(&function.to_be_bytes());
        body.extend_from_slice(&[0; 6]);
    });
}

fn named(body: &mut Vec<u8>, what: Target, name: &[u8]) {
    body.push(match what {
        Target::Statement => b'S',
        Target::Portal => b'P',
    });
    cstr(body, name);
}
