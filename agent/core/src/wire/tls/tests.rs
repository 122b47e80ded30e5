//! ClientHello: built by hand, split over records and packets, and damaged.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

fn prefixed(width: usize, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&length[4 - width..], content].concat()
}

fn extension_of(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().as_slice(), &prefixed(2, content)].concat()
}

fn sni(name: &str) -> Vec<u8> {
    extension_of(0, &prefixed(2, &[&[0][..], &prefixed(2, name.as_bytes())].concat()))
}

fn alpn(names: &[&str]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| prefixed(1, name.as_bytes())).collect();
    extension_of(16, &prefixed(2, &list))
}

/// The handshake message.
fn message(extensions: &[Vec<u8>]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &prefixed(1, &[9; 32]),
        &prefixed(2, &[0x13, 1, 0x13, 2]),
        &prefixed(1, &[0]),
        &prefixed(2, &extensions.concat()),
    ]
    .concat();
    [&[1][..], &prefixed(3, &body)].concat()
}

/// In records of at most `size` bytes.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|chunk| [&[22, 3, 1][..], &prefixed(2, chunk)].concat()).collect()
}

fn expected() -> ClientHello {
    ClientHello {
        sni: Some(String::from("api.example.com")),
        alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    }
}

#[test]
fn name_and_protocols_are_read_whatever_the_records() {
    let hello = message(&[
        extension_of(0x4a4a, &[]),
        sni("API.example.com."),
        alpn(&["h2", "http/1.1"]),
        extension_of(21, &[0; 9000]),
    ]);
    for size in [1, 3, 100, 5000, 16384] {
        let bytes = records(&hello, size);
        if bytes.len() > 40_000 {
            continue;
        }
        assert_eq!(client_hello(&bytes), Ok(Some(expected())), "{size}");
    }
    let bytes = records(&hello, 600);
    for end in 0..bytes.len() {
        assert_eq!(client_hello(&bytes[..end]), Ok(None), "{end}");
    }
}

#[test]
fn a_hello_without_extensions_is_a_hello() {
    let body = [&[3, 1][..], &[7; 32], &[0], &prefixed(2, &[0, 5]), &prefixed(1, &[0])].concat();
    let bytes = records(&[&[1][..], &prefixed(3, &body)].concat(), 16384);
    assert_eq!(client_hello(&bytes), Ok(Some(ClientHello::default())));
}

#[test]
fn broken_hellos_are_refused() {
    let refused = |message: &[u8]| client_hello(&records(message, 16384)).is_err();
    assert!(refused(&message(&[sni("a"), sni("b")])), "repeated extension");
    assert!(refused(&message(&[sni("")])));
    assert!(refused(&message(&[sni("10.0.0.1")])), "an address is no name");
    assert!(refused(&message(&[sni("a b")])));
    assert!(refused(&message(&[sni("a\0b")])));
    assert!(refused(&message(&[alpn(&[""])])));
    assert!(refused(&message(&[alpn(&[])])));
    assert!(refused(&message(&[extension_of(0, &[0, 9, 1])])), "inner length beyond its content");
    assert!(refused(&[&message(&[])[..], &[0]].concat()), "bytes after the message");
    assert!(refused(&[2, 0, 0, 0]), "ServerHello");
    assert!(refused(&[1, 1, 0, 0]), "64 KiB");
    assert!(client_hello(&[21, 3, 1, 0, 2, 1, 0]).is_err(), "alert");
    assert!(client_hello(&[22, 2, 0, 0, 5]).is_err(), "version");
    assert!(client_hello(&[22, 3, 1, 0, 0]).is_err(), "empty record");
    assert!(client_hello(&[22, 3, 1, 0xff, 0xff]).is_err(), "record too large");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = client_hello(&bytes);
        let _ = client_hello(&records(&bytes, 50));
    }

    /// An answer, once there, is the answer for every longer prefix that adds only a damaged or whole rest.
    #[test]
    fn damage_is_refused_or_harmless(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = records(&message(&[sni("a.example"), alpn(&["h2"])]), 40);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = client_hello(&bytes);
        for end in 0..bytes.len() {
            // A prefix never names a server that the whole hello does not.
            if let Ok(Some(hello)) = client_hello(&bytes[..end]) {
                prop_assert!(hello.sni.is_none() || client_hello(&bytes) == Ok(Some(hello)));
            }
        }
    }
}
