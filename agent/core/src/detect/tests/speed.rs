//! Time is linear in the text, whatever the text. (Figures of a release build are printed with `--nocapture`.)

use std::println;
use std::time::Duration;

use super::corpus::{Dice, words};
use super::*;

/// Megabytes of text per measurement: small where nothing is optimised.
const BYTES: usize = if cfg!(debug_assertions) { 1 << 18 } else { 16 << 20 };

#[test]
fn hostile_texts_take_linear_time() {
    let hostile = [
        ("long digit run", "1"),
        ("short digit runs", "1 "),
        ("card groups", "4111 "),
        ("nine digits", "536904399 "),
        ("at signs", "@"),
        ("addresses", "a@a.aa"),
        ("dashes", "-"),
        ("underscores", "_"),
        ("prefixes", "sk-ant-"),
        ("jwt begins", "eyJ-"),
        ("jwt dots", "eyJhbGciOiJIUzI1NiJ9."),
        ("pem begins", "-----BEGIN PRIVATE KEY-----\""),
        ("pem whole", "-----BEGIN PRIVATE KEY-----\nA\n-----END PRIVATE KEY-----\n"),
        ("aws ids", "AKIAIOSFODNN7EXAMPLE/"),
        ("secret keys", "secret key"),
        ("plus signs", "+12 "),
        ("ibans", "GB82 WEST 1234 "),
    ];
    let (scanner, wanted) = everything();
    for (name, piece) in hostile {
        let text = piece.repeat(BYTES / piece.len());
        let (small, large) =
            (time(&scanner, &wanted, &text[..text.len() / 8]), time(&scanner, &wanted, &text));
        println!("{name:20} {:8.1} MB/s", rate(text.len(), large));
        // Eight times the text may take eight times as long, not sixty-four times.
        assert!(large < small * 32 + Duration::from_millis(50), "{name}: {small:?} then {large:?}");
    }
}

#[test]
fn ordinary_texts() {
    let (scanner, wanted) = everything();
    let mut dice = Dice(3);
    let prose = words(&mut dice, BYTES / 7);
    let plain = "the quick brown fox jumps over the lazy dog, and then it rests. ".repeat(BYTES / 64);
    let json = "{\"id\": 48213, \"name\": \"item\", \"price\": 19.99, \"at\": \"2024-05-06T07:08:09Z\"}\n"
        .repeat(BYTES / 78);
    for (name, text) in [("plain prose", &plain), ("mixed words", &prose), ("json rows", &json)] {
        println!("{name:20} {:8.1} MB/s", rate(text.len(), time(&scanner, &wanted, text)));
    }
    let cell = "Jane Q. Customer";
    let start = processor_time();
    let mut found = Vec::new();
    for _ in 0..100_000 {
        scanner.find(core::hint::black_box(cell.as_bytes()), &wanted, &mut found);
    }
    println!("{:20} {:8.1} ns", "one short cell", (processor_time() - start).as_nanos() as f64 / 100_000.0);
}

fn time(scanner: &Scanner, wanted: &ClassSet, text: &str) -> Duration {
    let mut found = Vec::new();
    let once = || {
        let start = processor_time();
        scanner.find(text.as_bytes(), wanted, &mut found);
        processor_time() - start
    };
    core::iter::repeat_with(once).take(2).min().unwrap()
}

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e6
}

/// What this thread has used of a processor: other work on the machine must not count.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split_ascii_whitespace().next().unwrap().parse().unwrap())
}
