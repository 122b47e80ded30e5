//! Payment card numbers: an issuer's range, a length that issuer uses, the check digit (ISO/IEC 7812), a plausible grouping.
//! It refuses parts of longer numbers (ids, fractions, hex strings) even when their check digit happens to be right.

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::{digits_end, ends_word, number_after, number_before, starts_word};

const SHORTEST_CARD: usize = 12;
const LONGEST_CARD: usize = 19;
/// 19 digits and four separators.
pub(super) const LONGEST: usize = LONGEST_CARD + 4;

pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    let run = at..digits_end(text, at);
    let resume = run.end;
    let Some(value) = number(text, run) else { return resume };
    let end = value.end;
    hits.push(value);
    end
}

/// The card that begins with this run of digits.
fn number(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    match run.len() {
        SHORTEST_CARD..=LONGEST_CARD => plain(text, run),
        4 | 6 | 8 => grouped(text, run),
        _ => None,
    }
}

/// A number without separators.
fn plain(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    if !begins(text, run.start) || !ends(text, run.end) {
        return None;
    }
    // The last group of a UUID: hex digits and `-` before it.
    if run.len() == SHORTEST_CARD && in_uuid(text, run.start) {
        return None;
    }
    let mut digits = Digits::default();
    digits.push(text.get(run.clone())?);
    digits.is_card().then_some(run)
}

/// How cards are printed: sizes of the groups, longer numbers first.
const GROUPINGS: &[&[usize]] = &[
    &[4, 4, 4, 4, 3],
    &[4, 4, 4, 4, 2],
    &[4, 4, 4, 4, 1],
    &[6, 13],
    &[4, 4, 4, 4],
    &[8, 8],
    &[4, 4, 4, 3],
    &[4, 6, 5],
    &[4, 6, 4],
    &[4, 4, 4, 2],
    &[4, 4, 4, 1],
    &[4, 4, 5],
    &[4, 4, 4],
];
const GROUPS: usize = 5;

/// A number in groups with the same single separator between all of them.
fn grouped(text: &[u8], first: Range<usize>) -> Option<Range<usize>> {
    let separator = *text.get(first.end)?;
    if !matches!(separator, b' ' | b'-' | b'.') || !begins(text, first.start) {
        return None;
    }
    // Dashes and dots chain into ids and versions; blanks only stand between neighbours.
    if separator != b' ' && number_before(text, first.start, separator) {
        return None;
    }
    let start = first.start;
    let mut groups = [(0, 0); GROUPS];
    let mut count = 0;
    let mut next = first;
    for slot in &mut groups {
        *slot = (next.len(), next.end);
        count += 1;
        if !number_after(text, next.end, separator) {
            break;
        }
        next = next.end + 1..digits_end(text, next.end + 1);
    }
    let groups = groups.get(..count)?;
    GROUPINGS.iter().find_map(|sizes| card_of(text, start, groups, sizes, separator))
}

/// The card that the first groups make when they have these sizes.
fn card_of(
    text: &[u8],
    start: usize,
    groups: &[(usize, usize)],
    sizes: &[usize],
    separator: u8,
) -> Option<Range<usize>> {
    let groups = groups.get(..sizes.len())?;
    if groups.iter().zip(sizes).any(|((length, _), size)| length != size) {
        return None;
    }
    let end = groups.last()?.1;
    if !ends(text, end) || (separator != b' ' && number_after(text, end, separator)) {
        return None;
    }
    let mut digits = Digits::default();
    for (length, group_end) in groups {
        digits.push(text.get(group_end.checked_sub(*length)?..*group_end)?);
    }
    digits.is_card().then_some(start..end)
}

/// A card may begin here: no letter before it (but `%B` of a magnetic stripe), no fraction.
fn begins(text: &[u8], start: usize) -> bool {
    let stripe = text.get(..start).is_some_and(|before| before.ends_with(b"%B"));
    (starts_word(text, start) || stripe) && !number_before(text, start, b'.')
}

/// A card may end here: no letter after it, no fraction (but `.0`, as spreadsheets write whole numbers).
fn ends(text: &[u8], end: usize) -> bool {
    let whole = matches!(text.get(end..), Some([b'.', b'0', rest @ ..]) if ends_word(rest, 0));
    ends_word(text, end) && (whole || !number_after(text, end, b'.'))
}

fn in_uuid(text: &[u8], start: usize) -> bool {
    match text.get(..start) {
        Some([.., b'-', a, b, c, d, b'-']) => [a, b, c, d].iter().all(|byte| byte.is_ascii_hexdigit()),
        Some(_) | None => false,
    }
}

