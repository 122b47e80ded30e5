//! `************1111`: the shape of a value with a few characters left to recognise it by.
//! It refuses to show a value that has hardly more characters than it may show.

use alloc::string::String;
use alloc::vec::Vec;

pub(super) fn partial(value: &str, first: u8, last: u8) -> String {
    let (first, last) = (usize::from(first), usize::from(last));
    if value.is_ascii() { ascii(value, first, last) } else { unicode(value, first, last) }
}

fn unicode(value: &str, first: usize, last: usize) -> String {
    let total = value.chars().filter(|c| is_content(*c)).count();
    let hide_all = total <= first + last;
    let mut masked = String::with_capacity(value.len());
    let mut seen = 0;
    for character in value.chars() {
        if !is_content(character) {
            masked.push(character);
            continue;
        }
        let shown = !hide_all && (seen < first || seen >= total - last);
        masked.push(if shown { character } else { '*' });
        seen += 1;
    }
    masked
}

/// The same for what nearly every value is, without decoding.
fn ascii(value: &str, first: usize, last: usize) -> String {
    let total = value.bytes().filter(u8::is_ascii_alphanumeric).count();
    let hide_all = total <= first + last;
    let (first, hidden) = if hide_all { (0, total) } else { (first, total - first - last) };
    let mut seen = 0;
    let mask = |byte: u8| {
        let content = byte.is_ascii_alphanumeric();
        // Below `first` the difference wraps round: one comparison for both ends.
        let hide = content && usize::wrapping_sub(seen, first) < hidden;
        seen += usize::from(content);
        if hide { b'*' } else { byte }
    };
    let masked: Vec<u8> = value.bytes().map(mask).collect();
    String::from_utf8(masked).unwrap_or_default()
}

/// Letters and digits of every script, and whatever is neither ASCII nor white space: marks and signs tell, too.
fn is_content(character: char) -> bool {
    character.is_alphanumeric() || !(character.is_ascii() || character.is_whitespace())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_short_way_for_ascii_gives_the_same(value in "[ -~]{0,24}", first in 0..6_usize, last in 0..6_usize) {
            prop_assert_eq!(ascii(&value, first, last), unicode(&value, first, last));
        }
    }
}
