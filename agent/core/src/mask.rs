//! What a protected value becomes. One file a mask; the list of masks is here.
//! It refuses to know where the value came from (SQL cell, JSON string, text span): that is the session's business.

use alloc::string::String;

/// How values of a class are masked. Ordered by strictness: of two masks on one value the greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mask {
    /// Each letter and digit becomes `*`, except the first `first` and the last `last` of them; separators stay.
    Partial { first: u8, last: u8 },
    /// HMAC-SHA-256 with the host's key, `length` lower-case hex digits.
    Hash { length: u8 },
    /// Deterministic `tok_CLASS_…`; equal values give equal tokens.
    Token,
    /// `[CLASS]`, class name in upper case.
    Redact,
    /// No value at all: SQL NULL, JSON null, empty text.
    Nullify,
}

/// Key of keyed masks; never printed, wiped when dropped.
#[derive(Clone)]
pub struct Key(zeroize::Zeroizing<[u8; 32]>);

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(zeroize::Zeroizing::new(bytes))
    }
}

impl Mask {
    /// The masked form of `value`; `None` means "no value" (nullify).
    #[must_use]
    pub fn apply(self, class: &str, value: &str, key: &Key) -> Option<String> {
        let _ = (class, value, key);
        None
    }
}
