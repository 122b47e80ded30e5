//! Private keys in PEM and its relatives (RFC 7468, OpenSSH, PGP, SSH2), also when the end is cut off.
//! It refuses public keys and certificates.

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::run_end;

/// Bytes of the label between `BEGIN` and the dashes.
const LABEL: usize = 48;

/// `at` is the `B` of `-----BEGIN … PRIVATE KEY…`.
pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    let label = at + b"BEGIN ".len();
    if text.get(at..label) != Some(b"BEGIN ") {
        return at + 1;
    }
    let Some(start) = dashes_before(text, at) else { return at + 1 };
    let label_end = run_end(text, label, LABEL, is_label);
    let is_private = text
        .get(label..label_end)
        .is_some_and(|label| label.windows(b"PRIVATE KEY".len()).any(|words| words == b"PRIVATE KEY"));
    if !is_private {
        return at + 1;
    }
    let end = body_end(text, label_end);
    hits.push(start..end);
    end
}

/// Begin of the four or five dashes before `at` (SSH2 puts a blank between).
fn dashes_before(text: &[u8], at: usize) -> Option<usize> {
    match text.get(..at)? {
        [.., b'-', b'-', b'-', b'-', b'-' | b' '] => Some(at - 5),
        [..] => None,
    }
}

/// End of the key that begins at `from`: after its `END` line, or where the text stops looking like a key.
/// Line ends may be real or escaped (`\n` in JSON and environment files).
fn body_end(text: &[u8], from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    for (index, byte) in rest.iter().enumerate() {
        let label = match (byte, rest.get(index..)) {
            (b'-', Some(tail)) if tail.starts_with(b"---END ") => from + index + 7,
            (b'-', Some(tail)) if tail.starts_with(b"--- END ") => from + index + 8,
            (byte, Some(_) | None) if is_body(byte) => continue,
            (_, _) => return from + rest.get(..index).unwrap_or_default().trim_ascii_end().len(),
        };
        let label_end = run_end(text, label, LABEL, is_label);
        return run_end(text, label_end, 5, |byte| *byte == b'-');
    }
    from + rest.trim_ascii_end().len()
}

fn is_label(byte: &u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' '
}

/// Base64, line ends, and the headers of old PEM and PGP blocks.
fn is_body(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric()
        || byte.is_ascii_whitespace()
        || matches!(byte, b'+' | b'/' | b'=' | b'-' | b'\\' | b':' | b',' | b'.' | b'(' | b')' | b'_' | b'%')
}
