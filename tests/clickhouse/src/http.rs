//! As much HTTP/1.1 as ClickHouse clients speak: one request at a time, keep-alive, sized or chunked bodies.
//! It refuses bodies above [`BODY_BYTES`].

use std::io::{self, BufRead, Read, Write};

/// Larger than any batch of the tests.
const BODY_BYTES: usize = 512 << 20;

#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The next request; `None` when the client has closed the connection.
pub fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let line = line(reader)?;
    if line.is_empty() {
        return Ok(None);
    }
    let mut words = line.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(io::Error::other("no request line"));
    };
    let mut request =
        Request { method: method.into(), target: target.into(), fields: Vec::new(), body: Vec::new() };
    loop {
        let line = self::line(reader)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            request.fields.push((name.to_ascii_lowercase(), value.trim().into()));
        }
    }
    if request.field("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        request.body = chunked(reader)?;
    } else if let Some(length) = request.field("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        append(reader, &mut request.body, length)?;
    }
    Ok(Some(request))
}

pub fn write(out: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} -\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    out.write_all(&[head.as_bytes(), &reply.body].concat())
}

fn chunked(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(reader)?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        if size == 0 {
            while !line(reader)?.is_empty() {}
            return Ok(body);
        }
        append(reader, &mut body, size)?;
        line(reader)?;
    }
}

fn append(reader: &mut impl BufRead, body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    if body.len().saturating_add(length) > BODY_BYTES {
        return Err(io::Error::other("the body is too long"));
    }
    let got = reader.take(length as u64).read_to_end(body)?;
    if got == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(1 << 20).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).into())
}
