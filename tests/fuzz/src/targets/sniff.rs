//! First bytes: what a prefix is said to be stays true when more bytes come.

use weir_core::sniff::{Sniffed, sniff};

pub const SEEDS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    b"\x00\x00\x00\x08\x04\xd2\x16\x30",
    b"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02",
    b"\x00\x00\x00\x14\x00\x03\x00\x00user\x00alice\x00\x00",
    // A ClientHello with SNI `a.example` and ALPN `h2`.
    b"\x16\x03\x01\x00\x50\x01\x00\x00\x4c\x03\x03\
      00112233445566778899aabbccddeeff\x00\x00\x02\x13\x01\x01\x00\x00\x21\
      \x00\x00\x00\x0e\x00\x0c\x00\x00\x09a.example\x00\x10\x00\x05\x00\x03\x02h2\
      \x00\x2b\x00\x03\x02\x03\x04",
];

pub fn run(bytes: &[u8]) {
    let whole = sniff(bytes);
    for cut in 0..bytes.len().min(600) {
        let part = sniff(&bytes[..cut]);
        assert!(
            part == Sniffed::More || part == whole,
            "{cut} bytes of {} are {part:?}, then {whole:?}",
            bytes.len()
        );
    }
}
