//! One question to one server: a fresh id from a fresh port, and only the reply that fits it.
//! It refuses to wait for longer than a client would.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir_core::limits::{DNS_NS, DNS_UDP_BYTES};
use weir_core::wire::dns::{NoReply, Proof, Query, Reply};

use crate::lane::message::Resolver;
use crate::relay::Link;

/// How the client asked, and so how the server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Datagram,
    Stream,
}

/// The server's answer, made one for the client that asked, and what it proves.
pub(super) async fn ask(
    link: &Link,
    query: &Query,
    server: Resolver,
    way: Way,
) -> io::Result<(Vec<u8>, Proof)> {
    let answered = async {
        match way {
            Way::Datagram => by_datagram(link, query, server).await,
            Way::Stream => by_stream(link, query, server).await,
        }
    };
    tokio::time::timeout(Duration::from_nanos(DNS_NS), answered).await?
}

async fn by_datagram(link: &Link, query: &Query, server: Resolver) -> io::Result<(Vec<u8>, Proof)> {
    // From a port of its own, and connected: the kernel drops what comes from elsewhere.
    let socket = link.resolver(server).await?;
    let id = fresh_id()?;
    socket.send(&query.forwarded(id)).await?;
    // No longer than the server was told.
    let mut reply = vec![0; usize::from(DNS_UDP_BYTES)];
    loop {
        let count = socket.recv(&mut reply).await?;
        match query.accept(id, &mut reply[..count]) {
            Ok(Reply::Whole(proof)) if count <= query.most_bytes() => {
                reply.truncate(count);
                return Ok((reply, proof));
            }
            Ok(Reply::Whole(_) | Reply::Truncated) => return Ok((query.truncated(), Proof::default())),
            Err(NoReply::Other) => {}
            Err(NoReply::Malformed) => return Err(io::Error::other(NoReply::Malformed)),
        }
    }
}

async fn by_stream(link: &Link, query: &Query, server: Resolver) -> io::Result<(Vec<u8>, Proof)> {
    let mut stream = link.resolver_stream(server).await?;
    let id = fresh_id()?;
    let question = query.forwarded(id);
    // One write: some servers read length and message with one read.
    let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    match query.accept(id, &mut reply).map_err(io::Error::other)? {
        Reply::Whole(proof) => Ok((reply, proof)),
        Reply::Truncated => Err(io::Error::other("a reply over TCP is truncated")),
    }
}

fn fresh_id() -> io::Result<u16> {
    getrandom::u32().map(|drawn| drawn as u16).map_err(io::Error::other)
}
