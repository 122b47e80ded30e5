//! A seeded generator of values, of near misses, and of the prose, JSON and CSV they stand in.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// SplitMix64: the same seed gives the same corpus everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0..limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    pub fn pick<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    pub fn string(&mut self, alphabet: &str, length: u64) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).map(|_| letters[usize::try_from(self.below(letters.len() as u64)).unwrap()]).collect()
    }

    pub fn digits(&mut self, length: u64) -> String {
        self.string("0123456789", length)
    }
}

const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const URL64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const BASE64: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const WORDS: &[&str] = &[
    "the",
    "customer",
    "order",
    "was",
    "shipped",
    "to",
    "a",
    "warehouse",
    "in",
    "Denver",
    "after",
    "review",
    "invoice",
    "please",
    "see",
    "ticket",
    "for",
    "details",
    "risk-based",
    "re-run",
    "user_name",
    "K8s",
    "JSON",
    "Job",
    "BEGIN",
    "key",
    "secret",
    "naïve",
    "Zürich",
    "10%",
    "asks",
    "task-list",
    "snake_case",
    "Kafka",
    "SKU",
    "AKA",
    "SASS",
    "日本",
];

/// One value of a family.
pub fn positive(dice: &mut Dice, family: &str) -> String {
    match family {
        "EMAIL_ADDRESS" => email(dice),
        "CREDIT_CARD" => card(dice),
        "US_SSN" => ssn(dice),
        "AWS_ACCESS_KEY" => {
            let prefix = dice.pick(&["AKIA", "ASIA"]);
            format!("{prefix}{}", dice.string("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16))
        }
        "JWT" => jwt(dice),
        "PRIVATE_KEY" => private_key(dice),
        "LLM_API_KEY" => llm(dice),
        "IBAN_CODE" => iban(dice),
        "PHONE_NUMBER" => phone(dice),
        "GITHUB_TOKEN" => format!("{}a1{}", dice.pick(&["ghp_", "gho_", "ghs_"]), dice.string(ALNUM, 34)),
        "SLACK_TOKEN" => {
            format!("{}{}-{}", dice.pick(&["xoxb-", "xoxp-"]), dice.digits(12), dice.string(ALNUM, 24))
        }
        "STRIPE_KEY" => format!("{}a1{}", dice.pick(&["sk_live_", "rk_live_"]), dice.string(ALNUM, 22)),
        "GITLAB_TOKEN" => format!("glpat-a1{}", dice.string(URL64, 18)),
        "PACKAGE_TOKEN" => format!("npm_a1{}", dice.string(ALNUM, 34)),
        other => panic!("the corpus has no values of {other}"),
    }
}

fn email(dice: &mut Dice) -> String {
    let (first, more) = (dice.below(8) + 1, dice.below(12) + 1);
    let join = dice.pick(&[".", "_", "+", "-", "", "'"]);
    let host = dice.below(12) + 1;
    let top = dice.pick(&["com", "org", "co.uk", "example", "io", "museum", "xn--p1ai"]);
    format!(
        "{}{join}{}@{}.{top}",
        dice.string(LOWER, first),
        dice.string(ALNUM, more),
        dice.string(LOWER, host)
    )
}

pub fn check_digit(body: &str) -> char {
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(index, byte)| {
            let digit = u32::from(byte - b'0') << (1 - index % 2);
            if digit > 9 { digit - 9 } else { digit }
        })
        .sum();
    char::from_digit((10 - sum % 10) % 10, 10).unwrap()
}

/// Prefix, length and printed groups of the issuers.
const ISSUERS: &[(&str, u64, &[usize])] = &[
    ("4", 16, &[4, 4, 4, 4]),
    ("4", 13, &[4, 4, 4, 1]),
    ("4", 19, &[4, 4, 4, 4, 3]),
    ("51", 16, &[4, 4, 4, 4]),
    ("55", 16, &[4, 4, 4, 4]),
    ("2221", 16, &[4, 4, 4, 4]),
    ("2500", 16, &[4, 4, 4, 4]),
    ("2720", 16, &[4, 4, 4, 4]),
    ("34", 15, &[4, 6, 5]),
    ("37", 15, &[4, 6, 5]),
    ("6011", 16, &[4, 4, 4, 4]),
    ("65", 16, &[4, 4, 4, 4]),
    ("62", 16, &[4, 4, 4, 4]),
    ("62", 19, &[6, 13]),
    ("3528", 16, &[4, 4, 4, 4]),
    ("2131", 15, &[4, 6, 5]),
    ("300", 14, &[4, 6, 4]),
    ("36", 14, &[4, 6, 4]),
    ("5018", 12, &[4, 4, 4]),
    ("6304", 13, &[4, 4, 5]),
    ("6759", 18, &[4, 4, 4, 4, 2]),
    ("5612", 16, &[4, 4, 4, 4]),
];

fn card(dice: &mut Dice) -> String {
    let (prefix, length, groups) = ISSUERS[usize::try_from(dice.below(ISSUERS.len() as u64)).unwrap()];
    let mut number = format!("{prefix}{}", dice.digits(length - prefix.len() as u64 - 1));
    number.push(check_digit(&number));
    let separator = dice.pick(&["", "", " ", "-"]);
    let mut rest = number.as_str();
    let mut printed = Vec::new();
    for group in groups {
        let (head, tail) = rest.split_at(*group);
        printed.push(head);
        rest = tail;
    }
    printed.join(separator)
}

fn ssn(dice: &mut Dice) -> String {
    loop {
        let (area, group, serial) = (dice.below(899) + 1, dice.below(99) + 1, dice.below(9999) + 1);
        let separator = dice.pick(&["-", "-", "-", " ", "."]);
        if area != 666 && !matches!((area, group, serial), (78, 5, 1120) | (219, 9, 9999) | (457, 55, 5462)) {
            return format!("{area:03}{separator}{group:02}{separator}{serial:04}");
        }
    }
}

pub fn base64url(bytes: &[u8]) -> String {
    let letters: Vec<char> = URL64.chars().collect();
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for part in 0..=chunk.len() {
            text.push(letters[(bits >> (18 - 6 * part) & 63) as usize]);
        }
    }
    text
}

