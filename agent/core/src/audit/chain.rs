//! The hash chain over encoded records: the exact bytes that are hashed are the bytes stored and shipped.
//! It refuses to re-encode: a record is turned into bytes once, and whoever checks reads those bytes.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use sha2::{Digest as _, Sha256};

use super::{Kind, Record};

/// A SHA-256.
pub type Digest = [u8; 32];

/// Longest encoded record. Every text in it is cut at `limits::AUDIT_TEXT_BYTES`; lists of relations and columns make
/// up the rest. A reader takes a longer length field for damage.
pub const RECORD_BYTES: usize = 1024 * 1024;

/// Where a chain stands: its newest record. `seq` rises by one a record for the life of the ledger; `epoch` is the
/// start of the agent that wrote it, microseconds since 1970, and rises at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    pub epoch: u64,
    pub seq: u64,
    pub hash: Digest,
}

impl Head {
    /// Before the first record of a ledger.
    pub const GENESIS: Head = Head { epoch: 0, seq: 0, hash: [0; 32] };
}

/// A record that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit record is {0} bytes long; the most is {RECORD_BYTES}")]
pub struct TooLong(pub usize);

/// Fills `raw` with the bytes of a record: compact JSON, fields in the order of [`Record`].
///
/// # Errors
/// A record above [`RECORD_BYTES`].
pub fn encode(record: &Record, raw: &mut Vec<u8>) -> Result<(), TooLong> {
    raw.clear();
    super::encode::encode(record, raw);
    if raw.len() > RECORD_BYTES { Err(TooLong(raw.len())) } else { Ok(()) }
}

/// `SHA-256("weir/audit/1" ‖ len(node) ‖ node ‖ epoch ‖ seq ‖ prev ‖ len(raw) ‖ raw)`, integers 8 bytes big-endian.
#[must_use]
pub fn link(node: &str, epoch: u64, seq: u64, prev: &Digest, raw: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(DOMAIN);
    hash.update((node.len() as u64).to_be_bytes());
    hash.update(node.as_bytes());
    hash.update(epoch.to_be_bytes());
    hash.update(seq.to_be_bytes());
    hash.update(prev);
    hash.update((raw.len() as u64).to_be_bytes());
    hash.update(raw);
    hash.finalize().into()
}

/// The first record of an epoch: it names the head that the epoch continues.
#[must_use]
pub fn boot(ts: u64, previous: &Head) -> Record {
    Record {
        ts,
        kind: Kind::Admin,
        effects: vec![BOOT.into()],
        reason: continues(previous),
        durability: super::Durability::Strict,
        ..Record::default()
    }
}

/// Whether `record` begins an epoch that continues `previous`.
#[must_use]
pub fn boots(record: &Record, previous: &Head) -> bool {
    record.kind == Kind::Admin
        && record.effects.iter().any(|effect| effect == BOOT)
        && record.reason == continues(previous)
}

fn continues(previous: &Head) -> String {
    if *previous == Head::GENESIS {
        return "begins the trail".into();
    }
    format!("continues epoch {} at seq {} hash {}", previous.epoch, previous.seq, hex(&previous.hash))
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble });
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// 64 lower-case hex digits → digest.
#[must_use]
pub fn digest(text: &str) -> Option<Digest> {
    let text = text.as_bytes();
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(digest)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

const DOMAIN: &[u8] = b"weir/audit/1";
const BOOT: &str = "boot";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_reaches_the_hash() {
        let base = link("web-1", 1, 2, &[3; 32], b"{}");
        for other in [
            link("web-2", 1, 2, &[3; 32], b"{}"),
            link("web-1", 2, 2, &[3; 32], b"{}"),
            link("web-1", 1, 3, &[3; 32], b"{}"),
            link("web-1", 1, 2, &[4; 32], b"{}"),
            link("web-1", 1, 2, &[3; 32], b"{ }"),
            link("web-", 1, 2, &[3; 32], b"{}"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn the_encoding_is_compact_and_reads_back() {
        let record = Record { ts: 7, workload: "payments".into(), ..Record::default() };
        let mut raw = Vec::new();
        encode(&record, &mut raw).unwrap();
        assert_eq!(
            core::str::from_utf8(&raw).unwrap(),
            r#"{"ts":7,"kind":"verdict","workload":"payments","uid":0,"decision":"allowed","durability":"fast"}"#
        );
        assert_eq!(serde_json::from_slice::<Record>(&raw).unwrap(), record);
    }

    #[test]
    fn a_record_beyond_the_bound_is_refused() {
        let record = Record { statement: "x".repeat(RECORD_BYTES), ..Record::default() };
        assert!(encode(&record, &mut Vec::new()).is_err());
    }

    #[test]
    fn hex_reads_back() {
        let sum = link("n", 1, 1, &[0; 32], b"");
        assert_eq!(digest(&hex(&sum)), Some(sum));
        assert_eq!(digest(&hex(&sum).to_uppercase()), None);
        assert_eq!(digest("00"), None);
    }
}
