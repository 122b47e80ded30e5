//! Tokens that begin with a maker's prefix: the shared way to look one up.
//! It refuses short or digitless tails: variable names and class names begin like tokens too.

use alloc::vec::Vec;
use core::ops::Range;

use super::edge::{run_end, starts_word};

/// Bytes of the longest token, prefix included; a longer run of token characters is cut there.
pub(super) const LONGEST: usize = 512;

/// How the tokens of one maker look.
pub(super) struct Shape {
    /// Its last byte is what triggers the look-up.
    pub(super) prefix: &'static [u8],
    pub(super) tail: Tail,
    /// Characters after the prefix, at least.
    pub(super) least: usize,
}

/// The shapes of one family.
pub(super) struct Shapes {
    shapes: &'static [Shape],
    /// Bytes that stand before the last one of some prefix: most triggers fail here, at the cost of one look.
    before_last: [bool; 256],
}

impl Shapes {
    pub(super) const fn new(shapes: &'static [Shape]) -> Shapes {
        let mut before_last = [false; 256];
        let mut index = 0;
        while index < shapes.len() {
            let prefix = shapes[index].prefix;
            before_last[prefix[prefix.len() - 2] as usize] = true;
            index += 1;
        }
        Shapes { shapes, before_last }
    }
}

/// What may follow a prefix.
#[derive(Clone, Copy)]
pub(super) enum Tail {
    /// Letters and digits.
    Alphanumeric,
    /// Letters, digits, `-` and `_`.
    Dashed,
    /// As `Dashed`, and the first `least` of them are letters and digits: for prefixes that words also have.
    DashedLater,
}

/// Adds the token whose prefix ends at `at`; returns where to look next.
pub(super) fn look_up(text: &[u8], at: usize, shapes: &Shapes, hits: &mut Vec<Range<usize>>) -> usize {
    let (before, last) = match text.get(..=at) {
        Some(before @ [.., last, _]) if shapes.before_last[usize::from(*last)] => (before, *last),
        Some(_) | None => return at + 1,
    };
    let likely = |shape: &&Shape| matches!(shape.prefix, [.., byte, _] if *byte == last);
    for shape in shapes.shapes.iter().filter(likely) {
        if !before.ends_with(shape.prefix) || !starts_word(text, at + 1 - shape.prefix.len()) {
            continue;
        }
        let start = at + 1 - shape.prefix.len();
        let end = tail_end(text, at + 1, shape);
        let tail = text.get(at + 1..end).unwrap_or_default();
        if tail.len() < shape.least {
            continue;
        }
        if tail.iter().any(u8::is_ascii_digit) && tail.iter().any(u8::is_ascii_alphabetic) {
            hits.push(start..end);
        }
        // Without a digit here, no later prefix in this run has one either.
        return end;
    }
    at + 1
}

fn tail_end(text: &[u8], from: usize, shape: &Shape) -> usize {
    let most = LONGEST - shape.prefix.len();
    let dashed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    match shape.tail {
        Tail::Alphanumeric => run_end(text, from, most, u8::is_ascii_alphanumeric),
        Tail::Dashed => run_end(text, from, most, dashed),
        Tail::DashedLater => {
            let end = run_end(text, from, most, u8::is_ascii_alphanumeric);
            if end - from < shape.least { end } else { run_end(text, from, most, dashed) }
        }
    }
}
