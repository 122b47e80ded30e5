//! PostgreSQL before its start-up packet: the in-band requests for TLS and GSS encryption.
//! Shapes: a plain last hop (`N` to the client, the upstream leg as the target says), or TLS on both legs when weir
//! logs in itself. It refuses the others: relayed authentication cannot cross two TLS legs (channel binding).

use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use weir_core::action::Protocol;
use weir_core::session::Session;
use weir_core::sniff::{PostgresOpening, Sniffed};

use super::connection::{Connection, Ready, Refusal};
use super::rim::Leg;
use super::secure;
use super::sniffing::{First, first};
use crate::upstream::Wire;

/// Bytes of an SSLRequest or GSSENCRequest (protocol section "SSL Session Encryption").
const REQUEST_BYTES: usize = 8;

/// Answers TLS and GSS requests until the start-up packet is there.
pub(crate) async fn open(
    connection: &mut Connection,
    mut workload: Wire,
    mut bytes: BytesMut,
    mut opening: PostgresOpening,
) -> Result<Ready, Refusal> {
    let judgement = connection.judge(Protocol::Postgres);
    if judgement.passes_unread() {
        return connection.opaque_as(Protocol::Postgres, workload, bytes);
    }
    let gone = || Refusal::Gone { target: Arc::clone(&judgement.target), rule: Arc::clone(&judgement.rule) };
    let (mut asked_tls, mut asked_gss, mut tls) = (false, false, false);
    loop {
        let asked_before = match opening {
            PostgresOpening::Startup | PostgresOpening::Cancel => break,
            PostgresOpening::SslRequest => std::mem::replace(&mut asked_tls, true) || tls,
            PostgresOpening::GssRequest => std::mem::replace(&mut asked_gss, true) || tls,
        };
        if asked_before {
            return Err(Refusal::Violation("the client asks for encryption twice".into()));
        }
        bytes.advance(REQUEST_BYTES.min(bytes.len()));
        if !bytes.is_empty() {
            // Plaintext stuffed behind the request would be read as if it had come through TLS.
            return Err(Refusal::Violation("bytes follow the request for encryption".into()));
        }
        if opening == PostgresOpening::SslRequest && judgement.login.is_some() {
            answer(&mut workload, b'S').await.map_err(|_| gone())?;
            workload = secure::terminate_in_band(connection, workload).await?;
            tls = true;
        } else {
            answer(&mut workload, b'N').await.map_err(|_| gone())?;
        }
        (opening, bytes) = match first(&mut workload, bytes, None).await {
            First::Known(Sniffed::Postgres(next), bytes) => (next, bytes),
            First::Known(Sniffed::Tls { .. }, _) => {
                return Err(Refusal::Violation(
                    "the client goes on to TLS although it was answered that there is none".into(),
                ));
            }
            First::Known(..) | First::Silent | First::Stalled(_) => {
                return Err(Refusal::Violation("no PostgreSQL start-up packet follows".into()));
            }
            First::Gone if asked_tls && !tls => {
                return Err(Refusal::Violation(
                    "the client insists on TLS to the last hop (sslmode=require or stricter), which only works where \
                     weir logs in: add `inject` to the target, or let the client use sslmode=prefer"
                        .into(),
                ));
            }
            First::Gone => return Err(gone()),
            First::Cut => return Err(Refusal::Cut),
        };
    }
    Ok(Ready {
        session: Session::postgres(connection.opening(tls, judgement.login.as_ref().map(Arc::clone))),
        protocol: Protocol::Postgres,
        workload,
        first: bytes,
        server: None,
        leg: Leg::Postgres { tls: judgement.tls, asked: asked_tls, login: judgement.login.is_some() },
    })
}

async fn answer(workload: &mut Wire, byte: u8) -> std::io::Result<()> {
    workload.write_all(&[byte]).await?;
    workload.flush().await
}
