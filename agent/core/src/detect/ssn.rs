//! US social security numbers: `AAA-GG-SSSS` with one separator throughout, or nine digits that the text calls an SSN.
//! It refuses numbers that were never issued (SSA: area 000, 666, 900–999; group 00; serial 0000; the printed specimens).

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::{digits_end, ends_word, number_after, number_before, starts_word, word_before};

pub(super) const LONGEST: usize = 11;
/// Bytes before nine plain digits in which the text must name them.
const CONTEXT: usize = 48;

pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    let run = at..digits_end(text, at);
    let resume = run.end;
    let Some(value) = number(text, run) else { return resume };
    let end = value.end;
    hits.push(value);
    end
}

/// The number that begins with this run of digits.
fn number(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    let value = match run.len() {
        9 => plain(text, run),
        3 => separated(text, run),
        _ => None,
    }?;
    (starts_word(text, value.start) && ends_word(text, value.end)).then_some(value)
}

fn plain(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    if number_before(text, run.start, b'.') || number_after(text, run.end, b'.') || !named(text, run.start) {
        return None;
    }
    issued(decimal(text, run.clone())?).then_some(run)
}

fn separated(text: &[u8], area: Range<usize>) -> Option<Range<usize>> {
    let separator = *text.get(area.end)?;
    if !matches!(separator, b'-' | b' ' | b'.') {
        return None;
    }
    let group = area.end + 1..digits_end(text, area.end + 1);
    if group.len() != 2 || text.get(group.end) != Some(&separator) {
        return None;
    }
    let serial = group.end + 1..digits_end(text, group.end + 1);
    if serial.len() != 4 {
        return None;
    }
    let value = area.start..serial.end;
    // More groups around it make it a part of something longer; in columns of numbers only its name tells.
    let chained = number_before(text, value.start, separator) || number_after(text, value.end, separator);
    if chained && !(separator == b' ' && named(text, value.start)) {
        return None;
    }
    let number = decimal(text, area)? * 1_000_000 + decimal(text, group)? * 10_000 + decimal(text, serial)?;
    issued(number).then_some(value)
}

fn named(text: &[u8], at: usize) -> bool {
    word_before(text, at, CONTEXT, b's', &[b"ssn", b"social security", b"social_security", b"socialsecurity"])
}

fn issued(number: u32) -> bool {
    let (area, group, serial) = (number / 1_000_000, number / 10_000 % 100, number % 10_000);
    let printed = matches!(number, 78_051_120 | 219_099_999 | 457_555_462);
    let repeated = number.is_multiple_of(111_111_111);
    area != 0 && area != 666 && area < 900 && group != 0 && serial != 0 && !printed && !repeated
}

fn decimal(text: &[u8], digits: Range<usize>) -> Option<u32> {
    let digits = text.get(digits)?;
    Some(
        digits
            .iter()
            .fold(0_u32, |sum, digit| sum.wrapping_mul(10).wrapping_add(u32::from(digit.wrapping_sub(b'0')))),
    )
}

#[cfg(test)]
mod tests {
    use super::issued;

    #[test]
    fn never_issued_numbers() {
        for wrong in [
            123_456,
            666_123_456,
            900_123_456,
            999_123_456,
            123_001_234,
            123_450_000,
            78_051_120,
            219_099_999,
        ] {
            assert!(!issued(wrong), "{wrong}");
        }
        for right in [1_010_001, 123_456_789, 536_904_399, 899_999_998] {
            assert!(issued(right), "{right}");
        }
    }
}
