//! Keyed digests: equal values of a class stay equal, and without the host's key nobody can try values out.
//! It refuses plain digests: there are only 10⁹ social security numbers.

use alloc::string::String;

use hmac::Mac;

use super::Key;

/// Shorter digests collide by accident.
const SHORTEST: u8 = 8;
/// All of SHA-256.
const LONGEST: u8 = 64;
const HEX: &[u8; 16] = b"0123456789abcdef";

pub(super) fn hash(class: &str, value: &str, length: u8, key: &Key) -> String {
    let length = usize::from(length.clamp(SHORTEST, LONGEST));
    let digest = digest("hash", class, value, key);
    let digits = digest.into_iter().flat_map(|byte| [byte >> 4, byte & 15]).take(length).map(usize::from);
    let mut text = String::with_capacity(length);
    text.extend(digits.filter_map(|digit| HEX.get(digit)).map(|digit| char::from(*digit)));
    text
}

/// HMAC-SHA-256 over (use, class, value), each ended so that no two triples give the same bytes.
pub(super) fn digest(purpose: &str, class: &str, value: &str, key: &Key) -> [u8; 32] {
    let mut mac = key.0.clone();
    for part in [purpose, class] {
        mac.update(part.as_bytes());
        mac.update(&[0]);
    }
    mac.update(value.as_bytes());
    mac.finalize().into_bytes().into()
}
