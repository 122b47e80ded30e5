//! Why a ledger cannot be opened or read.

use std::path::PathBuf;

use super::journal;

/// The ledger cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger {dir} is in use by process {holder}: one agent writes it at a time")]
    Busy { dir: PathBuf, holder: String },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Store { path: PathBuf, source: rusqlite::Error },
    #[error("the node name is {0} bytes long; the most is {most}", most = journal::NODE_BYTES)]
    Node(usize),
    #[error("the ledger cannot be written: {0}")]
    Refused(String),
    #[error("the agent has not stored seq {seq} within {seconds} s; see `weir status`")]
    Behind { seq: u64, seconds: u64 },
}
