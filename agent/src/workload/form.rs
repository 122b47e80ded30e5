//! Patterns in the form that the kernel programs compare: per segment what stands before and after its one `*`.
//! It refuses what would be labelled otherwise than by the pattern; such patterns are named, with the reason.

use weir_ebpf::{NAME_BYTES, PART_BYTES, PART_WORDS, PATTERN_COUNT, PATTERN_SEGMENTS, Part, Segment};

use super::glob::{self, Pattern};
use crate::kernel::birth::Segments;

/// What the kernel programs are told, and what they cannot be told.
#[derive(Debug, Default)]
pub(super) struct Forms {
    /// By bit of a place's mask; the first one that is complete gives the label.
    pub(super) patterns: Vec<Segments>,
    sources: Vec<Pattern>,
    /// Patterns that only the watch labels, with the reason.
    pub(super) beyond: Vec<(String, &'static str)>,
}

impl Forms {
    /// The first `homes` patterns are those of `weir run`: their cgroups are there as long as the agent is, so they give
    /// way where there are too many.
    pub(super) fn of(patterns: &[(Pattern, u64)], homes: usize) -> Self {
        let mut forms = Self::default();
        let mut told = Vec::new();
        for (at, (pattern, label)) in patterns.iter().enumerate() {
            match compile(pattern, *label) {
                // The attach point itself is never new.
                _ if pattern.segments().is_empty() => {}
                Ok(form) => told.push((at, form)),
                Err(why) => forms.beyond.push((pattern.to_string(), why)),
            }
        }
        if told.len() > PATTERN_COUNT as usize {
            told.retain(|(at, _)| *at >= homes);
        }
        for (place, (at, form)) in told.into_iter().enumerate() {
            let (pattern, _) = &patterns[at];
            if place < PATTERN_COUNT as usize {
                forms.patterns.push(form);
                forms.sources.push(pattern.clone());
            } else {
                forms.beyond.push((pattern.to_string(), "there are more than 64 patterns"));
            }
        }
        forms
    }

    /// The patterns that may be completed below this path, and its depth.
    pub(super) fn place(&self, path: &str) -> (u64, u32) {
        let bits = self.sources.iter().enumerate();
        let mask = bits.fold(0, |mask, (bit, pattern)| mask | u64::from(pattern.continues(path)) << bit);
        (mask, glob::depth(path) as u32)
    }
}

fn compile(pattern: &Pattern, label: u64) -> Result<Segments, &'static str> {
    let mut form: Segments = [None; PATTERN_SEGMENTS as usize];
    let segments = pattern.segments();
    if segments.len() > form.len() {
        return Err("it has more than 6 segments");
    }
    for (slot, (at, text)) in form.iter_mut().zip(segments.iter().enumerate()) {
        let is_last = at + 1 == segments.len();
        *slot = Some(segment(text, if is_last { label } else { 0 })?);
    }
    Ok(form)
}

fn segment(text: &str, label: u64) -> Result<Segment, &'static str> {
    let bytes = text.as_bytes();
    let Some((head, tail)) = text.split_once('*') else {
        // Both parts together hold the whole name.
        let (head, tail) = bytes.split_at(bytes.len().min(PART_BYTES));
        return whole(label, head, tail, bytes.len());
    };
    // Stars in a row are one.
    let tail = tail.trim_start_matches('*');
    if tail.contains('*') {
        return Err("a segment has more than one `*`");
    }
    whole(label, head.as_bytes(), tail.as_bytes(), NAME_BYTES)
}

fn whole(label: u64, head: &[u8], tail: &[u8], most: usize) -> Result<Segment, &'static str> {
    if head.len() > PART_BYTES || tail.len() > PART_BYTES {
        return Err("a segment has more than 64 bytes on one side of its `*`, or more than 128 without one");
    }
    let least = (head.len() + tail.len()) as u32;
    Ok(Segment {
        label,
        least,
        most: most as u32,
        head: part(head, 0),
        tail: part(tail, PART_BYTES - tail.len()),
    })
}

/// The bytes from `at` on.
fn part(bytes: &[u8], at: usize) -> Part {
    let (mut text, mut mask) = ([0; PART_BYTES], [0; PART_BYTES]);
    text[at..at + bytes.len()].copy_from_slice(bytes);
    mask[at..at + bytes.len()].fill(0xff);
    Part { bytes: words(&text), mask: words(&mask) }
}

fn words(bytes: &[u8; PART_BYTES]) -> [u64; PART_WORDS] {
    let (chunks, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|word| u64::from_ne_bytes(chunks[word]))
}
