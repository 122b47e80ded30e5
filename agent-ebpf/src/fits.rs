//! Which patterns a new cgroup's name goes on with, and which one it completes. Nothing here is the kernel's, so that
//! the agent's tests run the same lines. It refuses to branch within a comparison: the verifier would follow each way.

use weir_ebpf::{PART_WORDS, PATTERN_COUNT, PATTERN_SEGMENTS, Part, Place, Segment};

/// A cgroup's name, as segments are held against it.
pub struct Name<'a> {
    /// Its length in bytes.
    pub length: u32,
    /// Its first bytes; what lies behind the name may be anything.
    pub head: &'a [u64; PART_WORDS],
    /// Its last bytes, which end where the words end; what lies before the name may be anything.
    pub tail: &'a [u64; PART_WORDS],
}

/// What a cgroup is born with.
pub struct Birth {
    /// 0: no pattern is complete.
    pub label: u64,
    /// Patterns that may be completed below it.
    pub mask: u64,
}

/// One step down the tree, from the parent's place. The first complete pattern gives the label.
#[inline(always)]
pub fn step<'a>(parent: &Place, name: &Name<'_>, segment: impl Fn(u32) -> Option<&'a Segment>) -> Birth {
    let mut birth = Birth { label: 0, mask: parent.mask };
    if parent.depth >= PATTERN_SEGMENTS {
        birth.mask = 0;
        return birth;
    }
    // From the last one: what is written at the end is the first.
    for pattern in (0..PATTERN_COUNT).rev() {
        let bit = 1_u64 << pattern;
        if parent.mask & bit == 0 {
            continue;
        }
        let Some(segment) = segment(parent.segment(pattern)) else { continue };
        if !fits(segment, name) {
            birth.mask &= !bit;
        } else if segment.label != 0 {
            birth.mask &= !bit;
            birth.label = segment.label;
        }
    }
    birth
}

#[inline(always)]
fn fits(segment: &Segment, name: &Name<'_>) -> bool {
    name.length >= segment.least
        && name.length <= segment.most
        && difference(&segment.head, name.head) | difference(&segment.tail, name.tail) == 0
}

#[inline(always)]
fn difference(part: &Part, name: &[u64; PART_WORDS]) -> u64 {
    let mut difference = 0;
    for ((word, wanted), mask) in name.iter().zip(&part.bytes).zip(&part.mask) {
        difference |= (word ^ wanted) & mask;
    }
    difference
}
