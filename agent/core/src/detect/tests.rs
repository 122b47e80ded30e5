//! What the detectors find and leave alone: known vectors, generated corpora, overlaps, and time that stays linear.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{ClassDefinition, ClassId, ClassSet, DetectError, Finding, Scanner, families};

mod accuracy;
mod corpus;
mod speed;

fn class(name: &str) -> ClassDefinition {
    ClassDefinition { name: name.into(), ..ClassDefinition::default() }
}

fn family(name: &str) -> ClassDefinition {
    ClassDefinition { families: vec![name.into()], ..class(name) }
}

fn pattern(text: &str) -> ClassDefinition {
    ClassDefinition { patterns: vec![text.into()], ..class("custom") }
}

fn keywords(texts: &[&str]) -> ClassDefinition {
    ClassDefinition { keywords: texts.iter().map(ToString::to_string).collect(), ..class("keywords") }
}

/// All built-in families, one class each, in the order of `families()`.
fn everything() -> (Scanner, ClassSet) {
    let classes: Vec<_> = families().map(family).collect();
    (Scanner::new(&classes).unwrap(), all(classes.len()))
}

fn all(count: usize) -> ClassSet {
    ClassSet((0..u16::try_from(count).unwrap()).map(ClassId).collect())
}

/// What one family finds in a text.
fn found(name: &str, text: &str) -> Vec<String> {
    spans(&[family(name)], text).into_iter().map(|(_, value)| value).collect()
}

fn spans(classes: &[ClassDefinition], text: &str) -> Vec<(u16, String)> {
    let mut found = vec![Finding { class: ClassId(9), start: 0, end: 1 }];
    Scanner::new(classes).unwrap().find(text.as_bytes(), &all(classes.len()), &mut found);
    found.iter().map(|finding| (finding.class.0, text[finding.start..finding.end].to_string())).collect()
}

#[test]
fn emails() {
    for (text, want) in [
        ("write to bob@example.com.", "bob@example.com"),
        ("<Bob.O'Brien+x@mail.example.co.uk>", "Bob.O'Brien+x@mail.example.co.uk"),
        ("email='ann@example.org'", "ann@example.org"),
        ("?to=ann%40example.org&x=1", "ann%40example.org"),
        ("?to%3Dann@example.org", "ann@example.org"),
        (r"line\nann@example.org", "ann@example.org"),
        ("jürgen@müller.example", "jürgen@müller.example"),
        ("“ann@example.com”", "ann@example.com"),
        ("ann@xn--mller-kva.xn--p1ai", "ann@xn--mller-kva.xn--p1ai"),
        ("ann@example.com.123", "ann@example.com"),
    ] {
        assert_eq!(found("EMAIL_ADDRESS", text), [want], "{text}");
    }
    for text in [
        "icon@2x.png",
        "lodash@4.17.21",
        "@example.com",
        "a@b",
        "ann@-x.com",
        "user@localhost",
        "a @b.com @ x",
    ] {
        assert_eq!(found("EMAIL_ADDRESS", text), [""; 0], "{text}");
    }
    let long = format!("{}@example.com", "a".repeat(500));
    assert_eq!(found("EMAIL_ADDRESS", &long)[0].len(), 64 + 12);
}

#[test]
fn cards() {
    for card in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4222222222222",
        "4000000000000000006",
        "5555555555554444",
        "2221000000000009",
        "2720999999999996",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "3056 930902 5904",
        "3530111333300000",
        "6011111111111117",
        "6200000000000005",
        "676770000005",
        "501800000009",
    ] {
        for text in [
            format!("pay {card} now"),
            format!("{{\"card\":\"{card}\"}}"),
            format!("a,{card},b"),
            format!("{card}.0"),
        ] {
            assert_eq!(found("CREDIT_CARD", &text), [card], "{text}");
        }
    }
    assert_eq!(found("CREDIT_CARD", "%B4111111111111111^DOE/JOHN"), ["4111111111111111"]);
    assert_eq!(found("CREDIT_CARD", ";4111111111111111=2512101"), ["4111111111111111"]);
    assert_eq!(found("CREDIT_CARD", "4111 1111 1111 1111 123"), ["4111 1111 1111 1111"]);
    for text in [
        "4111111111111112",
        "41111111111111111111",
        "1234567890123452",
        "2720 0000 0000 0000",
        "2721000000000004",
        "0.4111111111111111",
        "4111111111111111.25",
        "x4111111111111111",
        "4111111111111111a",
        "9999-4111-1111-1111-1111",
        "4111-1111-1111-1111-9999",
        "4111 1111-1111 1111",
        "41 11 11 11 11 11 11 11",
        "0000000000000000",
        "550e8400-e29b-41d4-a716-676770000005",
    ] {
        assert_eq!(found("CREDIT_CARD", text), [""; 0], "{text}");
    }
}

