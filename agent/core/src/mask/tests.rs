//! What the masks promise: forms, bounds, determinism, separation by key and class, and no trace of the value.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{Key, Mask, mask_text, mask_value};
use crate::detect::{ClassDefinition, ClassId, Scanner};
use crate::limits::MASKED_BYTES;

fn key() -> Key {
    Key::new([7; 32])
}

fn masked(mask: Mask, value: &str) -> String {
    mask.apply("card", value, &key()).unwrap()
}

#[test]
fn forms() {
    assert_eq!(masked(Mask::Redact, "4111111111111111"), "[CARD]");
    assert_eq!(Mask::Nullify.apply("card", "4111", &key()), None);
    let partial = |first, last, value: &str| masked(Mask::Partial { first, last }, value);
    assert_eq!(partial(0, 4, "4111 1111 1111 1234"), "**** **** **** 1234");
    assert_eq!(partial(1, 3, "bob@example.com"), "b**@*******.com");
    assert_eq!(partial(2, 2, "ab-cd"), "**-**");
    assert_eq!(partial(2, 2, "ab-c-d"), "**-*-*");
    assert_eq!(partial(0, 0, "a1 b"), "** *");
    assert_eq!(partial(1, 1, "Zoë Grün"), "Z** ***n");
    assert_eq!(partial(0, 4, ""), "");
    assert_eq!(masked(Mask::Hash { length: 12 }, "x").len(), 12);
    assert_eq!(masked(Mask::Hash { length: 0 }, "x").len(), 8);
    assert_eq!(masked(Mask::Hash { length: 255 }, "x").len(), 64);
    let token = masked(Mask::Token, "x");
    let body = token.strip_prefix("tok_CARD_").unwrap();
    assert!(
        body.len() >= 20 && body.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')),
        "{token}"
    );
}

/// The digest is HMAC-SHA-256: checked against a value computed with another implementation.
#[test]
fn hash_is_hmac_sha_256() {
    let hash = masked(Mask::Hash { length: 64 }, "4111111111111111");
    assert_eq!(hash, EXPECTED);
}

/// Python: `hmac.new(bytes([7]) * 32, b"hash\0card\0" + b"4111111111111111", "sha256").hexdigest()`.
const EXPECTED: &str = "3dd8203150bc7c07bbd9856922fbd93118b64b82a7e1f3b572c6a9b1ac10a00b";

