//! Masks: a masked text is bounded, the same every time, and holds none of the values that were found.

use std::collections::BTreeMap;

use weir_core::detect::ClassId;
use weir_core::limits::MASKED_BYTES;
use weir_core::mask::{Key, Mask, mask_text};

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (scanner, wanted) = super::detect::scanner();
    let key = Key::new([7; 32]);
    let mut found = Vec::new();
    scanner.find(bytes, wanted, &mut found);
    for mask in [
        Mask::Partial { first: 1, last: 2 },
        Mask::Hash { length: 16 },
        Mask::Token,
        Mask::Redact,
        Mask::Nullify,
    ] {
        let plan: Vec<(ClassId, &str, Mask)> = wanted.0.iter().map(|class| (*class, "class", mask)).collect();
        let mut counts = BTreeMap::new();
        let masked = mask_text(text, scanner, &plan, &key, &mut counts);
        assert_eq!(masked.is_some(), !found.is_empty());
        assert_eq!(masked, mask_text(text, scanner, &plan, &key, &mut BTreeMap::new()));
        let Some(masked) = masked else { continue };
        assert!(masked.len() <= text.len().max(MASKED_BYTES));
        assert_eq!(counts.values().sum::<u64>(), found.len() as u64);
        if mask == Mask::Redact {
            let kept = text.len() - found.iter().map(|finding| finding.end - finding.start).sum::<usize>();
            assert_eq!(masked.len(), kept + found.len() * "[CLASS]".len());
        }
    }
}