#[test]
fn social_security_numbers() {
    for text in [
        "536-90-4399",
        "ssn 536904399",
        "SSN: 536 90 4399",
        "536.90.4399",
        "Social Security number is 536904399",
    ] {
        assert_eq!(found("US_SSN", text).len(), 1, "{text}");
    }
    for text in [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "987-65-4321",
        "536-00-4399",
        "536-90-0000",
        "078-05-1120",
        "219-09-9999",
        "111-11-1111",
        "536904399",
        "1-536-90-4399",
        "536-90-4399-1",
        "536-90 4399",
        "536-90-43990",
        "a536-90-4399",
        "17 536 90 4399 20",
    ] {
        assert_eq!(found("US_SSN", text), [""; 0], "{text}");
    }
}

#[test]
fn aws_keys() {
    let secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    assert_eq!(found("AWS_ACCESS_KEY", "id AKIAIOSFODNN7EXAMPLE."), ["AKIAIOSFODNN7EXAMPLE"]);
    for text in [
        format!("aws_secret_access_key = {secret}"),
        format!("{{\"SecretAccessKey\": \"{secret}\"}}"),
        format!("AWS_SECRET_KEY='{secret}'"),
    ] {
        assert_eq!(found("AWS_ACCESS_KEY", &text), [secret], "{text}");
    }
    let pair = format!("AKIAIOSFODNN7EXAMPLE,{secret}");
    assert_eq!(found("AWS_ACCESS_KEY", &pair), ["AKIAIOSFODNN7EXAMPLE", secret]);
    for text in [
        "AKIAIOSFODNN7EXAMPL",
        "AKIAIOSFODNN7EXAMPLEX",
        "XAKIAIOSFODNN7EXAMPLE",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "secret key: da39a3ee5e6b4b0d3255bfef95601890afd8070",
        secret,
    ] {
        assert_eq!(found("AWS_ACCESS_KEY", text), [""; 0], "{text}");
    }
}

#[test]
fn web_tokens() {
    let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
    let token = format!("{header}.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U");
    assert_eq!(found("JWT", &format!("Bearer {token}, and")), [token.as_str()]);
    assert_eq!(found("JWT", &format!("{header}.eyJzdWIiOiIx")), [format!("{header}.eyJzdWIiOiIx")]);
    assert_eq!(found("JWT", &format!("{header}..c2ln")), [format!("{header}..c2ln")]);
    // RFC 7516, A.1: five parts.
    let sealed = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOa.48V1.5eym.XFBo";
    assert_eq!(found("JWT", sealed), [sealed]);
    for text in [
        "eyJ0eXAiOiJKV1QifQ.eyJzdWIiOiIxIn0.abc",
        "eyJhbGc.eyJ.x",
        "eyJust a word",
        "heyJude.eyJude.eyJ",
        header,
    ] {
        assert_eq!(found("JWT", text), [""; 0], "{text}");
    }
}

#[test]
fn private_keys() {
    let body = "MIIEpAIBAAKCAQEA7bq\nq9w+/=\n";
    for label in
        ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY", "ENCRYPTED PRIVATE KEY"]
    {
        let key = format!("-----BEGIN {label}-----\n{body}-----END {label}-----");
        assert_eq!(found("PRIVATE_KEY", &format!("x {key}\nafter")), [key.as_str()]);
        let escaped = key.replace('\n', "\\n");
        assert_eq!(found("PRIVATE_KEY", &format!("{{\"k\":\"{escaped}\"}}")), [escaped.as_str()]);
        let cut = &key[..key.len() - 35];
        assert_eq!(found("PRIVATE_KEY", &format!("{{\"k\":\"{cut}\"}}")), [cut.trim_end()]);
    }
    let pgp = "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2 (GNU/Linux)\n\nlQ==\n-----END PGP PRIVATE KEY BLOCK-----";
    assert_eq!(found("PRIVATE_KEY", pgp), [pgp]);
    let ssh2 = "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/56w\n---- END SSH2 ENCRYPTED PRIVATE KEY ----";
    assert_eq!(found("PRIVATE_KEY", ssh2).len(), 1);
    for text in [
        "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----",
        "BEGIN PRIVATE KEY",
    ] {
        assert_eq!(found("PRIVATE_KEY", text), [""; 0], "{text}");
    }
}

