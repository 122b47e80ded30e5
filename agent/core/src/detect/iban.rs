//! International bank account numbers (ISO 13616): country, its length, remainder 97; in one piece or in groups of four.
//! It refuses country codes without a registered length.

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::{digits_end, ends_word, starts_word};

/// 34 characters and eight blanks.
pub(super) const LONGEST: usize = 42;

pub(super) fn probe(text: &[u8], at: usize, hits: &mut Vec<Range<usize>>) -> usize {
    let run = at..digits_end(text, at);
    let resume = run.end;
    let Some(value) = number(text, run) else { return resume };
    let end = value.end;
    hits.push(value);
    end
}

/// The account that has these digits after its country code.
fn number(text: &[u8], run: Range<usize>) -> Option<Range<usize>> {
    let start = run.start.checked_sub(2)?;
    let [first, second] = text.get(start..run.start)? else { return None };
    if run.len() < 2
        || !first.is_ascii_alphabetic()
        || !second.is_ascii_alphabetic()
        || !starts_word(text, start)
    {
        return None;
    }
    let country = [first.to_ascii_uppercase(), second.to_ascii_uppercase()];
    let length = LENGTHS.iter().find(|(code, _)| **code == country).map(|(_, length)| *length)?;
    let mut account = [0_u8; 34];
    let account = account.get_mut(..length)?;
    let end = gather(text, start, account)?;
    (ends_word(text, end) && remainder(account) == 1).then_some(start..end)
}

/// Fills `account` with the letters and digits from `start`, allowing one blank after every fourth; returns the end.
fn gather(text: &[u8], start: usize, account: &mut [u8]) -> Option<usize> {
    let mut at = start;
    for (index, slot) in account.iter_mut().enumerate() {
        if index > 0 && index % 4 == 0 && matches!(text.get(at), Some(b' ' | b'-')) {
            at += 1;
        }
        let byte = *text.get(at)?;
        if !byte.is_ascii_alphanumeric() {
            return None;
        }
        *slot = byte.to_ascii_uppercase();
        at += 1;
    }
    Some(at)
}

/// ISO 7064 mod 97-10 of the number with its first four characters moved to the end.
fn remainder(account: &[u8]) -> u32 {
    let (head, body) = account.split_at(account.len().min(4));
    body.iter().chain(head).fold(0_u32, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter.wrapping_sub(b'A')) + 10) % 97,
    })
}

/// Lengths in the SWIFT registry.
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];
