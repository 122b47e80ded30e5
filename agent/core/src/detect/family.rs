//! THE list of built-in families, and the one pass over a text that calls each where its values can begin.
//! It refuses to look twice: a family that has read a stretch of text is not called again inside it.

use alloc::vec::Vec;
use core::ops::Range;

use super::{aws, card, email, iban, jwt, llm, phone, private_key, ssn, vendor};

/// One built-in family.
pub(super) struct Family {
    pub(super) name: &'static str,
    trigger: Trigger,
    /// Bytes of the longest value.
    longest: usize,
}

/// Where a value of the family can be; the search jumps from trigger to trigger.
enum Trigger {
    /// At one of these bytes (they stand somewhere in every value, as rare as possible).
    At(&'static [u8], Probe),
    /// At a maximal run of ASCII digits.
    Digits(fn(&[u8], Range<usize>) -> Option<Range<usize>>),
}

/// Looks around a trigger, adds what is there to the hits, and says where the family wants to be called again.
pub(super) type Probe = fn(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize;

pub(super) const FAMILIES: &[Family] = &[
    Family { name: "EMAIL_ADDRESS", trigger: Trigger::At(b"@%", email::probe), longest: email::LONGEST },
    Family { name: "CREDIT_CARD", trigger: Trigger::Digits(card::probe), longest: card::LONGEST },
    Family { name: "US_SSN", trigger: Trigger::Digits(ssn::probe), longest: ssn::LONGEST },
    Family { name: "AWS_ACCESS_KEY", trigger: Trigger::At(b"KSk", aws::probe), longest: aws::LONGEST },
    Family { name: "JWT", trigger: Trigger::At(b"J", jwt::probe), longest: crate::limits::MATCH_BYTES },
    Family {
        name: "PRIVATE_KEY",
        trigger: Trigger::At(b"B", private_key::probe),
        longest: crate::limits::MATCH_BYTES,
    },
    Family { name: "LLM_API_KEY", trigger: Trigger::At(b"-_z", llm::probe), longest: super::token::LONGEST },
    Family { name: "IBAN_CODE", trigger: Trigger::Digits(iban::probe), longest: iban::LONGEST },
    Family { name: "PHONE_NUMBER", trigger: Trigger::Digits(phone::probe), longest: phone::LONGEST },
    Family {
        name: "GITHUB_TOKEN",
        trigger: Trigger::At(b"_", vendor::github),
        longest: super::token::LONGEST,
    },
    Family { name: "SLACK_TOKEN", trigger: Trigger::At(b"-", vendor::slack), longest: super::token::LONGEST },
    Family { name: "STRIPE_KEY", trigger: Trigger::At(b"_", vendor::stripe), longest: super::token::LONGEST },
    Family {
        name: "GITLAB_TOKEN",
        trigger: Trigger::At(b"-", vendor::gitlab),
        longest: super::token::LONGEST,
    },
    Family {
        name: "PACKAGE_TOKEN",
        trigger: Trigger::At(b"-_", vendor::package),
        longest: super::token::LONGEST,
    },
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

/// For each byte: the families that can have a value there.
#[derive(Debug)]
pub(super) struct Triggers {
    table: [u32; 256],
    digit_families: Families,
}

impl Default for Triggers {
    fn default() -> Self {
        Self::NONE
    }
}

impl Triggers {
    pub(super) const NONE: Triggers = Triggers { table: [0; 256], digit_families: Families(0) };

    pub(super) fn new(families: Families) -> Triggers {
        let mut triggers = Triggers::NONE;
        for index in families.iter() {
            match FAMILIES.get(index).map(|family| &family.trigger) {
                Some(Trigger::At(bytes, _)) => {
                    for byte in *bytes {
                        triggers.table[usize::from(*byte)] |= 1 << index;
                    }
                }
                Some(Trigger::Digits(_)) => {
                    triggers.digit_families.add(index);
                    for byte in b'0'..=b'9' {
                        triggers.table[usize::from(byte)] |= DIGITS;
                    }
                }
                None => {}
            }
        }
        triggers
    }

    /// Calls `hit(family, start, end)` for every value of the wanted families; one family's values do not overlap.
    pub(super) fn scan(&self, text: &[u8], wanted: Families, hit: &mut dyn FnMut(usize, usize, usize)) {
        if wanted.is_empty() {
            return;
        }
        let numbers = Families(wanted.0 & self.digit_families.0);
        let mask = wanted.0 | if numbers.is_empty() { 0 } else { DIGITS };
        let mut resume = [0_usize; 32];
        let mut hits = Vec::new();
        let mut at = 0;
        while let Some(found) = self.next(text, at, mask) {
            at = found;
            let here = self.table[usize::from(text[at])] & mask;
            if here == DIGITS {
                let run = at..super::edge::digits_end(text, at);
                at = run.end;
                number(text, run, numbers, &mut resume, hit);
                continue;
            }
            called(text, at, Families(here), &mut resume, &mut hits, hit);
            at += 1;
        }
    }

    fn next(&self, text: &[u8], from: usize, mask: u32) -> Option<usize> {
        let rest = text.get(from..)?;
        rest.iter().position(|byte| self.table[usize::from(*byte)] & mask != 0).map(|ahead| from + ahead)
    }
}

/// Offers a run of digits to the families that read numbers.
fn number(
    text: &[u8],
    run: Range<usize>,
    families: Families,
    resume: &mut [usize; 32],
    hit: &mut dyn FnMut(usize, usize, usize),
) {
    let mut rest = families.0;
    while rest != 0 {
        let index = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        if resume[index] > run.start {
            continue;
        }
        let Some(Family { trigger: Trigger::Digits(probe), .. }) = FAMILIES.get(index) else { continue };
        if let Some(value) = probe(text, run.clone()) {
            resume[index] = value.end;
            hit(index, value.start, value.end);
        }
    }
}

/// Offers a trigger byte to its families.
fn called(
    text: &[u8],
    at: usize,
    families: Families,
    resume: &mut [usize; 32],
    hits: &mut Vec<Range<usize>>,
    hit: &mut dyn FnMut(usize, usize, usize),
) {
    let mut rest = families.0;
    while rest != 0 {
        let index = rest.trailing_zeros() as usize;
        rest &= rest - 1;
        if resume[index] > at {
            continue;
        }
        let Some(Family { trigger: Trigger::At(_, probe), .. }) = FAMILIES.get(index) else { continue };
        resume[index] = probe(text, at, hits);
        for value in hits.drain(..) {
            hit(index, value.start, value.end);
        }
    }
}
