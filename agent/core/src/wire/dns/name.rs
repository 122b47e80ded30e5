//! Domain names in messages (RFC 1035, 4.1.4). It refuses pointers that do not lead backwards, labels of other kinds,
//! and names longer than 255 bytes.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a name on the wire, with the root's (RFC 1035, 3.1).
const NAME_BYTES: usize = 255;
const LABEL_BYTES: u8 = 63;
const POINTER: u8 = 0b1100_0000;

/// A name without pointers, as text, and where it ends.
pub(super) fn plain(message: &[u8], at: usize) -> Option<(String, usize)> {
    let (wire, end) = read(message, at, false)?;
    Some((text(&wire), end))
}

/// A name with its pointers followed, folded to lower case, and where it ends in the message.
pub(super) fn folded(message: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let (mut wire, end) = read(message, at, true)?;
    // Lengths of labels are below the letters.
    wire.make_ascii_lowercase();
    Some((wire, end))
}

/// Labels with their lengths, without the root's.
fn read(message: &[u8], start: usize, may_point: bool) -> Option<(Vec<u8>, usize)> {
    let mut wire = Vec::new();
    let (mut at, mut end) = (start, None);
    // A pointer must lead to before the name, or the last pointer's target: so every walk ends.
    let mut before = start;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some((wire, end.unwrap_or(at + 1))),
            1..=LABEL_BYTES => {
                let next = at + 1 + usize::from(length);
                wire.extend_from_slice(message.get(at..next)?);
                if wire.len() >= NAME_BYTES {
                    return None;
                }
                at = next;
            }
            192.. if may_point => {
                let low = *message.get(at + 1)?;
                end = end.or(Some(at + 2));
                at = usize::from(u16::from_be_bytes([length & !POINTER, low]));
                if at >= before {
                    return None;
                }
                before = at;
            }
            // A pointer where none may be, or one of the retired label types.
            64.. => return None,
        }
    }
}

fn text(wire: &[u8]) -> String {
    if wire.is_empty() {
        return ".".into();
    }
    let mut out = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((length, after)) = rest.split_first() {
        let (label, next) = after.split_at(usize::from(*length).min(after.len()));
        if !out.is_empty() {
            out.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => {
                    out.push('\\');
                    out.push(char::from(*byte));
                }
                b'!'..=b'~' => out.push(char::from(byte.to_ascii_lowercase())),
                _ => out.push_str(&format!("\\{byte:03}")),
            }
        }
        rest = next;
    }
    out
}