/// Digits of a candidate without separators.
#[derive(Default)]
struct Digits {
    digits: [u8; LONGEST_CARD],
    count: usize,
}

impl Digits {
    fn push(&mut self, ascii: &[u8]) {
        for byte in ascii {
            if let Some(slot) = self.digits.get_mut(self.count) {
                *slot = byte.wrapping_sub(b'0');
                self.count += 1;
            }
        }
    }

    fn is_card(&self) -> bool {
        let digits = self.digits.get(..self.count).unwrap_or_default();
        luhn(digits) && issued(digits) && digits.iter().any(|digit| Some(digit) != digits.first())
    }
}

/// The number begins in a range that an issuer uses, and is as long as that issuer's numbers are.
fn issued(digits: &[u8]) -> bool {
    let prefix = digits.iter().take(6).fold(0_u32, |sum, digit| sum * 10 + u32::from(*digit));
    RANGES
        .iter()
        .any(|range| (range.first..=range.last).contains(&prefix) && range.lengths.contains(&digits.len()))
}

/// Issuer numbers (the first six digits) and the lengths in use there.
struct Issuer {
    first: u32,
    last: u32,
    lengths: &'static [usize],
}

const fn issuer(first: u32, last: u32, lengths: &'static [usize]) -> Issuer {
    Issuer { first, last, lengths }
}

const SIXTEEN: &[usize] = &[16];
const SIXTEEN_UP: &[usize] = &[16, 17, 18, 19];
const MAESTRO: &[usize] = &[12, 13, 14, 15, 16, 17, 18, 19];

/// Visa, Mastercard, American Express, Discover, UnionPay, JCB, Diners Club, Maestro, Mir, RuPay, InterPayment.
const RANGES: &[Issuer] = &[
    issuer(400_000, 499_999, &[13, 16, 18, 19]),
    issuer(510_000, 559_999, SIXTEEN),
    issuer(222_100, 272_099, SIXTEEN),
    issuer(340_000, 349_999, &[15]),
    issuer(370_000, 379_999, &[15]),
    issuer(601_100, 601_199, SIXTEEN_UP),
    issuer(644_000, 659_999, SIXTEEN_UP),
    issuer(620_000, 629_999, SIXTEEN_UP),
    issuer(810_000, 817_199, SIXTEEN_UP),
    issuer(352_800, 358_999, SIXTEEN_UP),
    issuer(213_100, 213_199, &[15]),
    issuer(180_000, 180_099, &[15]),
    issuer(300_000, 305_999, &[14, 15, 16, 17, 18, 19]),
    issuer(309_500, 309_599, &[14, 15, 16, 17, 18, 19]),
    issuer(360_000, 369_999, &[14, 15, 16, 17, 18, 19]),
    issuer(380_000, 399_999, &[14, 15, 16, 17, 18, 19]),
    issuer(60_400, 60_499, MAESTRO),
    issuer(501_800, 501_899, MAESTRO),
    issuer(502_000, 502_099, MAESTRO),
    issuer(503_800, 503_899, MAESTRO),
    issuer(560_000, 589_999, MAESTRO),
    issuer(630_400, 630_499, MAESTRO),
    issuer(639_000, 639_099, MAESTRO),
    issuer(675_900, 675_999, MAESTRO),
    issuer(676_100, 676_399, MAESTRO),
    issuer(676_770, 676_774, MAESTRO),
    issuer(220_000, 220_499, SIXTEEN_UP),
    issuer(600_000, 609_999, SIXTEEN),
    issuer(508_000, 508_999, SIXTEEN),
    issuer(636_000, 636_999, SIXTEEN_UP),
];

/// The check digit of ISO/IEC 7812-1, annex B: every second digit from the right is doubled, the sum ends in 0.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| {
            let value = u32::from(*digit) << (index % 2);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::luhn;

    #[test]
    fn luhn_vectors() {
        let digits = |text: &str| text.bytes().map(|byte| byte - b'0').collect::<alloc::vec::Vec<u8>>();
        for right in
            ["79927398713", "4111111111111111", "5555555555554444", "378282246310005", "30569309025904"]
        {
            assert!(luhn(&digits(right)), "{right}");
        }
        for wrong in ["79927398710", "79927398714", "4111111111111112", "1111111111111111"] {
            assert!(!luhn(&digits(wrong)), "{wrong}");
        }
    }
}
