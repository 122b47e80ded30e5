//! PostgreSQL messages: what the documentation shows, every bound, any split.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::startup::{Opener, opener, options};
use super::*;

fn startup_packet(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in pairs {
        cstr(&mut body, name.as_bytes());
        cstr(&mut body, value.as_bytes());
    }
    body.push(0);
    let mut packet = u32::try_from(body.len() + 4).unwrap().to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

#[test]
fn startup_parameters_and_default_database() {
    let packet = startup_packet(196_608, &[("user", "ann"), ("application_name", "psql")]);
    let (opener, taken) = opener(&packet).unwrap().unwrap();
    assert_eq!(taken, packet.len());
    let Opener::Startup(startup) = opener else { panic!("startup") };
    assert_eq!((startup.user.as_str(), startup.database.as_str(), startup.minor), ("ann", "ann", 0));
}

#[test]
fn hostile_lengths() {
    assert_eq!(opener(&[0, 0, 0, 0, 0, 3, 0, 0]), Err(Violation::Length));
    assert_eq!(opener(&[0x80, 0, 0, 0, 0, 3, 0, 0]), Err(Violation::Length));
    assert_eq!(opener(&[0x7f, 0xff, 0xff, 0xff]), Err(Violation::Length));
    assert_eq!(opener(&[0, 0, 0x27, 0x11]), Err(Violation::Length));
    assert_eq!(opener(&[0, 0, 0x27, 0x10]), Ok(None));
    assert_eq!(opener(&[0, 0, 0]), Ok(None));
    assert_eq!(opener(&[0, 0, 0, 8, 0, 2, 0, 0]), Err(Violation::Version));
    assert!(opener(&startup_packet(196_608, &[("database", "x")])).is_err());
    assert_eq!(header(b"Q\0\0\0\x03", frontend::bound), Err(Violation::Length));
    assert_eq!(header(b"Q\xff\xff\xff\xff", frontend::bound), Err(Violation::Length));
    assert_eq!(header(b"S\0\0\x40\0", frontend::bound), Err(Violation::TooLong));
    assert_eq!(header(b"?", frontend::bound), Err(Violation::Tag));
}

#[test]
fn options_like_the_server_splits_them() {
    let parsed = options(r"-c search_path=a\ b --statement-timeout=5s -cDateStyle=ISO").unwrap();
    let pairs: Vec<(&str, &str)> = parsed.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("search_path", "a b"), ("statement_timeout", "5s"), ("datestyle", "ISO")]);
    assert!(options("-O").is_err());
    assert!(options("-c").is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), tag in any::<u8>()) {
        let _ = opener(&bytes);
        let _ = header(&bytes, frontend::bound);
        let _ = header(&bytes, backend::bound);
        let _ = frontend::parse(tag, &bytes);
        let _ = backend::row_description(&bytes);
        let _ = backend::authentication(&bytes);
        let _ = backend::error_fields(&bytes).count();
        if let Ok(mut cells) = row::cells(&bytes) {
            while let Ok(Some(_)) = cells.cell() {}
        }
        let _ = options(&alloc::string::String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn row_description_round_trip(names in proptest::collection::vec("[a-z]{0,8}", 0..5)) {
        let columns: Vec<backend::Column> = names.iter().enumerate().map(|(n, name)| backend::Column {
            name: name.as_bytes().to_vec(), relation: 7, attribute: n as i16, type_oid: 25, size: -1,
            modifier: -1, format: 0,
        }).collect();
        let mut wire = Vec::new();
        backend::write_row_description(&mut wire, &columns);
        prop_assert_eq!(backend::row_description(&wire[5..]).unwrap(), columns);
    }
}
