//! First bytes of each protocol, and every prefix of them.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn startup(code: u32, length: u32) -> Vec<u8> {
    let mut bytes = [length.to_be_bytes(), code.to_be_bytes()].concat();
    bytes.resize(length.min(300) as usize, 0);
    bytes
}

/// Asserts the answer for the whole, and that no prefix shorter than `least` is decided.
fn decided(bytes: &[u8], least: usize, expected: Sniffed) {
    assert_eq!(sniff(bytes), expected);
    for end in 0..least {
        assert_eq!(sniff(&bytes[..end]), Sniffed::More, "{end} of {bytes:?}");
    }
    for end in least..bytes.len() {
        assert_eq!(sniff(&bytes[..end]), expected, "{end} of {bytes:?}");
    }
}

#[test]
fn postgres_openings() {
    use PostgresOpening::{Cancel, GssRequest, SslRequest, Startup};
    decided(&startup(80_877_103, 8), 8, Sniffed::Postgres(SslRequest));
    decided(&startup(80_877_104, 8), 8, Sniffed::Postgres(GssRequest));
    decided(&startup(80_877_102, 16), 8, Sniffed::Postgres(Cancel));
    decided(&startup(0x0003_0000, 40), 8, Sniffed::Postgres(Startup));
    decided(&startup(0x0003_0002, 40), 8, Sniffed::Postgres(Startup));
    decided(&startup(0x0002_0000, 40), 8, Sniffed::Unknown);
    decided(&startup(0x0003_0000, 8), 8, Sniffed::Malformed("PostgreSQL start-up packet of a wrong length"));
    decided(&startup(80_877_103, 9), 8, Sniffed::Malformed("PostgreSQL start-up request of a wrong length"));
    decided(&startup(80_877_102, 12), 8, Sniffed::Malformed("PostgreSQL start-up request of a wrong length"));
    decided(&startup(0x0003_0000, 10_001), 4, Sniffed::Unknown);
    decided(&startup(0x0003_0000, 7), 4, Sniffed::Unknown);
    decided(&[0, 1, 0, 0], 2, Sniffed::Unknown);
}

#[test]
fn text_protocols() {
    decided(b"GET / HTTP/1.1\r\n", 11, Sniffed::Http1);
    decided(b"PROPFIND http://a/b?c HTTP/1.0\r\n", 27, Sniffed::Http1);
    decided(b"\r\nGET / HTTP/1.1\r\n", 13, Sniffed::Http1);
    decided(b"M-SEARCH * HTTP/1.1", 16, Sniffed::Http1);
    decided(b"CONNECT a:1 HTTP/1.1", 17, Sniffed::Http1);
    decided(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24, Sniffed::Http2);
    decided(b"SSH-2.0-OpenSSH_9", 8, Sniffed::Ssh);
    decided(b"SSH-1.99-x", 9, Sniffed::Ssh);
    decided(b"PING\r\n", 5, Sniffed::Unknown);
    decided(b"*1\r\n$4\r\nPING\r\n", 1, Sniffed::Unknown);
    decided(b"EHLO me\r\n", 8, Sniffed::Unknown);
    decided(b"GET key\r\n", 8, Sniffed::Unknown);
    decided(b"get / HTTP/1.1", 1, Sniffed::Unknown);
    decided(b"\r\n\r\nGET", 3, Sniffed::Unknown);
}

#[test]
fn tls() {
    decided(&[0x80, 0x2e, 1, 0, 2], 5, Sniffed::Malformed("SSLv2 hello"));
    decided(&[0x80, 0x2e, 1, 3, 1], 5, Sniffed::Malformed("SSLv2 hello"));
    decided(&[0x80, 0x2e, 2], 3, Sniffed::Unknown);
    decided(&[0x16, 0x02], 2, Sniffed::Unknown);
    assert_eq!(sniff(&[0x16, 3, 1, 2, 0]), Sniffed::More);
    assert!(matches!(sniff(&[0x16, 3, 1, 0, 0]), Sniffed::Malformed(_)));
}

#[test]
fn waiting_has_an_end() {
    let endless = [b"GET /".to_vec(), Vec::from([b'a'; SNIFF_BYTES])].concat();
    assert_eq!(sniff(&endless[..SNIFF_BYTES - 1]), Sniffed::More);
    assert!(matches!(sniff(&endless[..SNIFF_BYTES]), Sniffed::Malformed(_)));
}

proptest! {
    /// Once decided, more bytes do not change the answer.
    #[test]
    fn answers_are_stable(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        "[A-Z]{0,4} ?/?[a-z]{0,4} ?(HTTP/)?[ -~]{0,8}".prop_map(String::into_bytes),
        prop::collection::vec(prop_oneof![Just(0u8), Just(3), Just(0x16), Just(8), Just(0x80), Just(1)], 0..24),
    ]) {
        let mut decided = Sniffed::More;
        for end in 0..=bytes.len() {
            let now = sniff(&bytes[..end]);
            // A TLS answer may still turn out malformed by what follows in the same flight.
            if decided != Sniffed::More && !matches!(decided, Sniffed::Tls { .. }) {
                prop_assert_eq!(&now, &decided);
            }
            decided = now;
        }
    }
}
