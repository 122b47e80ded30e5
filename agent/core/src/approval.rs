//! A question to a human about one act: bound to the exact bytes, answered at most once, expired by time.
//! It refuses to be re-used: the answer names the digest of the bytes it is for.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What the desk shows to approvers while the act is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Unique in this agent's lifetime; what `weir approvals approve ID` takes.
    pub id: String,
    pub request_id: String,
    /// SHA-256 of the exact bytes that will be forwarded (and, for prepared statements, the parameters).
    pub digest: [u8; 32],
    /// Rule that asks.
    pub rule: Arc<str>,
    pub message: Arc<str>,
    /// `group:` and `user:` principals of which any one may answer.
    pub by: Vec<String>,
    /// The act in words (statement or request line), control characters escaped, cut at `limits::QUESTION_BYTES`.
    pub summary: String,
    pub effects: Vec<String>,
    pub relations: Vec<String>,
    /// Wall clock, nanoseconds since 1970.
    pub asked_ns: u64,
    pub expires_ns: u64,
}

impl Question {
    /// The id of the question about an act: twelve hex digits of the request id's digest, short enough to type.
    #[must_use]
    pub fn id_of(request_id: &str) -> String {
        let digest: [u8; 32] = Sha256::digest(request_id.as_bytes()).into();
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The desk's answer. `digest` must equal the question's, or the act stays held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub id: String,
    pub digest: [u8; 32],
    pub granted: bool,
    /// Verified user who answered; `"timeout"` when nobody did.
    pub approver: String,
    pub reason: String,
}