#[test]
fn strictness() {
    let order = [
        Mask::Partial { first: 4, last: 4 },
        Mask::Partial { first: 0, last: 4 },
        Mask::Partial { first: 0, last: 0 },
        Mask::Hash { length: 64 },
        Mask::Token,
        Mask::Redact,
        Mask::Nullify,
    ];
    assert!(order.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn the_key_is_not_printed() {
    assert_eq!(format!("{:?}", key()), "Key(..)");
}

fn scanner() -> Scanner {
    let class = |name: &str, family: &str| ClassDefinition {
        name: name.into(),
        families: vec![family.into()],
        ..ClassDefinition::default()
    };
    let word =
        ClassDefinition { name: "word".into(), patterns: vec!["x".into()], ..ClassDefinition::default() };
    Scanner::new(&[class("email", "EMAIL_ADDRESS"), class("card", "CREDIT_CARD"), word]).unwrap()
}

#[test]
fn a_text_is_masked_in_place() {
    let plan = [
        (ClassId(0), "email", Mask::Partial { first: 1, last: 3 }),
        (ClassId(1), "card", Mask::Partial { first: 0, last: 4 }),
        (ClassId(1), "card", Mask::Redact),
    ];
    let mut counts = BTreeMap::new();
    let text = "bob@example.com pays 4111 1111 1111 1111 or 5555555555554444.";
    let masked = mask_text(text, &scanner(), &plan, &key(), &mut counts);
    assert_eq!(masked.as_deref(), Some("b**@*******.com pays [CARD] or [CARD]."));
    let want: BTreeMap<String, u64> = [("email".to_string(), 1), ("card".to_string(), 2)].into();
    assert_eq!(counts, want);
    assert_eq!(mask_text("nothing here", &scanner(), &plan, &key(), &mut counts), None);
    assert_eq!(mask_text(text, &scanner(), &[], &key(), &mut counts), None);
    let null = [(ClassId(0), "email", Mask::Nullify)];
    assert_eq!(mask_text("<bob@example.com>", &scanner(), &null, &key(), &mut counts).as_deref(), Some("<>"));
    assert_eq!(mask_value("Bob", "name", Mask::Redact, &key(), &mut counts).as_deref(), Some("[NAME]"));
    assert_eq!(counts["name"], 1);
}

#[test]
fn a_text_that_would_grow_beyond_the_bound_is_redacted() {
    let plan = [(ClassId(2), "word", Mask::Token)];
    let masked = mask_text(&"x ".repeat(MASKED_BYTES / 16), &scanner(), &plan, &key(), &mut BTreeMap::new());
    assert_eq!(masked.as_deref(), Some("[WORD]"));
    let long = "y".repeat(MASKED_BYTES + 1);
    assert_eq!(masked_len(Mask::Partial { first: 0, last: 4 }, &long), "[CARD]".len());
}

fn masked_len(mask: Mask, value: &str) -> usize {
    masked(mask, value).len()
}

const OPAQUE: [Mask; 3] = [Mask::Redact, Mask::Hash { length: 64 }, Mask::Token];

proptest! {
    #[test]
    fn nothing_of_the_value_is_left(digits in "[0-9]{7,30}", class in "[a-z]{1,8}") {
        for mask in OPAQUE {
            let masked = mask.apply(&class, &digits, &key()).unwrap();
            prop_assert!(!masked.contains(&digits[..7]));
        }
    }

    #[test]
    fn equal_in_equal_out_and_keyed(value in "\\PC{1,40}", other in "\\PC{1,40}") {
        for mask in [Mask::Hash { length: 64 }, Mask::Token] {
            let once = mask.apply("a", &value, &key());
            prop_assert_eq!(&once, &mask.apply("a", &value, &key()));
            prop_assert_ne!(&once, &mask.apply("a", &value, &Key::new([8; 32])));
            prop_assert_ne!(&once, &mask.apply("b", &value, &key()));
            prop_assert_eq!(value == other, once == mask.apply("a", &other, &key()));
        }
    }

    #[test]
    fn partial_keeps_shape_and_shows_no_more_than_allowed(value in "\\PC{0,40}", first in 0_u8..6, last in 0_u8..6) {
        let masked = masked(Mask::Partial { first, last }, &value);
        prop_assert!(masked.len() <= value.len());
        prop_assert_eq!(masked.chars().count(), value.chars().count());
        let shown = masked.chars().filter(|c| c.is_alphanumeric()).count();
        prop_assert!(shown <= usize::from(first) + usize::from(last));
        let separators = |text: &str| text.chars().map(|c| c.is_ascii_punctuation() && c != '*').collect::<Vec<_>>();
        prop_assert_eq!(separators(&masked), separators(&value));
    }

    /// Masking a masked text changes nothing: no mask's output looks like a value.
    #[test]
    fn masking_twice_is_masking_once(words in proptest::collection::vec(prop_oneof![
        Just("bob@example.com".to_string()), Just("4111111111111111".to_string()), "[a-w ]{0,8}",
    ], 0..8)) {
        let text = words.join(" ");
        for mask in [Mask::Redact, Mask::Hash { length: 16 }, Mask::Token, Mask::Nullify] {
            let plan = [(ClassId(0), "email", mask), (ClassId(1), "card", mask)];
            let mut counts = BTreeMap::new();
            if let Some(once) = mask_text(&text, &scanner(), &plan, &key(), &mut counts) {
                prop_assert_eq!(mask_text(&once, &scanner(), &plan, &key(), &mut counts), None);
            }
        }
    }
}
