//! PostgreSQL messages: any bytes are read or refused, and no reader goes beyond its message.

use weir_core::wire::postgres::{Header, Violation, backend, copy, frontend, header, row, startup};

pub const STARTUPS: &[&[u8]] = &[
    b"\x00\x00\x00\x30\x00\x03\x00\x00user\x00alice\x00database\x00app\x00options\x00-c a=b\x00\x00",
    b"\x00\x00\x00\x10\x04\xd2\x16\x2e\x00\x00\x00\x01\x00\x00\x00\x02",
];

pub const FRONTENDS: &[&[u8]] = &[
    b"Q\x00\x00\x00\x0dSELECT 1\x00",
    b"P\x00\x00\x00\x15s\x00SELECT $1\x00\x00\x01\x00\x00\x00\x17",
    b"B\x00\x00\x00\x14p\x00s\x00\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00",
    b"D\x00\x00\x00\x07Ss\x00E\x00\x00\x00\x09\x00\x00\x00\x00\x00C\x00\x00\x00\x06P\x00H\x00\x00\x00\x04S\x00\x00\x00\x04X\x00\x00\x00\x04",
];

pub const BACKENDS: &[&[u8]] = &[
    b"T\x00\x00\x00\x1b\x00\x01id\x00\x00\x00\x40\x00\x00\x01\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00",
    b"D\x00\x00\x00\x0f\x00\x02\x00\x00\x00\x011\xff\xff\xff\xff",
    b"E\x00\x00\x00\x1dSERROR\x00C42501\x00Mno\x00\x00Z\x00\x00\x00\x05I",
    b"S\x00\x00\x00\x16client_encoding\x00UTF8\x00R\x00\x00\x00\x08\x00\x00\x00\x00",
];

pub fn startup(bytes: &[u8]) {
    if let Ok(Some((_, length))) = startup::opener(bytes) {
        assert!(length <= bytes.len());
        // The same packet with more behind it is the same packet.
        let longer = [bytes, b"rest"].concat();
        assert_eq!(startup::opener(&longer), startup::opener(bytes));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = startup::options(text);
    }
}

pub fn frontend(bytes: &[u8]) {
    messages(bytes, frontend::bound, |header, body| {
        let _ = frontend::parse(header.tag, body);
    });
}

pub fn backend(bytes: &[u8]) {
    messages(bytes, backend::bound, |header, body| {
        let _ = (
            backend::parameter_status(body),
            backend::ready(body),
            backend::authentication(body),
            copy::is_text(body),
        );
        assert!(backend::error_fields(body).count() <= body.len());
        match header.tag {
            b'T' => description(body),
            b'D' => cells(body),
            _ => {}
        }
    });
}

/// Reading a description and writing it again changes nothing.
fn description(body: &[u8]) {
    if let Ok(columns) = backend::row_description(body) {
        let mut written = Vec::new();
        backend::write_row_description(&mut written, &columns);
        assert_eq!(written.get(5..), Some(body));
    }
}

fn cells(body: &[u8]) {
    let Ok(mut cells) = row::cells(body) else { return };
    let mut total = 0;
    while let Ok(Some(cell)) = cells.cell() {
        total += 4 + cell.map_or(0, <[u8]>::len);
    }
    assert!(total <= body.len());
}

fn messages(bytes: &[u8], bound: fn(u8) -> Option<usize>, mut visit: impl FnMut(Header, &[u8])) {
    let mut rest = bytes;
    while let Ok::<_, Violation>(Some(header)) = header(rest, bound) {
        let Some(body) = rest.get(5..header.whole()) else { return };
        visit(header, body);
        rest = &rest[header.whole()..];
    }
}
