//! Detectors: findings are ordered, disjoint, inside the text, and on character boundaries where the text has any.

use std::sync::OnceLock;

use weir_core::detect::{ClassDefinition, ClassId, ClassSet, Scanner, families};

pub const SEEDS: &[&[u8]] = &[
    b"bob@example.com, ann%40example.org",
    b"4111 1111 1111 1111 or 378282246310005",
    b"ssn 536-90-4399, social security 536904399",
    b"AKIAIOSFODNN7EXAMPLE secret key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
    b"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----",
    b"sk-ant-api03-a1B2c3D4e5F6g7H8i9J0k1L2 ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8 xoxb-123456789012-abcdef",
    b"GB82 WEST 1234 5698 7654 32 +1 (212) 555-2368 212-555-2368",
    b"MRN-1234567 ACME-CONFIDENTIAL",
];

/// All families, a pattern and a keyword.
pub fn scanner() -> &'static (Scanner, ClassSet) {
    static SCANNER: OnceLock<(Scanner, ClassSet)> = OnceLock::new();
    SCANNER.get_or_init(|| {
        let mut classes: Vec<_> = families()
            .map(|name| ClassDefinition {
                name: name.to_lowercase(),
                families: vec![name.into()],
                ..ClassDefinition::default()
            })
            .collect();
        classes.push(ClassDefinition {
            name: "custom".into(),
            patterns: vec![r"\bMRN-\d{7}\b".into(), "é+[0-9]".into()],
            keywords: vec!["acme-confidential".into(), "機密".into()],
            ..ClassDefinition::default()
        });
        let wanted = ClassSet((0_u16..).take(classes.len()).map(ClassId).collect());
        (Scanner::new(&classes).expect("the classes above compile"), wanted)
    })
}

pub fn run(bytes: &[u8]) {
    let (scanner, wanted) = scanner();
    let mut found = Vec::new();
    scanner.find(bytes, wanted, &mut found);
    let text = std::str::from_utf8(bytes).ok();
    let mut last = 0;
    for finding in &found {
        assert!(finding.start >= last && finding.start < finding.end && finding.end <= bytes.len());
        assert!(text.is_none_or(|text| text.is_char_boundary(finding.start) && text.is_char_boundary(finding.end)));
        last = finding.end;
    }
}
