//! THE list of built-in families, and the one pass over a text that calls each where its values can begin.
//! It refuses to look twice: a family that has read a stretch of text is not called again inside it.

use alloc::vec::Vec;
use core::ops::Range;

use super::{aws, card, edge, email, iban, jwt, llm, phone, private_key, ssn, token, vendor};
use crate::limits::MATCH_BYTES;

/// One built-in family.
pub(super) struct Family {
    pub(super) name: &'static str,
    /// Bytes that stand somewhere in every value, as rare as possible: the search jumps from one to the next.
    bytes: &'static [u8],
    /// Lengths of runs of ASCII digits that a value can begin with, for families of numbers.
    runs: Runs,
    probe: Probe,
    /// Bytes of the longest value.
    longest: usize,
}

/// Looks around a trigger byte, or behind the begin of a run of digits; adds the values that are there to the hits,
/// and says where the family wants to be called again.
pub(super) type Probe = fn(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize;

/// Bit `n`: runs of `n` digits. Runs of 31 digits and more begin no value of any family.
type Runs = u32;

const fn runs(lengths: core::ops::RangeInclusive<u32>) -> Runs {
    (1 << (*lengths.end() + 1)) - (1 << *lengths.start())
}

const NO_RUNS: Runs = 0;
const CARD_RUNS: Runs = runs(4..=4) | runs(6..=6) | runs(8..=8) | runs(12..=19);
const SSN_RUNS: Runs = runs(3..=3) | runs(9..=9);
const IBAN_RUNS: Runs = runs(2..=30);
const PHONE_RUNS: Runs = runs(3..=3);

const fn family(
    name: &'static str,
    bytes: &'static [u8],
    runs: Runs,
    probe: Probe,
    longest: usize,
) -> Family {
    Family { name, bytes, runs, probe, longest }
}

pub(super) const FAMILIES: &[Family] = &[
    family("EMAIL_ADDRESS", b"@%", NO_RUNS, email::probe, email::LONGEST),
    family("CREDIT_CARD", b"", CARD_RUNS, card::probe, card::LONGEST),
    family("US_SSN", b"", SSN_RUNS, ssn::probe, ssn::LONGEST),
    family("AWS_ACCESS_KEY", b"KSk", NO_RUNS, aws::probe, aws::LONGEST),
    family("JWT", b"J", NO_RUNS, jwt::probe, MATCH_BYTES),
    family("PRIVATE_KEY", b"B", NO_RUNS, private_key::probe, MATCH_BYTES),
    family("LLM_API_KEY", b"-_z", NO_RUNS, llm::probe, token::LONGEST),
    family("IBAN_CODE", b"", IBAN_RUNS, iban::probe, iban::LONGEST),
    family("PHONE_NUMBER", b"+", PHONE_RUNS, phone::probe, phone::LONGEST),
    family("GITHUB_TOKEN", b"_", NO_RUNS, vendor::github, token::LONGEST),
    family("SLACK_TOKEN", b"-", NO_RUNS, vendor::slack, token::LONGEST),
    family("STRIPE_KEY", b"_", NO_RUNS, vendor::stripe, token::LONGEST),
    family("GITLAB_TOKEN", b"-", NO_RUNS, vendor::gitlab, token::LONGEST),
    family("PACKAGE_TOKEN", b"-_", NO_RUNS, vendor::package, token::LONGEST),
];

/// Families fit in the bits of a word; the highest bit marks digits in the table of triggers.
const DIGITS: u32 = 1 << 31;
const _: () = assert!(FAMILIES.len() < 31);

impl Family {
    /// Index of the family with this name.
    pub(super) fn named(name: &str) -> Option<usize> {
        FAMILIES.iter().position(|family| family.name == name)
    }
}

/// A set of families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Families(u32);

impl Families {
    pub(super) fn add(&mut self, family: usize) {
        self.0 |= 1 << family;
    }

    pub(super) fn with(self, other: Families) -> Families {
        Families(self.0 | other.0)
    }

    pub(super) fn has(self, family: usize) -> bool {
        self.0 & (1 << family) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn longest(self) -> usize {
        self.iter().filter_map(|index| FAMILIES.get(index)).map(|family| family.longest).max().unwrap_or(0)
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        (0..FAMILIES.len()).filter(move |index| self.has(*index))
    }
}

/// For each byte, and for each length of a run of digits: the families that can have a value there.
#[derive(Debug)]
pub(super) struct Triggers {
    bytes: [u32; 256],
    runs: [u32; 32],
}

impl Default for Triggers {
    fn default() -> Self {
        Self::NONE
    }
}

impl Triggers {
    pub(super) const NONE: Triggers = Triggers { bytes: [0; 256], runs: [0; 32] };

    pub(super) fn new(families: Families) -> Triggers {
        let mut triggers = Triggers::NONE;
        for (index, family) in FAMILIES.iter().enumerate().filter(|(index, _)| families.has(*index)) {
            for byte in family.bytes {
                triggers.bytes[usize::from(*byte)] |= 1 << index;
            }
            for (length, wants) in triggers.runs.iter_mut().enumerate() {
                *wants |= (family.runs >> length & 1) << index;
            }
            if family.runs != NO_RUNS {
                triggers.bytes.iter_mut().skip(usize::from(b'0')).take(10).for_each(|wants| *wants |= DIGITS);
            }
        }
        triggers
    }

    /// Calls `hit(family, start, end)` for every value of the wanted families; one family's values do not overlap.
    pub(super) fn scan(&self, text: &[u8], wanted: Families, hit: &mut dyn FnMut(usize, usize, usize)) {
        if wanted.is_empty() {
            return;
        }
        let mask = wanted.0 | DIGITS;
        let mut triggers = self.next(text, mask);
        // Most short texts have none: nothing is set up for them.
        if triggers.is_none() {
            return;
        }
        let mut search = Search { text, resume: [0; 32], hits: Vec::new(), hit };
        let mut at = 0;
        while let Some((ahead, here)) = triggers {
            at += ahead;
            if here == DIGITS {
                let end = edge::digits_end(text, at);
                let families = self.runs.get(end - at).copied().unwrap_or_default() & wanted.0;
                search.offer(at, families);
                at = end;
            } else {
                search.offer(at, here);
                at += 1;
            }
            triggers = self.next(text.get(at..).unwrap_or_default(), mask);
        }
    }

    fn next(&self, rest: &[u8], mask: u32) -> Option<(usize, u32)> {
        let wants = |byte: &u8| self.bytes[usize::from(*byte)] & mask;
        rest.iter().map(wants).enumerate().find(|(_, here)| *here != 0)
    }
}

/// One pass over one text.
struct Search<'a> {
    text: &'a [u8],
    /// By family: where it wants to be called again.
    resume: [usize; 32],
    hits: Vec<Range<usize>>,
    hit: &'a mut dyn FnMut(usize, usize, usize),
}

impl Search<'_> {
    /// Offers a trigger to its families.
    fn offer(&mut self, at: usize, mut families: u32) {
        while families != 0 {
            let index = families.trailing_zeros() as usize;
            families &= families - 1;
            let (Some(family), Some(resume)) = (FAMILIES.get(index), self.resume.get_mut(index)) else {
                continue;
            };
            if *resume > at {
                continue;
            }
            *resume = (family.probe)(self.text, at, &mut self.hits);
            for value in self.hits.drain(..) {
                (self.hit)(index, value.start, value.end);
            }
        }
    }
}
