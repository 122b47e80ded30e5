//! Tables of good and bad messages, any-split properties, and httparse as the oracle: what it rejects, we reject.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::limits::{HTTP_CHUNK_LINE_BYTES, HTTP_FIELDS, HTTP_HEAD_BYTES, HTTP_LINE_BYTES};

fn head(bytes: &[u8]) -> Result<Option<&[u8]>, Violation> {
    Ok(HeadScan::default().find(bytes)?.map(|range| &bytes[range]))
}

fn request(bytes: &[u8]) -> Result<RequestHead<'_>, Violation> {
    RequestHead::parse(head(bytes)?.expect("a whole head"))
}

fn response(bytes: &[u8]) -> Result<ResponseHead<'_>, Violation> {
    ResponseHead::parse(head(bytes)?.expect("a whole head"), false)
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn good_requests_are_read() {
    let text = b"POST /a/b?c=d HTTP/1.1\r\nhOsT:\t Example.COM.:8080 \r\nX-Empty:\r\nContent-Length: 12\r\n\
        Connection: foo , Close\r\nExpect: 100-Continue\r\nContent-Type: text/plain\r\n\r\n";
    let read = request(text).unwrap();
    assert_eq!((read.method, read.target), ("POST", Target::Origin { path: "/a/b", query: "c=d" }));
    let host = read.host.unwrap();
    assert_eq!((host.host(), host.port), ("Example.COM", Some(8080)));
    assert_eq!(read.framing, Framing::Length(12));
    assert!(read.expects && !read.persistent);
    assert_eq!(read.bytes(), text);
    let fields: Vec<_> = read.fields().map(|field| field.line.to_vec()).collect();
    assert_eq!([read.line(), &fields.concat(), b"\r\n"].concat(), text);
}

#[test]
fn persistence_follows_version_and_connection() {
    for (text, persistent) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        assert_eq!(request(text.as_bytes()).unwrap().persistent, persistent, "{text}");
    }
}

