//! Messages of a server that weir reads or writes: RowDescription, errors, parameters, the SASL offer.
//! It refuses none for its meaning; what does not parse is the server's violation.

use alloc::vec::Vec;

use super::{Fields, Violation, cstr, message};
use crate::limits::{PG_COLUMNS, PG_MESSAGE_BYTES};

/// Longest body of a server message, or `None` for a tag that servers do not send.
#[must_use]
pub fn bound(tag: u8) -> Option<usize> {
    match tag {
        b'R' | b'K' | b'S' | b'Z' | b'v' | b'T' | b'D' | b'C' | b'I' | b'E' | b'N' | b'A' | b'1' | b'2'
        | b'3' | b't' | b'n' | b's' | b'G' | b'H' | b'W' | b'd' | b'c' | b'V' => Some(PG_MESSAGE_BYTES),
        _ => None,
    }
}

/// One column of a RowDescription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: Vec<u8>,
    /// OID of the relation the column comes from; 0 when it is an expression.
    pub relation: u32,
    pub attribute: i16,
    pub type_oid: u32,
    pub size: i16,
    pub modifier: i32,
    /// 0 text, 1 binary.
    pub format: i16,
}

/// Reads a RowDescription.
///
/// # Errors
/// Fields that do not fill the body, or more columns than a server can return.
pub fn row_description(body: &[u8]) -> Result<Vec<Column>, Violation> {
    let mut fields = Fields::new(body);
    let count = fields.count()?;
    if count > PG_COLUMNS {
        return Err(Violation::Field("too many columns"));
    }
    let mut columns = Vec::with_capacity(count);
    for _ in 0..count {
        columns.push(Column {
            name: fields.cstr()?.to_vec(),
            relation: fields.oid()?,
            attribute: fields.int16()?,
            type_oid: fields.oid()?,
            size: fields.int16()?,
            modifier: fields.int32()?,
            format: fields.int16()?,
        });
    }
    fields.end()?;
    Ok(columns)
}

/// Writes a RowDescription.
pub fn write_row_description(out: &mut Vec<u8>, columns: &[Column]) {
    message(out, b'T', |body| {
        body.extend_from_slice(&i16::try_from(columns.len()).unwrap_or(i16::MAX).to_be_bytes());
        for column in columns {
            cstr(body, &column.name);
            body.extend_from_slice(&column.relation.to_be_bytes());
            body.extend_from_slice(&column.attribute.to_be_bytes());
            body.extend_from_slice(&column.type_oid.to_be_bytes());
            body.extend_from_slice(&column.size.to_be_bytes());
            body.extend_from_slice(&column.modifier.to_be_bytes());
            body.extend_from_slice(&column.format.to_be_bytes());
        }
    });
}

/// ParameterStatus: name and value.
///
/// # Errors
/// Fields that do not fill the body.
pub fn parameter_status(body: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let mut fields = Fields::new(body);
    let pair = (fields.cstr()?, fields.cstr()?);
    fields.end()?;
    Ok(pair)
}

/// ReadyForQuery: `I` idle, `T` in a transaction, `E` in a failed one.
///
/// # Errors
/// Any other byte.
pub fn ready(body: &[u8]) -> Result<Status, Violation> {
    match body {
        b"I" => Ok(Status::Idle),
        b"T" => Ok(Status::Transaction),
        b"E" => Ok(Status::Failed),
        _ => Err(Violation::Field("transaction status")),
    }
}

/// The server's transaction status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Idle,
    Transaction,
    Failed,
}

/// The fields of an ErrorResponse or NoticeResponse: (code, text).
#[must_use]
pub fn error_fields(body: &[u8]) -> ErrorFields<'_> {
    ErrorFields { fields: Fields::new(body) }
}

#[derive(Debug, Clone)]
pub struct ErrorFields<'a> {
    fields: Fields<'a>,
}

impl<'a> Iterator for ErrorFields<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match self.fields.byte() {
            Ok(0) | Err(_) => None,
            Ok(code) => self.fields.cstr().ok().map(|text| (code, text)),
        }
    }
}

/// One field of an error: its text, or empty.
#[must_use]
pub fn error_field(body: &[u8], wanted: u8) -> &[u8] {
    error_fields(body).find(|(code, _)| *code == wanted).map_or(&[], |(_, text)| text)
}

/// The error ends the connection (`FATAL`, `PANIC`); field V is the severity that is never translated.
#[must_use]
pub fn ends_connection(body: &[u8]) -> bool {
    let severity = match error_field(body, b'V') {
        [] => error_field(body, b'S'),
        plain => plain,
    };
    matches!(severity, b"FATAL" | b"PANIC")
}

/// Writes an ErrorResponse (`E`) or NoticeResponse (`N`); empty fields are left out.
pub fn write_error(out: &mut Vec<u8>, tag: u8, fields: &[(u8, &[u8])]) {
    message(out, tag, |body| {
        for (code, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
            body.push(*code);
            cstr(body, text);
        }
        body.push(0);
    });
}

/// What an Authentication message asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication<'a> {
    /// Logged in.
    Ok,
    /// The server's last word of SASL: no answer is due.
    SaslFinal,
    /// The mechanisms on offer.
    Sasl(Vec<&'a [u8]>),
    /// Anything else that the client must answer.
    Asks,
}

/// Reads an Authentication message.
///
/// # Errors
/// Cut short.
pub fn authentication(body: &[u8]) -> Result<Authentication<'_>, Violation> {
    let mut fields = Fields::new(body);
    Ok(match fields.int32()? {
        0 => Authentication::Ok,
        10 => {
            let mut mechanisms = Vec::new();
            loop {
                match fields.cstr()? {
                    [] => break Authentication::Sasl(mechanisms),
                    mechanism => mechanisms.push(mechanism),
                }
            }
        }
        12 => Authentication::SaslFinal,
        _ => Authentication::Asks,
    })
}

/// Writes AuthenticationSASL with these mechanisms.
pub fn write_sasl(out: &mut Vec<u8>, mechanisms: &[&[u8]]) {
    message(out, b'R', |body| {
        body.extend_from_slice(&10_i32.to_be_bytes());
        for mechanism in mechanisms {
            cstr(body, mechanism);
        }
        body.push(0);
    });
}

/// Writes AuthenticationOk.
pub fn write_authenticated(out: &mut Vec<u8>) {
    message(out, b'R', |body| body.extend_from_slice(&0_i32.to_be_bytes()));
}

/// Writes NegotiateProtocolVersion: the newest version spoken here is 3.0, and these options are not known.
pub fn write_negotiation(out: &mut Vec<u8>, options: &[&str]) {
    message(out, b'v', |body| {
        body.extend_from_slice(&(3_i32 << 16).to_be_bytes());
        body.extend_from_slice(&i32::try_from(options.len()).unwrap_or(i32::MAX).to_be_bytes());
        for option in options {
            cstr(body, option.as_bytes());
        }
    });
}

/// Writes ReadyForQuery.
pub fn write_ready(out: &mut Vec<u8>, status: Status) {
    let letter = match status {
        Status::Idle => b'I',
        Status::Transaction => b'T',
        Status::Failed => b'E',
    };
    message(out, b'Z', |body| body.push(letter));
}