fn jwt(dice: &mut Dice) -> String {
    let header = format!(r#"{{"alg":"{}","typ":"JWT"}}"#, dice.pick(&["HS256", "RS256", "ES384", "none"]));
    let claims = format!(r#"{{"sub":"{}","exp":{}}}"#, dice.digits(8), dice.digits(10));
    let length = dice.below(300);
    format!(
        "{}.{}.{}",
        base64url(header.as_bytes()),
        base64url(claims.as_bytes()),
        dice.string(URL64, length)
    )
}

fn private_key(dice: &mut Dice) -> String {
    let label = dice.pick(&["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"]);
    let lines = dice.below(20) + 1;
    let body: Vec<String> = (0..lines).map(|_| dice.string(BASE64, 64)).collect();
    let separator = dice.pick(&["\n", "\\n", "\r\n"]);
    format!("-----BEGIN {label}-----{separator}{}{separator}-----END {label}-----", body.join(separator))
}

fn llm(dice: &mut Dice) -> String {
    match dice.below(6) {
        0 => format!("sk-a1{}", dice.string(ALNUM, 46)),
        1 => format!("sk-proj-{}", dice.string(URL64, 148)),
        2 => format!("sk-ant-api03-{}AA", dice.string(URL64, 93)),
        3 => format!("AIzaSy1{}", dice.string(URL64, 32)),
        4 => format!("hf_a1{}", dice.string(ALNUM, 32)),
        _ => format!("gsk_a1{}", dice.string(ALNUM, 50)),
    }
}

fn iban(dice: &mut Dice) -> String {
    let body = format!("WEST{}", dice.digits(14));
    let numeric: String =
        format!("{body}GB00").chars().map(|c| c.to_digit(36).unwrap().to_string()).collect();
    let rest = numeric.bytes().fold(0, |rest, byte| (rest * 10 + u32::from(byte - b'0')) % 97);
    let plain = format!("GB{:02}{body}", 98 - rest);
    if dice.below(2) == 0 {
        return plain;
    }
    plain.as_bytes().chunks(4).map(|group| core::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(" ")
}

fn phone(dice: &mut Dice) -> String {
    let (area, exchange, line) = (dice.below(90) + 220, dice.below(90) + 520, dice.below(10_000));
    match dice.below(4) {
        0 => format!("({area}) {exchange}-{line:04}"),
        1 => format!("{area}-{exchange}-{line:04}"),
        2 => format!("+1 {area} {exchange} {line:04}"),
        _ => format!("+4930{line:04}{exchange}"),
    }
}

/// Something that looks like a value and is none.
pub fn negative(dice: &mut Dice) -> String {
    match dice.below(20) {
        0 => format!("ORD-{}-{}", dice.digits(4), dice.digits(6)),
        1 => dice.digits(24),
        2 => uuid(dice),
        3 => format!(
            "20{}-{}-{}T{}:{}:{}Z",
            dice.digits(2),
            dice.digits(2),
            dice.digits(2),
            dice.digits(2),
            dice.digits(2),
            dice.digits(2)
        ),
        4 => format!("17{}", dice.digits(11)),
        5 => format!("17{}", dice.digits(17)),
        6 => format!("0.{}", dice.digits(16)),
        7 => format!("{}.{}.{}.{}", dice.below(256), dice.below(256), dice.below(256), dice.below(256)),
        8 => wrong_card(dice),
        9 => dice.digits(9),
        10 => format!("9{}-{}-{}", dice.digits(2), dice.digits(2), dice.digits(4)),
        11 => dice.string("0123456789abcdef", 40),
        12 => dice.string("0123456789abcdef", 64),
        13 => format!("v{}.{}.{}", dice.digits(1), dice.digits(2), dice.digits(3)),
        14 => format!("pkg@{}.{}.{}", dice.digits(1), dice.digits(1), dice.digits(1)),
        15 => format!("icon@{}x.png", dice.below(4) + 1),
        16 => format!("sk-{}-{}", dice.string(LOWER, 6), dice.string(LOWER, 7)),
        17 => format!("eyJ{}.{}", dice.string(URL64, 20), dice.string(URL64, 20)),
        18 => format!("{}-{}", dice.digits(5), dice.digits(4)),
        _ => format!("-----BEGIN CERTIFICATE-----{}-----END CERTIFICATE-----", dice.string(BASE64, 64)),
    }
}

/// A card number with its check digit changed.
fn wrong_card(dice: &mut Dice) -> String {
    let mut number = format!("4{}", dice.digits(14));
    let right = check_digit(&number).to_digit(10).unwrap();
    number.push(char::from_digit((right + 1) % 10, 10).unwrap());
    number
}

fn uuid(dice: &mut Dice) -> String {
    let mut hex = |length| dice.string("0123456789abcdef", length);
    format!("{}-{}-4{}-a{}-{}", hex(8), hex(4), hex(3), hex(3), hex(12))
}

/// Puts a value into prose, JSON or a row of CSV.
pub fn carrier(dice: &mut Dice, value: &str) -> (String, String) {
    let number = dice.below(1000);
    match dice.below(5) {
        0 => (format!("{} ", words(dice, 6)), format!(". {}\n", words(dice, 4))),
        1 => (
            format!("{{\"id\": {number}, \"note\": \"{} ", words(dice, 3)),
            format!("\", \"{}\": null}}\n", words(dice, 1)),
        ),
        2 => ("{\"v\":\"".to_string(), format!("\",\"n\":{number}}}\n")),
        3 => (
            format!("{number},{},", words(dice, 2)),
            format!(",{},{value_len}\n", words(dice, 1), value_len = value.len() % 7),
        ),
        _ => (format!("{}: (", words(dice, 1)), format!(") {}\n", words(dice, 5))),
    }
}

pub fn words(dice: &mut Dice, count: usize) -> String {
    (0..count).map(|_| dice.pick(WORDS)).collect::<Vec<_>>().join(" ")
}
