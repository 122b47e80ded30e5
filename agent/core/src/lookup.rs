//! What becomes of a workload's DNS questions: forwarded or refused, with a row or without, and what their answers prove.
//! It refuses servers that are not the host's, types that are tunnels, and more questions than a name service needs.

use alloc::string::{String, ToString};

use hashbrown::HashMap;

use crate::limits::{
    DNS_BURST, DNS_RATE, DNS_REFUSAL_ROWS, DNS_ROW_NS, DNS_ROWS, DNS_STREAMS_EACH, DNS_WAITING_EACH,
};
use crate::wire::dns::{Code, Query, kind};

mod bucket;
mod proved;

pub use proved::Proved;

use bucket::Bucket;

/// One workload, as its questions show it.
#[derive(Debug)]
pub struct Asker {
    questions: Bucket,
    refusals: Bucket,
    /// Refusals without a row since the last one with a row.
    unwritten: u64,
    /// Questions that have a row, and until when that row speaks for them too.
    written: HashMap<(String, u16), u64>,
    waiting: usize,
    streams: usize,
    /// Names that its answers proved.
    pub proved: Proved,
}

/// What becomes of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// To the server; call [`Asker::finish`] when that is over. `new`: write a row first.
    Forward {
        new: bool,
    },
    Refuse(Refusal),
}

/// A question that is answered with a code alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub reason: &'static str,
    /// Its row, which says how many refusals before it have none; `None` when it has no row itself.
    pub row: Option<u64>,
}

impl Asker {
    /// `now` is a reading of the monotonic clock in nanoseconds, here and below.
    #[must_use]
    pub fn new(now: u64) -> Asker {
        Asker {
            questions: Bucket::new(DNS_RATE, DNS_BURST, now),
            refusals: Bucket::new(DNS_REFUSAL_ROWS, DNS_REFUSAL_ROWS, now),
            unwritten: 0,
            written: HashMap::new(),
            waiting: 0,
            streams: 0,
            proved: Proved::default(),
        }
    }

    /// Judges a question. `known` says whether the server it was sent to is one of the host's.
    pub fn judge(&mut self, query: &Query, known: bool, now: u64) -> Verdict {
        if let Err((code, reason)) = admissible(query, known) {
            return Verdict::Refuse(self.refuse(code, reason, now));
        }
        if !self.questions.take(now) {
            return Verdict::Refuse(self.refuse(
                Code::Refused,
                "more questions than a workload may ask",
                now,
            ));
        }
        if self.waiting >= DNS_WAITING_EACH {
            let reason = "too many of the workload's questions wait for answers";
            return Verdict::Refuse(self.refuse(Code::ServFail, reason, now));
        }
        self.waiting += 1;
        Verdict::Forward { new: self.is_new(query, now) }
    }

