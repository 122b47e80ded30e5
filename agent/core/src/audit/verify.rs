//! Proves a trail: a checker over entries in order that names the first bad one.
//! It refuses to trust anything but the bytes: hashes are computed again, and epochs must name what they continue.

use super::chain::{self, Digest, Head};
use super::{Decision, Kind, Record};

/// One record as it is kept somewhere (journal, store, ClickHouse, export).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub node: &'a str,
    pub epoch: u64,
    pub seq: u64,
    pub prev: Digest,
    pub hash: Digest,
    pub raw: &'a [u8],
}

/// The first place where a trail does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("epoch {epoch}, seq {seq}: {flaw}")]
pub struct Break {
    pub epoch: u64,
    pub seq: u64,
    pub flaw: Flaw,
}

/// What is wrong there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("records are missing from here to seq {before}")]
    Missing { before: u64 },
    #[error("this seq came before, or is out of order")]
    Repeated,
    #[error("it does not continue the record before it")]
    Unlinked,
    #[error("its hash does not match its content")]
    Altered,
    #[error("its bytes are no audit record")]
    Unreadable,
    #[error("an epoch begins here without naming the head of the one before")]
    Unannounced,
    #[error("the trail ends before this record, which was there at the checkpoint")]
    CutTail,
    #[error("the record differs from the one at the checkpoint")]
    Forked,
}

/// What was proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Proof {
    pub records: u64,
    pub epochs: u64,
    /// Rows in which the ledger itself reports a loss (torn tail after a power cut, acts refused while the disk was full).
    pub losses: u64,
    pub first_seq: u64,
    pub head: Option<Head>,
}

/// Walks a trail in order.
#[derive(Debug, Clone)]
pub struct Checker {
    /// The record before the next one; `None` until the first entry of a trail that starts anywhere.
    head: Option<Head>,
    checkpoint: Option<Head>,
    proof: Proof,
}

impl Checker {
    /// Continues after `anchor`: [`Head::GENESIS`], or the newest record that retention removed.
    #[must_use]
    pub fn after(anchor: Head) -> Self {
        Self { head: Some(anchor), checkpoint: None, proof: Proof::default() }
    }

    /// Starts wherever the first entry stands. A cut head cannot show.
    #[must_use]
    pub fn anywhere() -> Self {
        Self { head: None, checkpoint: None, proof: Proof::default() }
    }

    /// A head that was seen outside of the trail before: the trail must hold it, unchanged.
    #[must_use]
    pub fn with_checkpoint(mut self, checkpoint: Head) -> Self {
        self.checkpoint = Some(checkpoint);
        self
    }

    /// Checks the next entry and returns its record.
    ///
    /// # Errors
    /// The first [`Break`]; nothing after it is proved.
    pub fn check(&mut self, entry: &Entry<'_>) -> Result<Record, Break> {
        let broken = |flaw| Break { epoch: entry.epoch, seq: entry.seq, flaw };
        let previous = self.head.unwrap_or(Head {
            epoch: entry.epoch,
            seq: entry.seq.saturating_sub(1),
            hash: entry.prev,
        });
        let expected = previous.seq.saturating_add(1);
        if entry.seq > expected {
            let flaw = Flaw::Missing { before: entry.seq };
            return Err(Break { epoch: entry.epoch, seq: expected, flaw });
        }
        if entry.seq < expected || entry.epoch < previous.epoch {
            return Err(broken(Flaw::Repeated));
        }
        if chain::link(entry.node, entry.epoch, entry.seq, &entry.prev, entry.raw) != entry.hash {
            return Err(broken(Flaw::Altered));
        }
        if entry.prev != previous.hash {
            return Err(broken(Flaw::Unlinked));
        }
        let record: Record = serde_json::from_slice(entry.raw).map_err(|_| broken(Flaw::Unreadable))?;
        if entry.epoch != previous.epoch {
            if !chain::boots(&record, &previous) {
                return Err(broken(Flaw::Unannounced));
            }
            self.proof.epochs += 1;
        }
        self.passed(entry, &record)?;
        Ok(record)
    }

    fn passed(&mut self, entry: &Entry<'_>, record: &Record) -> Result<(), Break> {
        let head = Head { epoch: entry.epoch, seq: entry.seq, hash: entry.hash };
        if self.checkpoint.is_some_and(|point| point.seq == head.seq && point != head) {
            return Err(Break { epoch: entry.epoch, seq: entry.seq, flaw: Flaw::Forked });
        }
        if self.proof.records == 0 {
            self.proof.first_seq = entry.seq;
            self.proof.epochs = 1;
        }
        self.proof.losses += u64::from(reports_loss(record));
        self.proof.records += 1;
        self.head = Some(head);
        Ok(())
    }

    /// Where the checker stands.
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.head
    }

    /// Ends the walk.
    ///
    /// # Errors
    /// The trail ends before the checkpoint.
    pub fn finish(mut self) -> Result<Proof, Break> {
        self.proof.head = self.head;
        match self.checkpoint {
            Some(point) if self.head.is_none_or(|head| head.seq < point.seq) => {
                Err(Break { epoch: point.epoch, seq: point.seq, flaw: Flaw::CutTail })
            }
            Some(_) | None => Ok(self.proof),
        }
    }
}

/// The ledger's own rows about itself: kind `admin`, decision `failed`, effect `ledger`.
fn reports_loss(record: &Record) -> bool {
    record.kind == Kind::Admin
        && record.decision == Decision::Failed
        && record.effects.iter().any(|effect| effect == LEDGER)
}

/// Effect of the rows in which the ledger reports on itself.
pub const LEDGER: &str = "ledger";

#[cfg(test)]
mod tests;
