//! A server that may speak first is dialled before its client has spoken, so that its banner is not kept waiting.
//! It refuses where anything that the client could say would change that the connection passes unread, sends the server
//! nothing, and passes nothing on: both wait for the session.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use weir_core::limits::SERVER_FIRST_NS;

use super::connection::Refusal;
use super::rim::Route;
use super::sniffing::{First, first};
use crate::upstream::{Metered, Wire};

/// Who came first.
enum Turn {
    Client,
    /// The server has spoken, or the client has been silent for as long as one that speaks first would not be.
    Server,
}

/// Dials, and waits for the first to speak. Yields what the client said, and the leg on which nothing has been sent.
///
/// # Errors
/// The server could not be reached, or reset the connection.
pub(super) async fn first_of_both(route: &Route, workload: &mut Wire) -> Result<(First, Wire), Refusal> {
    let mut dialling = pin!(route.dial());
    let silence = tokio::time::sleep(Duration::from_nanos(SERVER_FIRST_NS));
    let mut server = None;
    let turn = {
        // Only readiness is waited for, nothing is read: whatever is given up here loses no byte.
        let mut client = pin!(workload.tcp().readable());
        let mut silence = pin!(silence);
        loop {
            tokio::select! {
                biased;
                _ = &mut client => break Turn::Client,
                () = &mut silence => break Turn::Server,
                dialled = &mut dialling, if server.is_none() => server = Some(dialled.map_err(unreachable)?),
                heard = spoken(server.as_ref()), if server.is_some() => {
                    // The kernel tells of a reset once: a session would find a mere end.
                    heard.map_err(|_| Refusal::Fault("the server cut the connection off".into()))?;
                    break Turn::Server;
                }
            }
        }
    };
    match turn {
        Turn::Client => {
            let said = first(workload, BytesMut::new(), Some(SERVER_FIRST_NS));
            let (said, server) = tokio::join!(said, reached(server, dialling));
            Ok((said, server?))
        }
        Turn::Server => Ok((First::Silent, reached(server, dialling).await?)),
    }
}

async fn reached(
    server: Option<Metered>,
    dialling: impl Future<Output = io::Result<Metered>>,
) -> Result<Wire, Refusal> {
    match server {
        Some(server) => Ok(server.into()),
        None => dialling.await.map(Wire::from).map_err(unreachable),
    }
}

fn unreachable(fault: io::Error) -> Refusal {
    Refusal::Fault(fault.to_string())
}

/// Resolves when the server has sent a byte or a reset. One that only ends its half has not spoken, and is not waited for.
async fn spoken(server: Option<&Metered>) -> io::Result<()> {
    let heard = match server {
        Some(server) => server.tcp().peek(&mut [0]).await?,
        None => 0,
    };
    match heard {
        0 => std::future::pending().await,
        _ => Ok(()),
    }
}
