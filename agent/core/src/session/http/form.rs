//! `application/x-www-form-urlencoded` names and values, in bodies and in query strings.
//! It refuses text that is not valid percent-encoded UTF-8, except where only a look is wanted.

use alloc::string::String;
use alloc::vec::Vec;

/// `None`: not valid.
pub(super) fn decode(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let value = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
                bytes.push(value(*high)? << 4 | value(*low)?);
                after
            }
            (b'%', _) => return None,
            (b'+', after) => {
                bytes.push(b' ');
                after
            }
            (byte, after) => {
                bytes.push(*byte);
                after
            }
        };
    }
    String::from_utf8(bytes).ok()
}

/// What is percent-encoded decoded; everything else, broken encodings included, as it stands.
pub(super) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, after @ ..] = rest {
        let value = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
        let decoded = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                value(*high).zip(value(*low)).map(|(high, low)| (high << 4 | low, after))
            }
            _ => None,
        };
        let (byte, after) = decoded.unwrap_or((*first, after));
        bytes.push(byte);
        rest = after;
    }
    bytes
}

pub(super) fn encode(text: &str, out: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => out.push(byte),
            b' ' => out.push(b'+'),
            byte => {
                let digit =
                    |nibble: u8| b"0123456789ABCDEF".get(usize::from(nibble)).copied().unwrap_or(b'0');
                out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}