#[test]
fn every_smuggling_form_is_refused() {
    use Violation as V;
    for (fields, violation) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", V::LengthAndEncoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", V::LengthAndEncoding),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", V::ManyLengths),
        ("Content-Length: 5\r\ncontent-length: 5\r\n", V::ManyLengths),
        ("Content-Length: 5, 5\r\n", V::Length),
        ("Content-Length: +5\r\n", V::Length),
        ("Content-Length: -5\r\n", V::Length),
        ("Content-Length: 0x5\r\n", V::Length),
        ("Content-Length: 5 5\r\n", V::Length),
        ("Content-Length:\r\n", V::Length),
        ("Content-Length: 18446744073709551616\r\n", V::Length),
        ("Transfer-Encoding: gzip, chunked\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunked, identity\r\n", V::TransferEncoding),
        ("Transfer-Encoding: identity\r\n", V::TransferEncoding),
        ("Transfer-Encoding: xchunked\r\n", V::TransferEncoding),
        ("Transfer-Encoding:\r\n", V::TransferEncoding),
        ("Transfer-Encoding: \"chunked\"\r\n", V::TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", V::TransferEncoding),
        ("Transfer-Encoding : chunked\r\n", V::SpaceBeforeColon),
        ("Content-Length : 5\r\n", V::SpaceBeforeColon),
        ("X: a\r\n b\r\n", V::Folded),
        ("X: a\r\n\tb\r\n", V::Folded),
        (" X: a\r\n", V::Folded),
        ("X: a\rb\r\n", V::ControlByte),
        ("X: a\r\r\n", V::ControlByte),
        ("X: a\0b\r\n", V::ControlByte),
        ("X: a\x0bb\r\n", V::ControlByte),
        ("X: a\x7fb\r\n", V::ControlByte),
        ("X\0: a\r\n", V::ControlByte),
        ("X: a\nY: b\r\n", V::BareLineEnd),
        ("X: a\n", V::BareLineEnd),
        (": a\r\n", V::Field),
        ("X\r\n", V::Field),
        ("X Y: a\r\n", V::Field),
        ("X(: a\r\n", V::Field),
        ("Host: a\r\n", V::ManyHosts),
        ("Host: b\r\n", V::ManyHosts),
        ("Expect: 200-ok\r\n", V::Expect),
        ("Content-Type: a/b\r\nContent-Type: c/d\r\n", V::Field),
    ] {
        assert_eq!(request(get(fields).as_bytes()).map(|_| ()), Err(violation), "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(old.as_bytes()).map(|_| ()), Err(V::OldTransferEncoding));
}

#[test]
fn bad_request_lines_are_refused() {
    use Violation as V;
    for (line, violation) in [
        ("GET  / HTTP/1.1", V::RequestLine),
        ("GET /  HTTP/1.1", V::RequestLine),
        ("GET /a b HTTP/1.1", V::RequestLine),
        ("GET\t/ HTTP/1.1", V::ControlByte),
        (" GET / HTTP/1.1", V::RequestLine),
        ("GET / HTTP/1.1 ", V::RequestLine),
        ("GET /", V::RequestLine),
        ("GET / http/1.1", V::RequestLine),
        ("G(T / HTTP/1.1", V::RequestLine),
        ("GET /\u{e4} HTTP/1.1", V::RequestLine),
        ("GET /\0 HTTP/1.1", V::ControlByte),
        ("GET / HTTP/2.0", V::Version),
        ("GET / HTTP/1.2", V::Version),
        ("GET / HTTP/0.9", V::Version),
        ("GET / HTTP/1.10", V::Version),
        ("GET /#x HTTP/1.1", V::Target),
        ("GET a HTTP/1.1", V::Target),
        ("GET ftp://a/ HTTP/1.1", V::Target),
        ("GET http:///x HTTP/1.1", V::Target),
        ("GET http://u@a/ HTTP/1.1", V::Target),
        ("GET http://b/ HTTP/1.1", V::HostMismatch),
        ("GET * HTTP/1.1", V::TargetForm),
    ] {
        let text = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(request(text.as_bytes()).map(|_| ()), Err(violation), "{line:?}");
    }
    assert_eq!(request(b"GET / HTTP/1.1\r\n\r\n").map(|_| ()), Err(V::NoHost));
    assert_eq!(request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().target, Target::Asterisk);
    assert_eq!(request(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").unwrap().target, Target::Tunnel);
    let absolute = request(b"GET http://A?x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(absolute.target.parts(), ("/", "x"));
}

#[test]
fn hosts_are_read_exactly_or_not_at_all() {
    for (text, host, port) in [
        ("example.com", "example.com", None),
        ("Example.com.:80", "Example.com", Some(80)),
        ("10.0.0.1:8080", "10.0.0.1", Some(8080)),
        ("[::1]:443", "::1", Some(443)),
        ("[::1]", "::1", None),
        ("a_b-c", "a_b-c", None),
        ("a:", "a", None),
    ] {
        let read = Authority::parse(text.as_bytes()).unwrap();
        assert_eq!((read.host(), read.port), (host, port), "{text}");
    }
    for text in [
        "", ":80", "a b", "a,b", "a/b", "a@b", "a%2e", "a:b", "a:80:80", "a:99999", "[::1", "[::1]x", "[a]",
        "a\\b", "\u{e4}",
    ] {
        assert_eq!(Authority::parse(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn upgrades_are_told_apart() {
    for (fields, upgrade) in [
        ("", Upgrade::None),
        ("Upgrade: h2c\r\n", Upgrade::H2c),
        ("Upgrade: websocket\r\n", Upgrade::Other),
        ("Upgrade: h2c, websocket\r\n", Upgrade::Other),
        ("Upgrade: h2c\r\nUpgrade: TLS/1.0\r\n", Upgrade::Other),
    ] {
        assert_eq!(request(get(fields).as_bytes()).unwrap().upgrade, upgrade, "{fields}");
    }
}

#[test]
fn heads_end_where_they_end() {
    assert_eq!(head(b"GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
    assert_eq!(head(b"\r\nA\r\n\r\nrest"), Ok(Some(&b"A\r\n\r\n"[..])));
    assert_eq!(head(b"\r\n\r\nA\r\n\r\n"), Err(Violation::EmptyLines));
    assert_eq!(head(b"\nA"), Err(Violation::BareLineEnd));
    assert_eq!(head(b"A\n\n"), Err(Violation::BareLineEnd));
    assert_eq!(head(&vec![b'a'; HTTP_LINE_BYTES]), Ok(None));
    assert_eq!(head(&vec![b'a'; HTTP_LINE_BYTES + 1]), Err(Violation::LongTarget));
    let long = [b"A\r\n".to_vec(), vec![b'a'; HTTP_LINE_BYTES + 1]].concat();
    assert_eq!(head(&long), Err(Violation::LargeHead));
    let many = get(&"A: b\r\n".repeat(HTTP_FIELDS));
    assert_eq!(request(many.as_bytes()).map(|_| ()), Err(Violation::ManyFields));
    assert!(request(get(&"A: b\r\n".repeat(HTTP_FIELDS - 1)).as_bytes()).is_ok());
    let line = format!("A: {}\r\n", "b".repeat(1_000));
    let large = get(&line.repeat(HTTP_HEAD_BYTES / line.len() + 1));
    assert_eq!(head(large.as_bytes()), Err(Violation::LargeHead));
}

#[test]
fn responses_are_framed_by_status_and_fields() {
    let framing = |status: u16, fields: &str, bodiless: bool| {
        let text = format!("HTTP/1.1 {status} Some Reason\r\n{fields}\r\n");
        ResponseHead::parse(text.as_bytes(), bodiless).map(|head| (head.framing, head.persistent))
    };
    use Framing::{Chunked, Empty, Length, UntilClose};
    assert_eq!(framing(200, "Content-Length: 3\r\n", false), Ok((Length(3), true)));
    assert_eq!(framing(200, "Content-Length: 3\r\n", true), Ok((Empty, true)));
    assert_eq!(framing(200, "Transfer-Encoding: chunked\r\n", false), Ok((Chunked, true)));
    assert_eq!(framing(200, "", false), Ok((UntilClose, false)));
    assert_eq!(framing(200, "Connection: close\r\nContent-Length: 0\r\n", false), Ok((Empty, false)));
    assert_eq!(framing(304, "Content-Length: 3\r\n", false), Ok((Empty, true)));
    assert_eq!(framing(204, "", false), Ok((Empty, true)));
    assert_eq!(framing(100, "", false), Ok((Empty, true)));
    assert_eq!(framing(204, "Content-Length: 3\r\n", false), Err(Violation::ForbiddenBody));
    assert_eq!(framing(101, "Transfer-Encoding: chunked\r\n", false), Err(Violation::ForbiddenBody));
    assert_eq!(framing(200, "Transfer-Encoding: gzip\r\n", false), Err(Violation::TransferEncoding));
    assert_eq!(
        framing(200, "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", false),
        Err(Violation::LengthAndEncoding)
    );
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 099 X",
        "HTTP/1.1 600 X",
        "HTTP/1.1 2x0 X",
        "ICY 200 OK",
    ] {
        let text = format!("{line}\r\n\r\n");
        assert_eq!(response(text.as_bytes()).map(|_| ()), Err(Violation::StatusLine), "{line}");
    }
    assert!(response(b"HTTP/1.1 200\r\n\r\n").is_ok());
    assert_eq!(response(b"HTTP/2.0 200 OK\r\n\r\n").map(|_| ()), Err(Violation::Version));
}

/// Content and framed bytes of a chunked body, and whether it came to its end.
fn chunked(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize, bool), Violation> {
    let mut body = Body::new(Framing::Chunked);
    let (mut content, mut total, mut kept) = (Vec::new(), 0, Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            let step = body.step(&kept)?;
            if step.taken == 0 {
                break;
            }
            content.extend_from_slice(&kept[step.content]);
            kept.drain(..step.taken);
            total += step.taken;
        }
    }
    Ok((content, total, body.is_done()))
}

#[test]
fn chunks_are_read_strictly() {
    let good = b"3;ext=\"v\"\r\nabc\r\n00000000000000A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nrest";
    assert_eq!(chunked(&[good]), Ok((b"abc0123456789".to_vec(), good.len() - 4, true)));
    use Violation as V;
    for (text, violation) in [
        ("+3\r\nabc\r\n", V::ChunkSize),
        ("-3\r\nabc\r\n", V::ChunkSize),
        ("0x3\r\nabc\r\n", V::ChunkSize),
        (" 3\r\nabc\r\n", V::ChunkSize),
        ("3 \r\nabc\r\n", V::ChunkSize),
        ("3 ;x\r\nabc\r\n", V::ChunkSize),
        ("\r\n", V::ChunkSize),
        (";x\r\n", V::ChunkSize),
        ("3\nabc\r\n", V::ChunkSize),
        ("3;a\nb\r\nabc\r\n", V::ChunkSize),
        ("3;a\rb\r\nabc\r\n", V::ChunkSize),
        ("00000000000000003\r\nabc\r\n", V::ChunkSize),
        ("3\r\nabcd\r\n", V::ChunkEnd),
        ("3\r\nabc\n0\r\n\r\n", V::ChunkEnd),
        ("3\r\nabc0\r\n\r\n", V::ChunkEnd),
        ("0\r\nContent-Length: 3\r\n\r\n", V::Trailer),
        ("0\r\nTransfer-Encoding: chunked\r\n\r\n", V::Trailer),
        ("0\r\n X: y\r\n\r\n", V::Trailer),
        ("0\r\nX: y\n\r\n", V::Trailer),
        ("0\r\n\n", V::Trailer),
    ] {
        assert_eq!(chunked(&[text.as_bytes()]), Err(violation), "{text:?}");
    }
    let long = format!("3;{}\r\n", "x".repeat(HTTP_CHUNK_LINE_BYTES));
    assert_eq!(chunked(&[long.as_bytes()]), Err(V::LongChunkLine));
    let huge = "ffffffffffffffff\r\nabc";
    assert_eq!(chunked(&[huge.as_bytes()]), Ok((b"abc".to_vec(), huge.len(), false)));
}

#[test]
fn paths_have_one_form() {
    for (path, normal) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//a///b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/../../a", "/a"),
        ("/a%2e%2E/b", "/a../b"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/%61dmin", "/admin"),
        ("/a%20b", "/a b"),
        ("/%252e%252e/a", "/%2e%2e/a"),
        ("/.well-known/x", "/.well-known/x"),
        ("/%C3%A4", "/\u{e4}"),
        ("//", "/"),
    ] {
        let expected = Readings { path: normal.into(), others: Vec::new() };
        assert_eq!(Readings::of(path), Ok(expected), "{path}");
    }
    for path in ["/a%00", "/..;/a", "/a/..;x=y/b", "/.;/a", "/a%2f..;x", "/a\\.;x/b"] {
        assert_eq!(Readings::of(path), Err(Violation::AmbiguousPath), "{path}");
    }
    for path in ["/%", "/%a", "/%zz", "/%+1", "/%ff", "/%c3%2f%a4"] {
        assert_eq!(Readings::of(path), Err(Violation::PercentEncoding), "{path}");
    }
}

/// Where servers differ, every way that one of them takes is listed.
#[test]
fn doubtful_paths_have_all_their_readings() {
    for (path, first, others) in [
        ("/@scope%2fname", "/@scope%2Fname", &["/@scope/name"][..]),
        ("/a%2Fb/", "/a%2Fb/", &["/a/b/"]),
        ("/x/..%2fadmin/y", "/x/..%2Fadmin/y", &["/admin/y"]),
        ("/x/%2e%2e%2fadmin", "/x/..%2Fadmin", &["/admin"]),
        ("/x/..%2f", "/x/..%2F", &["/"]),
        ("/x\\..\\admin/y", "/x\\..\\admin/y", &["/admin/y"]),
        ("/x%5c..%5cadmin", "/x\\..\\admin", &["/admin"]),
        // Double-encoded: one decoding is what the server reads, too.
        ("/a%252fb", "/a%2fb", &[]),
        ("/a%255cb", "/a%5cb", &[]),
        // A server may take one for a separator and the other not.
        ("/a%2fb\\..\\admin/y", "/a%2Fb\\..\\admin/y", &["/a/b\\..\\admin/y", "/admin/y", "/a/admin/y"]),
        ("/a;v=1/b", "/a;v=1/b", &["/a/b"]),
        ("/a;b%2fc", "/a;b%2Fc", &["/a;b/c", "/a", "/a/c"]),
    ] {
        let others = others.iter().map(|other| String::from(*other)).collect();
        assert_eq!(Readings::of(path), Ok(Readings { path: first.into(), others }), "{path}");
    }
}

/// What httparse says of the same head.
fn oracle_accepts(head: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    matches!(request.parse(head), Ok(httparse::Status::Complete(_)))
}

fn oracle_accepts_response(head: &[u8]) -> bool {
    let mut fields = [httparse::EMPTY_HEADER; HTTP_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    matches!(response.parse(head), Ok(httparse::Status::Complete(_)))
}

/// Pieces from which heads, good and bad, are put together.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("GET ".to_string()),
        Just("/ ".to_string()),
        Just("HTTP/1.1".to_string()),
        Just("HTTP/1.1 200 OK".to_string()),
        Just("\r\n".to_string()),
        Just("\n".to_string()),
        Just("\r".to_string()),
        Just("Host: a".to_string()),
        Just("Content-Length: ".to_string()),
        Just("3".to_string()),
        Just("Transfer-Encoding: chunked".to_string()),
        Just(": ".to_string()),
        Just(" ".to_string()),
        Just("\t".to_string()),
        Just("\0".to_string()),
        Just("\r\n\r\n".to_string()),
        "[ -~]{0,6}",
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat().into_bytes())
}

fn cuts(bytes: &[u8], at: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = at.iter().map(|index| index.index(bytes.len() + 1)).collect();
    at.push(bytes.len());
    at.sort_unstable();
    let mut start = 0;
    at.into_iter()
        .map(|end| {
            let piece = bytes[start..end].to_vec();
            start = end;
            piece
        })
        .collect()
}

fn scan_pieces(pieces: &[Vec<u8>]) -> Result<Option<core::ops::Range<usize>>, Violation> {
    let mut scan = HeadScan::default();
    let mut seen = Vec::new();
    for piece in pieces {
        seen.extend_from_slice(piece);
        if let Some(range) = scan.find(&seen)? {
            return Ok(Some(range));
        }
    }
    Ok(None)
}

proptest! {
    #[test]
    fn what_httparse_rejects_we_reject(bytes in pieces(), good in any::<bool>()) {
        let bytes = if good { [b"GET / HTTP/1.1\r\nHost: a\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat() } else { bytes };
        if let Ok(Some(head)) = head(&bytes) {
            if RequestHead::parse(head).is_ok() {
                prop_assert!(oracle_accepts(head), "{:?}", String::from_utf8_lossy(head));
            }
            if ResponseHead::parse(head, false).is_ok() {
                prop_assert!(oracle_accepts_response(head), "{:?}", String::from_utf8_lossy(head));
            }
        }
    }

    #[test]
    fn any_split_of_a_head_is_the_same_head(bytes in pieces(), at in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let whole = HeadScan::default().find(&bytes);
        prop_assert_eq!(scan_pieces(&cuts(&bytes, &at)), whole.clone());
        if let Ok(Some(range)) = whole {
            let bytes: Vec<Vec<u8>> = bytes[..range.end].iter().map(|byte| vec![*byte]).collect();
            prop_assert_eq!(scan_pieces(&bytes), Ok(Some(range)));
        }
    }

    #[test]
    fn any_split_of_a_chunked_body_is_the_same_body(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        broken in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:X};a=b\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nX: y\r\n\r\n");
        if let Some((index, byte)) = &broken {
            let at = index.index(bytes.len());
            bytes[at] = *byte;
        }
        let whole = chunked(&[&bytes]);
        let pieces = cuts(&bytes, &at);
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(chunked(&pieces), whole.clone());
        if broken.is_none() {
            prop_assert_eq!(whole, Ok((chunks.concat(), bytes.len(), true)));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = RequestHead::parse(&bytes);
        let _ = ResponseHead::parse(&bytes, false);
        let _ = chunked(&[&bytes]);
        let _ = HeadScan::default().find(&bytes);
        let _ = Readings::of(&String::from_utf8_lossy(&bytes));
    }

    /// A normal form is not changed by the resolution it stands for.
    #[test]
    fn normal_paths_hold_no_dots_and_no_runs(path in "(/(\\.{0,3}|%2e|%2E\\.|%2f|%5C|\\\\|[a-z%0-9]{0,3}|;x)){1,6}") {
        let readings = Readings::of(&path).unwrap_or_default();
        prop_assert!(readings.others.len() < 16, "{:?}", readings);
        for normal in readings.others.iter().chain((!readings.path.is_empty()).then_some(&readings.path)) {
            prop_assert!(normal.starts_with('/'), "{}", normal);
            prop_assert!(!normal.contains("//"), "{}", normal);
            prop_assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."), "{}", normal);
        }
    }
}