    /// A question that was let through has its answer, or never gets one.
    pub fn finish(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// The row of a question could not be written: the next one like it has to have one.
    pub fn forget(&mut self, query: &Query) {
        self.written.remove(&(query.name().to_string(), query.kind()));
    }

    /// Refuses what is not for [`Asker::judge`], such as bytes that are no question.
    pub fn refuse(&mut self, code: Code, reason: &'static str, now: u64) -> Refusal {
        let row = if self.refusals.take(now) {
            Some(core::mem::take(&mut self.unwritten))
        } else {
            self.unwritten = self.unwritten.saturating_add(1);
            None
        };
        Refusal { code, reason, row }
    }

    /// A connection that asks over TCP; false when there are too many. Each true one ends with [`Asker::leave`].
    pub fn enter(&mut self) -> bool {
        let room = self.streams < DNS_STREAMS_EACH;
        self.streams += usize::from(room);
        room
    }

    pub fn leave(&mut self) {
        self.streams = self.streams.saturating_sub(1);
    }

    fn is_new(&mut self, query: &Query, now: u64) -> bool {
        let until = now.saturating_add(DNS_ROW_NS);
        let question = (query.name().to_string(), query.kind());
        if self.written.get(&question).is_some_and(|until| *until > now) {
            return false;
        }
        if self.written.len() >= DNS_ROWS {
            self.written.retain(|_, until| *until > now);
        }
        if self.written.len() >= DNS_ROWS {
            self.written.clear();
        }
        self.written.insert(question, until);
        true
    }
}

fn admissible(query: &Query, known: bool) -> Result<(), (Code, &'static str)> {
    if !known {
        return Err((Code::Refused, "the server is not one of the host's"));
    }
    if !query.is_internet() {
        return Err((Code::Refused, "the class is not IN"));
    }
    match query.kind() {
        kind::NULL => Err((Code::Refused, "NULL records carry arbitrary bytes")),
        kind::AXFR | kind::IXFR => Err((Code::Refused, "zones are not transferred")),
        kind::ANY => Err((Code::Refused, "questions for all types are not answered (RFC 8482)")),
        // RFC 6895, 3.1: 0, OPT and 128 to 255 are no types of data; 65280 and above are for private use.
        0 | kind::OPT | 128..=255 => Err((Code::Refused, "the type is none of data")),
        65_280.. => Err((Code::Refused, "the type is for private use")),
        1..=127 | 256..=65_279 => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dns::Query;
    use alloc::format;
    use alloc::vec::Vec;

    const SECOND: u64 = 1_000_000_000;

    fn question(name: &str, kind: u16) -> Query {
        let mut bytes = alloc::vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        Query::read(&bytes).unwrap()
    }

    fn reason(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Refuse(refusal) => refusal.reason,
            Verdict::Forward { .. } => "",
        }
    }

    #[test]
    fn a_question_has_one_row_a_minute() {
        let mut asker = Asker::new(0);
        let mut ask = |name: &str, now| asker.judge(&question(name, kind::A), true, now);
        assert_eq!(ask("a.example", 0), Verdict::Forward { new: true });
        assert_eq!(ask("A.example", 59 * SECOND), Verdict::Forward { new: false });
        assert_eq!(ask("b.example", 59 * SECOND), Verdict::Forward { new: true });
        assert_eq!(ask("a.example", 60 * SECOND), Verdict::Forward { new: true });
    }

    #[test]
    fn a_row_that_was_not_written_is_due_again() {
        let mut asker = Asker::new(0);
        let query = question("a.example", kind::A);
        asker.judge(&query, true, 0);
        asker.forget(&query);
        assert_eq!(asker.judge(&query, true, 1), Verdict::Forward { new: true });
    }

    #[test]
    fn strangers_and_tunnels_are_refused() {
        let mut asker = Asker::new(0);
        let seen = asker.judge(&question("a.example", kind::A), false, 0);
        assert_eq!(reason(&seen), "the server is not one of the host's");
        for kind in [0, kind::NULL, kind::OPT, 249, kind::IXFR, kind::AXFR, kind::ANY, 65_280, 65_399] {
            assert_ne!(reason(&asker.judge(&question("a.example", kind), true, SECOND)), "", "{kind}");
        }
        for kind in [kind::A, kind::AAAA, 12, 16, 33, kind::SVCB, kind::HTTPS, 257] {
            assert_eq!(reason(&asker.judge(&question("a.example", kind), true, SECOND)), "", "{kind}");
        }
    }

    #[test]
    fn a_burst_is_bounded_and_the_bucket_fills_again() {
        let mut asker = Asker::new(0);
        let query = question("a.example", kind::A);
        let passed = |asker: &mut Asker, count, now| {
            (0..count)
                .filter(|_| {
                    let forward = matches!(asker.judge(&query, true, now), Verdict::Forward { .. });
                    asker.finish();
                    forward
                })
                .count() as u64
        };
        assert_eq!(passed(&mut asker, 1_000, 0), DNS_BURST);
        assert_eq!(passed(&mut asker, 1_000, SECOND), DNS_RATE);
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut asker = Asker::new(0);
        for number in 0..DNS_WAITING_EACH {
            asker.judge(&question(&format!("n{number}.example"), kind::A), true, 0);
        }
        let query = question("one-more.example", kind::A);
        assert!(reason(&asker.judge(&query, true, 0)).contains("wait"));
        asker.finish();
        assert_eq!(asker.judge(&query, true, 0), Verdict::Forward { new: true });
    }

    #[test]
    fn refusals_beyond_the_rate_are_counted_in_the_next_row() {
        let mut asker = Asker::new(0);
        let mut refuse = |now| asker.refuse(Code::Refused, "no", now).row;
        let rows: Vec<_> = (0..25).filter_map(|_| refuse(0)).collect();
        assert_eq!(rows, [0; DNS_REFUSAL_ROWS as usize]);
        assert_eq!(refuse(SECOND), Some(25 - DNS_REFUSAL_ROWS));
        assert_eq!(refuse(SECOND), Some(0));
    }
}
