//! `************1111`: the shape of a value with a few characters left to recognise it by.
//! It refuses to show a value that has hardly more characters than it may show.

use alloc::string::String;

pub(super) fn partial(value: &str, first: u8, last: u8) -> String {
    let (first, last) = (usize::from(first), usize::from(last));
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

/// Letters and digits of every script, and whatever is neither ASCII nor white space: marks and signs tell, too.
fn is_content(character: char) -> bool {
    character.is_alphanumeric() || !(character.is_ascii() || character.is_whitespace())
}
