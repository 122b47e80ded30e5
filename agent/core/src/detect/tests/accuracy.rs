//! Recall 1.0 on generated values of every family; at most one false alarm per megabyte of near misses.

use super::corpus::{Dice, carrier, negative, positive, words};
use super::*;

const VALUES: usize = 2_000;

#[test]
fn every_generated_value_is_found_whole() {
    let (scanner, wanted) = everything();
    let mut dice = Dice(1);
    for (index, name) in families().enumerate() {
        let mut found = Vec::new();
        for _ in 0..VALUES {
            let value = positive(&mut dice, name);
            let (before, after) = carrier(&mut dice, &value);
            let text = format!("{before}{value}{after}");
            scanner.find(text.as_bytes(), &wanted, &mut found);
            let whole = found.iter().any(|finding| {
                usize::from(finding.class.0) == index && text[finding.start..finding.end] == value
            });
            assert!(whole, "{name}: {text:?} gave {found:?}");
        }
    }
}

#[test]
fn near_misses_are_left_alone() {
    let (scanner, wanted) = everything();
    let mut dice = Dice(2);
    let mut text = String::new();
    while text.len() < 4 << 20 {
        let value = negative(&mut dice);
        let (before, after) = carrier(&mut dice, &value);
        text.extend([before.as_str(), &value, &after, &words(&mut dice, 8), "\n"]);
    }
    let mut found = Vec::new();
    scanner.find(text.as_bytes(), &wanted, &mut found);
    let alarms: Vec<_> = found.iter().map(|f| (f.class.0, &text[f.start..f.end])).collect();
    assert!(
        alarms.len() <= 4,
        "{} false alarms in 4 MiB: {:?}",
        alarms.len(),
        &alarms[..alarms.len().min(40)]
    );
}
