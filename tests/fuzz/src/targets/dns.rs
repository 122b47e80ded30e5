//! DNS: a query that is read is the one that is written, a reply that is accepted is accepted again as it then is.

use weir_core::wire::dns::{Malformed, Query, Reply};

pub const QUERIES: &[&[u8]] = &[
    b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x03api\x07example\0\0\x01\0\x01",
    b"\x12\x34\x01\x20\0\x01\0\0\0\0\0\x01\x03Api\x07example\0\0\x1c\0\x01\
      \0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08deadbeef",
    b"\x12\x34\x28\x00\0\x01\0\0\0\0\0\0\0\0\x06\0\x01",
];

/// Replies to the first query.
pub const REPLIES: &[&[u8]] = &[
    b"\x12\x34\x81\x80\0\x01\0\x02\0\0\0\0\x03api\x07example\0\0\x01\0\x01\
      \xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x05\x03cdn\0\x03cdn\0\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x01",
    b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x03api\x07example\0\0\x01\0\x01\
      \xc0\x0c\0\x41\0\x01\0\0\0\x3c\0\x1b\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x05\0\x02ab\0\x06\0\x02cd",
];

pub fn query(bytes: &[u8]) {
    match Query::read(bytes) {
        Ok(query) => {
            let again = Query::read(&query.forwarded(0x4242)).expect("what is written can be read");
            assert_eq!((again.name(), again.kind()), (query.name(), query.kind()));
            assert_eq!(again.most_bytes(), query.most_bytes());
            assert_eq!(again.forwarded(7), query.forwarded(7));
            assert!(query.forwarded(0).len() <= bytes.len(), "it carries nothing that was not asked");
        }
        Err(Malformed::Answer(_, answer)) => assert_eq!(answer[..2], bytes[..2]),
        Err(Malformed::Silent) => {}
    }
}

pub fn reply(bytes: &[u8]) {
    let query = Query::read(QUERIES[0]).expect("the first seed is a query");
    let mut accepted = bytes.to_vec();
    let Ok(Reply::Whole(proof)) = query.accept(0x1234, &mut accepted) else { return };
    assert_eq!(accepted.len(), bytes.len());
    let mut again = accepted.clone();
    assert_eq!(query.accept(0x1234, &mut again), Ok(Reply::Whole(proof)));
    assert_eq!(again, accepted);
}
