//! What a protected value becomes. One file a mask; the list of masks is here.
//! It refuses to know where the value came from (SQL cell, JSON string, text span): that is the session's business.

use alloc::string::String;
use core::cmp::{Ordering, Reverse};

use hmac::{Hmac, KeyInit};
use sha2::Sha256;

use crate::limits::MASKED_BYTES;

mod hash;
mod partial;
mod redact;
mod text;
mod token;

#[cfg(test)]
mod tests;

pub use text::{Plan, mask_text, mask_value};

/// How values of a class are masked. Ordered by strictness: of two masks on one value the greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mask {
    /// Each letter and digit becomes `*`, except the first `first` and the last `last` of them; separators stay.
    /// A value with no more than `first + last` of them is hidden whole.
    Partial { first: u8, last: u8 },
    /// HMAC-SHA-256 with the host's key, `length` lower-case hex digits (8 to 64; others are brought into that range).
    Hash { length: u8 },
    /// Deterministic `tok_CLASS_…`; equal values of one class give equal tokens.
    Token,
    /// `[CLASS]`, class name in upper case.
    Redact,
    /// No value at all: SQL NULL, JSON null, empty text.
    Nullify,
}

/// Key of keyed masks; never printed, wiped when dropped. It is kept as the state of a MAC that has taken it in, which
/// saves half the work of every digest.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        let bytes = zeroize::Zeroizing::new(bytes);
        let mut block = zeroize::Zeroizing::new([0_u8; 64]);
        for (slot, byte) in block.iter_mut().zip(bytes.iter()) {
            *slot = *byte;
        }
        // A key of one block is taken as it is (RFC 2104), so this is the 32-byte key padded with zeros.
        Self(Hmac::new((&*block).into()))
    }
}

impl Mask {
    /// The masked form of `value`; `None` means "no value" (nullify). Never longer than
    /// [`MASKED_BYTES`]: a value whose partial form would be is redacted.
    #[must_use]
    pub fn apply(self, class: &str, value: &str, key: &Key) -> Option<String> {
        let masked = match self {
            Mask::Partial { first, last } if value.len() <= MASKED_BYTES => {
                partial::partial(value, first, last)
            }
            Mask::Partial { .. } | Mask::Redact => redact::redact(class),
            Mask::Hash { length } => hash::hash(class, value, length, key),
            Mask::Token => token::token(class, value, key),
            Mask::Nullify => return None,
        };
        Some(masked)
    }

    /// Kinds of mask from the weakest to the strongest; within a kind, less of the value is stronger.
    fn strictness(self) -> (u8, Reverse<u16>, Reverse<u8>) {
        let (kind, shown, first) = match self {
            Mask::Partial { first, last } => (0, u16::from(first) + u16::from(last), first),
            Mask::Hash { length } => (1, u16::from(length), 0),
            Mask::Token => (2, 0, 0),
            Mask::Redact => (3, 0, 0),
            Mask::Nullify => (4, 0, 0),
        };
        (kind, Reverse(shown), Reverse(first))
    }
}

impl Ord for Mask {
    fn cmp(&self, other: &Self) -> Ordering {
        self.strictness().cmp(&other.strictness())
    }
}

impl PartialOrd for Mask {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
