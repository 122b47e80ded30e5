//! Keyed digests: equal values of a class stay equal, and without the host's key nobody can try values out.
//! It refuses plain digests: there are only 10⁹ social security numbers.

use alloc::string::String;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Key;

/// Shorter digests collide by accident.
const SHORTEST: u8 = 8;
/// All of SHA-256.
const LONGEST: u8 = 64;

pub(super) fn hash(class: &str, value: &str, length: u8, key: &Key) -> String {
    let length = usize::from(length.clamp(SHORTEST, LONGEST));
    let digits = digest("hash", class, value, key).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.take(length).filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// HMAC-SHA-256 over (use, class, value), each ended so that no two triples give the same bytes.
pub(super) fn digest(purpose: &str, class: &str, value: &str, key: &Key) -> [u8; 32] {
    let mut block = zeroize::Zeroizing::new([0_u8; 64]);
    for (slot, byte) in block.iter_mut().zip(key.0.iter()) {
        *slot = *byte;
    }
    // A key of one block is taken as it is (RFC 2104), so this is the 32-byte key padded with zeros.
    let mut mac = Hmac::<Sha256>::new((&*block).into());
    for part in [purpose, class] {
        mac.update(part.as_bytes());
        mac.update(&[0]);
    }
    mac.update(value.as_bytes());
    mac.finalize().into_bytes().into()
}
