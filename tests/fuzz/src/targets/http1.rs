//! HTTP/1: a head is found at the same place however it arrives, and a chunked body has one content however it is cut.

use weir_core::wire::http1::{Body, Framing, HeadScan, Readings, RequestHead, ResponseHead};

pub const HEADS: &[&[u8]] = &[
    b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nAccept: */*\r\n\r\n",
    b"POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /x/..%2fadmin%5c\\y;v=1/%252f?q HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
];

pub const CHUNKS: &[&[u8]] = &[
    b"5\r\nhello\r\n0\r\n\r\n",
    b"a;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\nGET",
    b"ffffffffffffffff\r\n",
];

pub fn heads(bytes: &[u8]) {
    let whole = HeadScan::default().find(bytes);
    let mut scan = HeadScan::default();
    let mut cut = 1;
    let split = loop {
        match scan.find(&bytes[..cut.min(bytes.len())]) {
            Ok(None) if cut < bytes.len() => cut += 1 + cut / 4,
            result => break result,
        }
    };
    assert_eq!(split, whole);
    let Ok(Some(range)) = whole else { return };
    let head = &bytes[range];
    if let Ok(request) = RequestHead::parse(head) {
        assert_eq!(request.bytes(), head);
        assert!(request.fields().count() <= weir_core::limits::HTTP_FIELDS);
        readings(request.target.parts().0);
    }
    for to_head in [false, true] {
        if let Ok(response) = ResponseHead::parse(head, to_head) {
            assert_eq!(response.bytes(), head);
        }
    }
}

/// Every reading of a path is in normal form.
fn readings(path: &str) {
    let Ok(readings) = Readings::of(path) else { return };
    assert!(readings.others.len() < 16 && !readings.others.contains(&readings.path));
    for reading in readings.others.iter().chain(path.starts_with('/').then_some(&readings.path)) {
        assert!(reading.starts_with('/') && !reading.contains("//"), "{path}: {reading}");
        assert!(!reading.split('/').any(|segment| matches!(segment, "." | "..")), "{path}: {reading}");
    }
}

pub fn chunked(bytes: &[u8]) {
    let whole = content(bytes, bytes.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(content(bytes, piece), whole, "in pieces of {piece}");
    }
}

/// Content and length of the body when the stream grows by `piece` bytes; `None` for a refused one.
fn content(bytes: &[u8], piece: usize) -> Option<(Vec<u8>, usize, bool)> {
    let (mut body, mut text, mut start, mut end) = (Body::new(Framing::Chunked), Vec::new(), 0, 0);
    while !body.is_done() {
        let step = body.step(&bytes[start..end]).ok()?;
        assert!(step.taken <= end - start && step.content.end <= step.taken);
        text.extend_from_slice(&bytes[start..end][step.content]);
        start += step.taken;
        if step.taken == 0 {
            if end == bytes.len() {
                break;
            }
            end = bytes.len().min(end + piece);
        }
    }
    Some((text, if body.is_done() { start } else { 0 }, body.is_done()))
}
