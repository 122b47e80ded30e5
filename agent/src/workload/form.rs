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

#[cfg(test)]
#[path = "../../../agent-ebpf/src/fits.rs"]
mod fits;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_ebpf::Place;

    use super::fits::{Birth, Name, step};
    use super::*;

    fn forms(patterns: &[&str]) -> (Forms, Vec<(Pattern, u64)>) {
        let patterns: Vec<_> =
            patterns.iter().zip(1..).map(|(text, label)| (Pattern::new(text), label)).collect();
        (Forms::of(&patterns, 0), patterns)
    }

    /// What the kernel programs do when a cgroup of this name is made below `parent`.
    fn born(forms: &Forms, parent: &Place, name: &[u8]) -> Birth {
        let mut text = [0xa5_u8; PART_BYTES + NAME_BYTES + 1];
        text[PART_BYTES..PART_BYTES + name.len()].copy_from_slice(name);
        let head = words(text[PART_BYTES..].first_chunk().unwrap());
        let tail = words(text[name.len()..].first_chunk().unwrap());
        let name = Name { length: name.len() as u32, head: &head, tail: &tail };
        step(parent, &name, |index| {
            let (pattern, depth) = (index / PATTERN_SEGMENTS, index % PATTERN_SEGMENTS);
            forms.patterns.get(pattern as usize)?[depth as usize].as_ref()
        })
    }

    /// Label and place at the end of a path, made segment by segment.
    fn walk(forms: &Forms, path: &str) -> (u64, Place) {
        let mut place = Place { mask: forms.place("").0, depth: 0, bank: 0, spilled: 0 };
        let mut label = 0;
        for segment in path.split('/') {
            let birth = born(forms, &place, segment.as_bytes());
            label = birth.label;
            place = Place { mask: birth.mask, depth: place.depth + 1, bank: 0, spilled: 0 };
        }
        (label, place)
    }

    #[test]
    fn what_cannot_be_compared_is_named() {
        let n65 = "n".repeat(65);
        let (forms, _) =
            forms(&["a*b*c", "a**b", "1/2/3/4/5/6", "1/2/3/4/5/6/7", &format!("*{n65}"), &n65, "/"]);
        let beyond: Vec<_> = forms.beyond.iter().map(|(pattern, _)| pattern.as_str()).collect();
        assert_eq!(beyond, ["a*b*c", "1/2/3/4/5/6/7", &format!("*{n65}")]);
        assert_eq!(forms.patterns.len(), 3);
    }

    #[test]
    fn homes_give_way_where_there_are_too_many() {
        let patterns: Vec<_> = (0..100).map(|at| (Pattern::new(&format!("p{at}")), at + 1)).collect();
        let forms = Forms::of(&patterns, 50);
        assert!(forms.patterns.len() == 50 && forms.beyond.is_empty());
        let forms = Forms::of(&patterns, 10);
        assert_eq!((forms.patterns.len(), forms.beyond.len()), (64, 26));
        assert_eq!(forms.beyond[0].0, "p74");
    }

    proptest! {
        #[test]
        fn the_kernel_says_what_the_patterns_say(
            patterns in prop::collection::vec("[ab*]{1,3}(/[ab]{0,2}\\*{0,2}[ab]{1,2}){0,6}", 1..70),
            path in "[ab]{1,4}(/[ab]{1,4}){0,6}",
        ) {
            let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
            let (forms, all) = forms(&patterns);
            let known = all.iter().filter(|(pattern, _)| forms.sources.contains(pattern));
            let wanted = known.clone().find(|(pattern, _)| pattern.matches(&path)).map_or(0, |(_, label)| *label);
            let (label, place) = walk(&forms, &path);
            prop_assert_eq!(label, wanted);
            // A walk over what is there comes to the same places as births do.
            prop_assert_eq!((place.mask, place.depth), forms.place(&path));
        }

        #[test]
        fn long_names_are_compared_at_both_ends(head in "n{0,64}", tail in "[mn]{0,2}n{0,62}", name in "n{0,90}[mn]n{0,90}") {
            let pattern = format!("{head}*{tail}");
            let (forms, all) = forms(&[&pattern, &name]);
            let wanted = all.iter().find(|(pattern, _)| pattern.matches(&name)).map_or(0, |(_, label)| *label);
            let wanted = if forms.patterns.len() < 2 && wanted == 2 { 0 } else { wanted };
            prop_assert_eq!(walk(&forms, &name).0, wanted);
        }
    }
}
