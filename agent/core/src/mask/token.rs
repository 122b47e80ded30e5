//! `tok_CLASS_…`: a stand-in that equal values of one class share, so that joins and counts still work.
//! It refuses to be undone: the token is a digest, not a cipher.

use alloc::string::String;

use super::Key;
use super::hash::digest;

/// Characters of five bits each: 130 bits.
const LENGTH: usize = 26;
/// RFC 4648, section 6, in lower case.
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

pub(super) fn token(class: &str, value: &str, key: &Key) -> String {
    let mut token = String::from("tok_");
    token.push_str(&class.to_uppercase());
    token.push('_');
    let digest = digest("token", class, value, key);
    for bit in (0..LENGTH * 5).step_by(5) {
        // The five bits from `bit` on lie in two neighbouring bytes.
        let pair = [bit / 8, bit / 8 + 1].map(|byte| digest.get(byte).copied().unwrap_or_default());
        let letter = u16::from_be_bytes(pair) >> (11 - bit % 8) & 31;
        token.extend(BASE32.get(usize::from(letter)).map(|letter| char::from(*letter)));
    }
    token
}
