//! A connection that begins with a ClientHello: upstream leg first and verified, then a leaf for the client, then sniff again.
//! It refuses to mint for a server that did not verify, and to answer a client in the server's name before that.

use bytes::BytesMut;
use rustls::AlertDescription;
use tokio::io::AsyncWriteExt;
use weir_core::action::Protocol;
use weir_core::destination::Evidence;
use weir_core::policy::{ConnectionJudgement, Verdict};
use weir_core::session::Session;
use weir_core::sniff::{PostgresOpening, Sniffed};

use super::connection::{Connection, Ready, Refusal, turn_to_http1};
use super::rim::{Leg, Route};
use super::sniffing::{First, first};
use crate::tls::{LeafName, Prefixed, Termination, alert};
use crate::upstream::{UpstreamTls, Wire};

/// As messages name it.
const TLS: &str = "a TLS connection";
/// What weir can read inside TLS today (ALPN protocol ids).
const SPOKEN: [&[u8]; 2] = [b"http/1.1", b"postgresql"];

pub(crate) async fn open(
    connection: &mut Connection,
    mut workload: Wire,
    bytes: BytesMut,
    sni: Option<String>,
    alpn: Vec<Vec<u8>>,
) -> Result<Ready, Refusal> {
    if let Some(name) = &sni {
        connection.destination.learn(name, Evidence::Claimed);
    }
    let judgement = connection.judge(Protocol::Tls);
    if judgement.passes_unread() {
        return connection.opaque_as(Protocol::Tls, workload, bytes);
    }
    if !matches!(judgement.verdict, Verdict::Allow(_)) && !judgement.needs_name {
        shout(&mut workload, AlertDescription::AccessDenied).await;
        return Err(Refusal::denied(judgement, TLS));
    }
    let offers: Vec<Vec<u8>> = alpn.iter().filter(|id| SPOKEN.contains(&id.as_slice())).cloned().collect();
    if offers.is_empty() && !alpn.is_empty() {
        if judgement.passes_opaque() {
            return connection.opaque(workload, bytes, "");
        }
        shout(&mut workload, AlertDescription::NoApplicationProtocol).await;
        return Err(Refusal::Violation(
            "the client offers no protocol that can be read inside TLS (http/1.1)".into(),
        ));
    }
    if offers.iter().any(|id| id == b"postgresql") {
        return direct_postgres(connection, workload, bytes, sni).await;
    }
    let name = leaf_name(connection, sni.as_deref())?;
    let (server, judgement) = match proved_leg(connection, &name, judgement, &offers).await {
        Ok(proved) => proved,
        Err((words, refusal)) => {
            shout(&mut workload, words).await;
            return Err(refusal);
        }
    };
    if let Verdict::Deny { .. } = judgement.verdict {
        shout(&mut workload, AlertDescription::AccessDenied).await;
        return Err(Refusal::denied(judgement, TLS));
    }
    let chosen: Vec<&[u8]> = server.alpn.as_deref().into_iter().collect();
    let mut workload = terminate(connection, workload, bytes, &name, &judgement, &chosen).await?;
    match first(&mut workload, BytesMut::new(), None).await {
        First::Known(Sniffed::Http1, bytes) => Ok(Ready {
            session: Session::http(connection.opening(true, None)),
            protocol: Protocol::Http,
            workload,
            first: bytes,
            server: Some(server.wire),
            leg: Leg::Plain,
        }),
        // The server has seen a handshake, so there is a row.
        First::Gone => Err(Refusal::Unused { target: judgement.target, rule: judgement.rule }),
        First::Cut => Err(Refusal::Cut),
        First::Known(Sniffed::Http2, _) => {
            turn_to_http1(&mut workload).await;
            Err(Refusal::Violation("HTTP/2 inside TLS that was not negotiated (ALPN)".into()))
        }
        First::Known(..) | First::Silent | First::Stalled(_) => {
            Err(Refusal::Violation("what comes inside TLS is no HTTP/1".into()))
        }
    }
}

/// PostgreSQL that begins with TLS at once (`sslnegotiation=direct`): only where weir logs in itself.
async fn direct_postgres(
    connection: &mut Connection,
    mut workload: Wire,
    bytes: BytesMut,
    sni: Option<String>,
) -> Result<Ready, Refusal> {
    let judgement = connection.judge(Protocol::Postgres);
    let Some(login) = judgement.login.clone() else {
        shout(&mut workload, AlertDescription::AccessDenied).await;
        return Err(Refusal::Violation(
            "TLS from the first byte (sslnegotiation=direct) with relayed authentication cannot work: add `inject` to \
             the target, or let the client use sslmode=prefer"
                .into(),
        ));
    };
    let name = leaf_name(connection, sni.as_deref())?;
    let mut workload = terminate(connection, workload, bytes, &name, &judgement, &[b"postgresql"]).await?;
    match first(&mut workload, BytesMut::new(), None).await {
        First::Known(Sniffed::Postgres(PostgresOpening::Startup | PostgresOpening::Cancel), bytes) => {
            Ok(Ready {
                session: Session::postgres(connection.opening(true, Some(login))),
                protocol: Protocol::Postgres,
                workload,
                first: bytes,
                server: None,
                leg: Leg::Postgres { tls: judgement.tls, asked: true, login: true },
            })
        }
        First::Gone => Err(Refusal::gone(judgement)),
        First::Cut => Err(Refusal::Cut),
        First::Known(..) | First::Silent | First::Stalled(_) => {
            Err(Refusal::Violation("no PostgreSQL start-up packet follows".into()))
        }
    }
}

