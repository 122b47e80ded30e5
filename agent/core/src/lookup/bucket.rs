//! A token bucket over readings of a monotonic clock. It refuses to lend.

const SECOND_NS: u64 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct Bucket {
    rate: u64,
    most: u64,
    tokens: u64,
    /// When the last whole token came.
    since: u64,
}

impl Bucket {
    /// Full, with `rate` tokens a second and room for `most`; neither is 0.
    pub(super) fn new(rate: u64, most: u64, now: u64) -> Bucket {
        Bucket { rate, most, tokens: most, since: now }
    }

    /// Takes a token; false when there is none.
    pub(super) fn take(&mut self, now: u64) -> bool {
        let each = SECOND_NS / self.rate;
        let come = now.saturating_sub(self.since) / each;
        self.since += come * each;
        self.tokens = self.tokens.saturating_add(come).min(self.most);
        let has = self.tokens > 0;
        self.tokens -= u64::from(has);
        has
    }
}