#[test]
fn model_keys() {
    let alnum = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0u1V2w3X4y5Z6";
    for key in [
        format!("sk-{}", &alnum[..48]),
        format!("sk-proj-{alnum}_x-{alnum}"),
        format!("sk-ant-api03-{alnum}-{alnum}AA"),
        format!("sk-or-v1-{alnum}"),
        format!("AIza{}", &alnum[..35]),
        format!("hf_{}", &alnum[..34]),
        format!("gsk_{alnum}"),
        format!("xai-{alnum}"),
    ] {
        for text in [format!("Authorization: Bearer {key}"), format!("KEY=\"{key}\""), format!("a\\n{key}")] {
            assert_eq!(found("LLM_API_KEY", &text), [key.as_str()], "{text}");
        }
    }
    for text in [
        "class=\"sk-fading-circle sk-circle-12\"",
        "sk-learn-contrib-lightning-0.6.2",
        "risk-assessment-2024-a1B2c3D4e5F6g7H8i9J0",
        "hf_transformers_version_4_hub",
        "sk-ant-your-key-goes-here-please",
        "AIzaShort1",
    ] {
        assert_eq!(found("LLM_API_KEY", text), [""; 0], "{text}");
    }
}

#[test]
fn other_families() {
    let alnum = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0";
    assert_eq!(found("GITHUB_TOKEN", &format!("ghp_{}", &alnum[..36])).len(), 1);
    assert_eq!(found("SLACK_TOKEN", "xoxb-123456789012-abcdefABCDEF").len(), 1);
    assert_eq!(found("STRIPE_KEY", &format!("sk_live_{}", &alnum[..24])).len(), 1);
    assert_eq!(found("STRIPE_KEY", &format!("pk_live_{}", &alnum[..24])).len(), 0);
    assert_eq!(found("GITLAB_TOKEN", "glpat-a1B2c3D4e5F6g7H8i9J0").len(), 1);
    for iban in
        ["GB82WEST12345698765432", "GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "NO9386011117947"]
    {
        assert_eq!(found("IBAN_CODE", &format!("to {iban} today")), [iban]);
    }
    assert_eq!(found("IBAN_CODE", "GB82WEST12345698765433 XX82WEST12345698765432"), [""; 0]);
    for phone in [
        "+1 (212) 555-2368",
        "+442079460958",
        "+49 30 901820-13",
        "(212) 555-2368",
        "212-555-2368",
        "212.555.2368",
    ] {
        assert_eq!(found("PHONE_NUMBER", &format!("call {phone}.")), [phone]);
    }
    for text in ["2125552368", "112-555-2368", "911-555-2368", "+00:00", "212-555-2368-1", "212-555-23689"] {
        assert_eq!(found("PHONE_NUMBER", text), [""; 0], "{text}");
    }
}

#[test]
fn patterns_and_keywords() {
    assert_eq!(
        spans(&[pattern(r"\bMRN-\d{7}\b")], "x MRN-1234567 y MRN-12345678"),
        [(0, "MRN-1234567".into())]
    );
    assert_eq!(
        spans(&[keywords(&["acme-confidential", "hush"])], "ACME-Confidential; hushed; HUSH"),
        [(0, "ACME-Confidential".into()), (0, "HUSH".into())]
    );
    assert_eq!(spans(&[keywords(&["機密"])], "これは機密です"), [(0, "機密".into())]);
    for bad in ["a*", "x|", "(", "(?=a)", r"\w{5000}", "[^\\s\\S]"] {
        assert!(matches!(Scanner::new(&[pattern(bad)]), Err(DetectError::Pattern { .. })), "{bad}");
    }
    assert!(matches!(Scanner::new(&[keywords(&[" "])]), Err(DetectError::Keyword { .. })));
    assert!(
        matches!(Scanner::new(&[family("NOPE")]), Err(DetectError::UnknownFamily(name)) if name == "NOPE")
    );
}

/// A class that nobody asked for neither shows up nor hides another.
#[test]
fn only_wanted_classes() {
    let classes = [pattern(r"id \d+ secret"), pattern(r"\d+"), keywords(&["secret"])];
    let scanner = Scanner::new(&classes).unwrap();
    let mut found = Vec::new();
    scanner.find(b"id 42 secret", &ClassSet(vec![ClassId(2), ClassId(1)]), &mut found);
    let got: Vec<_> = found.iter().map(|finding| (finding.class.0, finding.start, finding.end)).collect();
    assert_eq!(got, [(1, 3, 5), (2, 6, 12)]);
    scanner.find(b"id 42 secret", &ClassSet::default(), &mut found);
    assert!(found.is_empty());
    assert!(scanner.is_idle(&ClassSet::default()) && !scanner.is_idle(&ClassSet(vec![ClassId(2)])));
    assert!(Scanner::none().is_idle(&all(3)));
}

#[test]
fn the_longer_wins_and_nothing_is_lost() {
    let classes = [pattern("abcd"), pattern("cdefgh"), pattern("ghi")];
    assert_eq!(spans(&classes, "abcdefghi"), [(0, "ab".into()), (1, "cdefgh".into()), (2, "i".into())]);
    let same = [pattern("abcd"), pattern("abcd")];
    assert_eq!(spans(&same, "abcd"), [(0, "abcd".into())]);
    let one = [ClassDefinition { patterns: vec!["abc".into(), "bcd".into()], ..class("one") }];
    assert_eq!(spans(&one, "abcd"), [(0, "abcd".into())]);
}

#[test]
fn the_longest_match_is_known() {
    let scanner =
        Scanner::new(&[family("US_SSN"), pattern("a{3}"), pattern("a+b"), keywords(&["hello"])]).unwrap();
    let longest = |class: u16| scanner.longest(&ClassSet(vec![ClassId(class)]));
    assert_eq!([longest(0), longest(1), longest(2), longest(3)], [11, 3, crate::limits::MATCH_BYTES, 5]);
}

proptest! {
    /// Findings are ordered, disjoint, inside the text, on character boundaries, and the same every time.
    #[test]
    fn findings_are_well_formed(pieces in proptest::collection::vec(
        prop_oneof![
            "\\PC{0,12}",
            "[0-9 .-]{1,30}",
            Just("4111 1111 1111 1111".to_string()),
            Just("bob@example.com".to_string()),
            Just("eyJhbGciOiJIUzI1NiJ9.".to_string()),
            Just("-----BEGIN PRIVATE KEY-----".to_string()),
            Just("AKIAIOSFODNN7EXAMPLE".to_string()),
            Just("sk-ant-".to_string()),
            Just("+49 30".to_string()),
            Just("é@é.éé".to_string()),
        ], 0..12,
    )) {
        let text = pieces.concat();
        let (scanner, wanted) = everything();
        let mut found = Vec::new();
        scanner.find(text.as_bytes(), &wanted, &mut found);
        let mut last = 0;
        for finding in &found {
            prop_assert!(finding.start >= last && finding.start < finding.end && finding.end <= text.len());
            prop_assert!(text.is_char_boundary(finding.start) && text.is_char_boundary(finding.end));
            last = finding.end;
        }
        let mut again = Vec::new();
        scanner.find(text.as_bytes(), &wanted, &mut again);
        prop_assert_eq!(found, again);
    }

    /// Bytes that are no text are searched without complaint, and a value among them is still found.
    #[test]
    fn any_bytes(before in proptest::collection::vec(128_u8.., 0..20), after in proptest::collection::vec(128_u8.., 0..20)) {
        let text = [&before[..], b" 4111111111111111 ", &after[..]].concat();
        let (scanner, wanted) = everything();
        let mut found = Vec::new();
        scanner.find(&text, &wanted, &mut found);
        prop_assert!(found.iter().any(|finding| finding.end - finding.start == 16));
    }
}
