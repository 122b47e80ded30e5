//! JSON web tokens (RFC 7519): base64url parts between dots, the first of which decodes to a JSON object with `alg`.
//! It refuses text that only looks like base64.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::edge::{run_end, starts_word};

/// Characters of the first part; certificates in a header make it long.
const HEADER: usize = 8 * 1024;

/// `at` is the `J` of `eyJ`, which is `{"`.
pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    let Some(start) = at.checked_sub(2) else { return at + 1 };
    if text.get(start..at) != Some(b"ey") || !starts_word(text, start) {
        return at + 1;
    }
    let header_end = part_end(text, start);
    if text.get(header_end) != Some(&b'.') {
        return header_end;
    }
    let Some(header) = header(text, start..header_end) else { return header_end };
    // A signed token has two more parts, an encrypted one four (RFC 7516); a cut one counts as soon as it has claims.
    let more = if header.enc.is_some() { 4 } else { 2 };
    let (mut end, mut parts) = (header_end, 0);
    while parts < more && text.get(end) == Some(&b'.') {
        end = part_end(text, end + 1);
        parts += 1;
    }
    let claims = text.get(header_end + 1..).unwrap_or_default();
    if parts < 2 && !claims.starts_with(b"ey") {
        return header_end;
    }
    hits.push(start..end);
    end
}

#[derive(Deserialize)]
struct Header {
    #[serde(rename = "alg")]
    _algorithm: String,
    enc: Option<IgnoredAny>,
}

fn header(text: &[u8], part: Range<usize>) -> Option<Header> {
    let part = text.get(part).filter(|part| part.len() <= HEADER)?;
    serde_json::from_slice(&decode(part)?).ok()
}

fn part_end(text: &[u8], at: usize) -> usize {
    run_end(text, at, usize::MAX, |byte| sextet(*byte).is_some())
}

/// Base64url without padding (RFC 4648, section 5).
fn decode(part: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(part.len() / 4 * 3 + 2);
    for chunk in part.chunks(4) {
        let mut word = 0_u32;
        for byte in chunk {
            word = word << 6 | u32::from(sextet(*byte)?);
        }
        match chunk.len() {
            4 => bytes.extend_from_slice(word.to_be_bytes().get(1..)?),
            3 => bytes.extend_from_slice((word << 6).to_be_bytes().get(1..3)?),
            2 => bytes.extend_from_slice((word << 12).to_be_bytes().get(1..2)?),
            _ => return None,
        }
    }
    Some(bytes)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}
