//! CopyInResponse, CopyOutResponse, CopyBothResponse: how the data that follows is written.
//! It refuses to guess: a format that is not text is binary.

use super::{Fields, Violation};

/// The overall format of a COPY is text or CSV (0), not binary (1).
///
/// # Errors
/// Cut short, or neither 0 nor 1.
pub fn is_text(body: &[u8]) -> Result<bool, Violation> {
    match Fields::new(body).byte()? {
        0 => Ok(true),
        1 => Ok(false),
        _ => Err(Violation::Field("copy format")),
    }
}
