//! DNS messages: read, refused, written anew, scrubbed.

use super::*;
use alloc::vec;

const NAME: &[u8] = b"\x03aPi\x07example\0";

fn query(kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut out = Vec::new();
    write_header(&mut out, 7, RD | AD, [1, 0, 0, edns.is_some().into()]);
    out.extend_from_slice(NAME);
    out.extend_from_slice(&[kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
    if let Some(size) = edns {
        out.extend_from_slice(b"\0\0\x29");
        out.extend_from_slice(&size.to_be_bytes());
        // DO, and a cookie of 8 bytes as option.
        out.extend_from_slice(b"\0\0\x80\0\0\x0c\0\x0a\0\x08secret!!");
    }
    out
}

struct Written(Vec<u8>);

impl Written {
    fn reply(to: &Query, id: u16, records: u16) -> Written {
        let mut out = Vec::new();
        write_header(&mut out, id, QR | RA | RD, [1, records, 0, 0]);
        out.extend_from_slice(&to.question.to_ascii_lowercase());
        Written(out)
    }

    fn record(mut self, owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Written {
        self.0.extend_from_slice(owner);
        self.0.extend_from_slice(&[kind.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
        self.0.extend_from_slice(&ttl.to_be_bytes());
        self.0.extend_from_slice(&(data.len() as u16).to_be_bytes());
        self.0.extend_from_slice(data);
        self
    }
}

/// A pointer to the question's name.
const ASKED: &[u8] = b"\xc0\x0c";

#[test]
fn a_query_is_written_anew_without_its_options() {
    let read = Query::read(&query(kind::A, Some(1232))).unwrap();
    assert_eq!((read.name(), read.kind(), read.most_bytes()), ("api.example", kind::A, 1232));
    let forwarded = read.forwarded(0xbeef);
    assert_eq!(forwarded[..2], [0xbe, 0xef]);
    assert!(!forwarded.windows(6).any(|part| part == b"secret"));
    let again = Query::read(&forwarded).unwrap();
    assert_eq!(again, Query { id: 0xbeef, ..read });
}

#[test]
fn what_no_plain_resolver_says_is_answered_with_a_code() {
    let code = |bytes: &[u8]| match Query::read(bytes) {
        Err(Malformed::Answer(code, answer)) => {
            assert_eq!((answer.len(), answer[3] & 0xf), (HEADER, code as u8));
            Some(code)
        }
        Err(Malformed::Silent) | Ok(_) => None,
    };
    let good = query(kind::A, None);
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    assert_eq!(code(&changed(2, 0x28)), Some(Code::NotImp), "UPDATE");
    for at in [5, 7, 9, 11] {
        assert_eq!(code(&changed(at, 2)), Some(Code::FormErr), "a count");
    }
    assert_eq!(code(&changed(2, 0x03)), Some(Code::FormErr), "truncated");
    assert_eq!(code(&changed(12, 0xc0)), Some(Code::FormErr), "a pointer");
    assert_eq!(code(&changed(12, 0x40)), Some(Code::FormErr), "a retired label type");
    assert_eq!(code(&[&good[..], b"x"].concat()), Some(Code::FormErr), "bytes after the end");
    assert_eq!(code(&good[..good.len() - 1]), Some(Code::FormErr), "cut");
    assert_eq!(Query::read(&changed(2, 0x80)), Err(Malformed::Silent), "a reply");
    assert_eq!(Query::read(&good[..11]), Err(Malformed::Silent));
    let mut edns = query(kind::A, Some(512));
    let version = edns.len() - 17;
    edns[version] = 1;
    assert_eq!(code(&edns), Some(Code::FormErr), "EDNS 1");
}

#[test]
fn sizes_are_clamped() {
    for (said, most) in [(None, 512), (Some(0), 512), (Some(1400), 1400), (Some(65_535), 4096)] {
        assert_eq!(Query::read(&query(kind::A, said)).unwrap().most_bytes(), most);
    }
}

#[test]
fn names_are_shown_escaped() {
    let show = |wire: &[u8]| name::plain(wire, 0).unwrap().0;
    assert_eq!(show(b"\x01A\x02b.\0"), "a.b\\.");
    assert_eq!(show(b"\x03\xff\x00 \0"), "\\255\\000\\032");
    assert_eq!(show(b"\0"), ".");
    assert_eq!(name::plain(&[&[1, b'a'].repeat(127)[..], b"\0"].concat(), 0).unwrap().1, 255);
    assert!(name::plain(&[&[1, b'a'].repeat(128)[..], b"\0"].concat(), 0).is_none(), "257 bytes");
}

#[test]
fn pointers_only_lead_backwards() {
    assert_eq!(name::folded(b"\x01a\0\x01b\xc0\x00", 3).unwrap().0, b"\x01b\x01a");
    assert!(name::folded(b"\x01b\xc0\x00", 0).is_none(), "a loop");
    assert!(name::folded(b"\xc0\x02\x01a\0", 0).is_none(), "forward");
    assert!(name::folded(b"\xc0\x00", 0).is_none(), "itself");
}

#[test]
fn an_answer_gets_the_clients_id_and_letters_and_proves_its_addresses() {
    let asked = Query::read(&query(kind::A, None)).unwrap();
    let cname = b"\x03cdn\x03net\0";
    let mut reply = Written::reply(&asked, 99, 4)
        .record(ASKED, kind::CNAME, 300, cname)
        .record(cname, kind::A, 60, &[192, 0, 2, 1])
        .record(cname, kind::A, 600, &[192, 0, 2, 2])
        .record(b"\x05other\0", kind::A, 60, &[192, 0, 2, 3])
        .0;
    let proof = match asked.accept(99, &mut reply) {
        Ok(Reply::Whole(proof)) => proof,
        other => panic!("{other:?}"),
    };
    assert_eq!(proof.addresses, [("192.0.2.1".parse().unwrap(), 60), ("192.0.2.2".parse().unwrap(), 300)]);
    assert_eq!(reply[..2], 7_u16.to_be_bytes());
    assert_eq!(&reply[HEADER..HEADER + NAME.len()], NAME);
}

#[test]
fn a_loop_of_aliases_ends() {
    let asked = Query::read(&query(kind::A, None)).unwrap();
    let mut reply = Written::reply(&asked, 1, 1).record(ASKED, kind::CNAME, 1, ASKED).0;
    assert_eq!(asked.accept(1, &mut reply), Ok(Reply::Whole(Proof::default())));
}

#[test]
fn replies_to_other_questions_are_waited_past() {
    let asked = Query::read(&query(kind::A, None)).unwrap();
    let other = Query::read(&query(kind::AAAA, None)).unwrap();
    let accept = |mut bytes: Vec<u8>| asked.accept(1, &mut bytes);
    assert_eq!(accept(Written::reply(&asked, 2, 0).0), Err(NoReply::Other));
    assert_eq!(accept(Written::reply(&other, 1, 0).0), Err(NoReply::Other));
    assert_eq!(accept(asked.forwarded(1)), Err(NoReply::Other), "the query itself");
    assert_eq!(accept(Written::reply(&asked, 1, 1).0), Err(NoReply::Malformed), "a record is missing");
    let longer = [&Written::reply(&asked, 1, 0).0[..], b"x"].concat();
    assert_eq!(accept(longer), Err(NoReply::Malformed));
}

#[test]
fn a_truncated_reply_says_no_more_than_that() {
    let asked = Query::read(&query(kind::A, None)).unwrap();
    let mut reply = Written::reply(&asked, 1, 9).0;
    reply[2] |= 2;
    assert_eq!(asked.accept(1, &mut reply), Ok(Reply::Truncated));
    let told = asked.truncated();
    assert_eq!((told[2] & 0x82, &told[4..12]), (0x82, &[0, 1, 0, 0, 0, 0, 0, 0][..]));
}

fn parameter(key: u16, value: &[u8]) -> Vec<u8> {
    [&key.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
}

fn service(parameters: &[(u16, &[u8])]) -> Vec<u8> {
    let mut data = vec![0, 1, 0];
    parameters.iter().for_each(|(key, value)| data.extend(parameter(*key, value)));
    data
}

#[test]
fn http3_and_encrypted_hellos_are_taken_out_in_place() {
    let asked = Query::read(&query(kind::HTTPS, None)).unwrap();
    let data =
        service(&[(1, b"\x02h2\x02h3\x05h3-29"), (4, &[192, 0, 2, 1]), (5, b"a config"), (6, &[0; 16])]);
    let whole = Written::reply(&asked, 1, 2).record(ASKED, kind::HTTPS, 60, &data);
    let end = whole.0.len();
    let mut reply = whole.record(ASKED, kind::A, 60, &[192, 0, 2, 1]).0;
    let after = reply[end..].to_vec();
    assert!(matches!(asked.accept(1, &mut reply), Ok(Reply::Whole(_))));
    let expected =
        service(&[(1, b"\x02h2\x02-3\x05-3-29"), (4, &[192, 0, 2, 1]), (6, &[0; 16]), (65_534, &[0; 8])]);
    assert_eq!(reply[end - data.len()..end], expected);
    assert_eq!(reply[end..], after);
}

#[test]
fn a_service_that_cannot_be_walked_is_no_answer() {
    let asked = Query::read(&query(kind::HTTPS, None)).unwrap();
    let accept = |data: &[u8]| {
        asked.accept(1, &mut Written::reply(&asked, 1, 1).record(ASKED, kind::SVCB, 60, data).0)
    };
    for (name, data) in [
        ("no target", vec![0, 1]),
        ("a pointer as target", vec![0, 1, 0xc0, 0x0c]),
        ("a cut parameter", [service(&[]), vec![0, 5, 0]].concat()),
        ("falling keys", service(&[(4, &[1, 2, 3, 4]), (1, b"\x02h3")])),
        ("a second ech", service(&[(5, b"x"), (5, b"y")])),
        ("a list that is cut", service(&[(1, b"\x09h2")])),
        ("ech that is mandatory", service(&[(0, &[0, 5]), (5, b"x")])),
        ("a key beyond the filler", service(&[(5, b"x"), (65_535, b"y")])),
    ] {
        assert_eq!(accept(&data), Err(NoReply::Malformed), "{name}");
    }
    assert_eq!(accept(&service(&[])), Ok(Reply::Whole(Proof::default())), "an alias");
}