/// TLS after `S`: the ClientHello is still to come.
pub(crate) async fn terminate_in_band(
    connection: &mut Connection,
    mut workload: Wire,
) -> Result<Wire, Refusal> {
    let (sni, bytes) = match first(&mut workload, BytesMut::new(), None).await {
        First::Known(Sniffed::Tls { sni, .. }, bytes) => (sni, bytes),
        First::Gone => return Err(Refusal::gone(connection.judge(Protocol::Postgres))),
        First::Cut => return Err(Refusal::Cut),
        First::Known(..) | First::Silent | First::Stalled(_) => {
            return Err(Refusal::Violation("no ClientHello follows the request for TLS".into()));
        }
    };
    let name = leaf_name(connection, sni.as_deref())?;
    let judgement = connection.judge(Protocol::Postgres);
    terminate(connection, workload, bytes, &name, &judgement, &[]).await
}

/// The upstream leg, and the judgement now that its name counts. Only the name that was verified is learnt, and where a
/// policy sets it (`tls.name`) the names that its target declares; else the client's SNI stays a claim.
async fn proved_leg(
    connection: &mut Connection,
    name: &LeafName,
    judgement: ConnectionJudgement,
    offers: &[Vec<u8>],
) -> Result<(UpstreamTls, ConnectionJudgement), (AlertDescription, Refusal)> {
    let server = upstream_leg(connection, name, &judgement, offers).await?;
    learn(connection, &server, &judgement);
    let proved = connection.judge(Protocol::Http);
    if proved.tls == judgement.tls || matches!(proved.verdict, Verdict::Deny { .. }) {
        return Ok((server, proved));
    }
    // The proved name brought in a policy that wants the leg secured in its own way, so it gets such a leg.
    drop(server);
    let server = upstream_leg(connection, name, &proved, offers).await?;
    learn(connection, &server, &proved);
    let last = connection.judge(Protocol::Http);
    if last.tls != proved.tls {
        let words = "the policies for this destination do not settle on one `tls`";
        return Err((AlertDescription::InternalError, Refusal::Fault(words.into())));
    }
    Ok((server, last))
}

fn learn(connection: &mut Connection, server: &UpstreamTls, judgement: &ConnectionJudgement) {
    connection.destination.learn(&server.name, Evidence::Certificate);
    for name in &judgement.stands_for {
        connection.destination.learn(name, Evidence::Certificate);
    }
}

/// Dials and secures the server; on failure the alert that the server's fault would have caused the client.
async fn upstream_leg(
    connection: &Connection,
    name: &LeafName,
    judgement: &ConnectionJudgement,
    offers: &[Vec<u8>],
) -> Result<UpstreamTls, (AlertDescription, Refusal)> {
    let stream = Route::of(connection)
        .dial()
        .await
        .map_err(|fault| (AlertDescription::InternalError, Refusal::Fault(fault.to_string())))?;
    let offers: Vec<&[u8]> = offers.iter().map(Vec::as_slice).collect();
    let connector = &connection.relay().connector;
    connector
        .secure(stream, &name.to_string(), &judgement.tls, &offers)
        .await
        .map_err(|fault| (fault.alert(), Refusal::Fault(fault.to_string())))
}

async fn terminate(
    connection: &Connection,
    workload: Wire,
    bytes: BytesMut,
    name: &LeafName,
    judgement: &ConnectionJudgement,
    alpn: &[&[u8]],
) -> Result<Wire, Refusal> {
    let Wire::Plain(stream) = workload else {
        return Err(Refusal::Violation("TLS inside TLS".into()));
    };
    // A session may be resumed only by the same workload under the same policy and target.
    let policy = connection.relay().policy.load();
    let class = format!("{}/{}/{}", connection.identity.workload, policy.sha(), judgement.target);
    let how = Termination { name, workload: &connection.identity.workload, class: &class, alpn };
    let accepted = connection.relay().terminator.accept(Prefixed::new(bytes.freeze(), stream), how).await;
    accepted.map(Wire::from).map_err(|fault| Refusal::Violation(fault.to_string()))
}

/// The name a leaf is minted for: the SNI, else the recorded address.
fn leaf_name(connection: &Connection, sni: Option<&str>) -> Result<LeafName, Refusal> {
    let address = connection.destination.ip().to_string();
    LeafName::parse(sni.unwrap_or(&address))
        .ok_or_else(|| Refusal::Violation("the client asks for a server name that is none".into()))
}

/// Tells the client why, in TLS's own words, before the reset.
async fn shout(workload: &mut Wire, description: AlertDescription) {
    let _ = workload.write_all(&alert(description)).await;
    let _ = workload.flush().await;
}
