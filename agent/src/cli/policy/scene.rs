//! A made-up act for explanations and tests: who, where, when and what. Nothing here opens a connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use weir_core::action::{Context, Protocol, Request};
use weir_core::destination::{Destination, Evidence};
use weir_core::identity::{Class, Identity, Process};
use weir_core::sql::{Catalog, Table, TableColumn};
use weir_core::wire::http1::Readings;

use crate::config::Config;

/// Everything around an act.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    pub(super) identity: Identity,
    pub(super) destination: Destination,
    pub(super) protocol: Protocol,
    pub(super) database: String,
    pub(super) wall_ns: u64,
}

impl Scene {
    pub(super) fn context(&self) -> Context<'_> {
        Context {
            identity: &self.identity,
            destination: &self.destination,
            protocol: self.protocol,
            database: &self.database,
            login: "",
            wall_ns: self.wall_ns,
        }
    }
}

/// Who acts, as given on the command line or in a test.
#[derive(Debug, Clone, Default)]
pub(super) struct Actor {
    pub(super) workload: String,
    pub(super) user: String,
    pub(super) groups: Vec<String>,
    pub(super) exe: String,
    pub(super) uid: u32,
}

impl Actor {
    /// Fills in what the configuration knows: the person of a uid, the groups of a person, the owner of a workload.
    pub(super) fn identity(self, config: Option<&Config>) -> Identity {
        let people = config.map_or(&[][..], |config| &config.people);
        let person = match self.user.is_empty() {
            true => people.iter().find(|person| person.uids.contains(&self.uid)),
            false => people.iter().find(|person| person.user == self.user),
        };
        let mut groups = self.groups;
        groups.extend(person.map(|person| person.groups.clone()).unwrap_or_default());
        groups.sort();
        groups.dedup();
        let workload =
            config.and_then(|config| config.workloads.iter().find(|own| own.name == self.workload));
        Identity {
            owner: workload.map(|workload| workload.owner.clone()).unwrap_or_default(),
            workload: self.workload,
            user: person.map_or(self.user, |person| person.user.clone()),
            groups,
            class: Class::Service,
            process: Process { uid: self.uid, exe: self.exe, ..Process::default() },
        }
    }
}

/// `HOST:PORT`; a name counts as proved by certificate, at an address reserved for documentation.
pub(super) fn destination(text: &str) -> anyhow::Result<Destination> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Destination::new(address));
    }
    let (host, port) = text.rsplit_once(':').context("a destination is HOST:PORT")?;
    let port: u16 =
        port.parse().ok().filter(|port| *port > 0).context("a port is a number from 1 to 65535")?;
    at(host, port)
}

pub(super) fn at(host: &str, port: u16) -> anyhow::Result<Destination> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(Destination::new(SocketAddr::new(address, port)));
    }
    if host.is_empty() {
        bail!("a destination is HOST:PORT");
    }
    let mut destination = Destination::new(SocketAddr::new(SAMPLE.into(), port));
    destination.learn(host, Evidence::Certificate);
    Ok(destination)
}

/// A request line in parts: `GET /path?query` or `GET https://host/path?query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    method: String,
    host: String,
    path: String,
    other_paths: Vec<String>,
    sent_path: String,
    query: String,
}

impl Line {
    pub(super) fn parse(text: &str, destination: &Destination) -> anyhow::Result<Line> {
        let (method, url) =
            text.trim().split_once(' ').context("a request is METHOD URL, as in 'GET /v1/users'")?;
        let url = url.trim();
        let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let (host, target) = match rest {
            Some(rest) => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                let (authority, target) = rest.split_at(end);
                let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
                (host.to_ascii_lowercase(), target)
            }
            None => (destination.host().map_or_else(|| destination.ip().to_string(), Into::into), url),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() { "/" } else { path };
        if !path.starts_with('/') {
            bail!("the path {path:?} does not begin with `/`");
        }
        let readings = Readings::of(path).map_err(|violation| anyhow::anyhow!("{path:?}: {violation}"))?;
        Ok(Line {
            method: method.to_ascii_uppercase(),
            host,
            path: readings.path,
            other_paths: readings.others,
            sent_path: path.into(),
            query: query.into(),
        })
    }

    pub(super) fn request<'a>(&'a self, body: Option<&'a [u8]>) -> Request<'a> {
        Request {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            other_paths: &self.other_paths,
            sent_path: &self.sent_path,
            query: &self.query,
            body,
        }
    }
}

/// RFC 3339, such as `2026-11-20T03:00:00+01:00`.
pub(super) fn time(text: &str) -> anyhow::Result<u64> {
    let stamp: jiff::Timestamp =
        text.parse().with_context(|| format!("{text:?} is no time such as 2026-11-20T03:00:00+01:00"))?;
    u64::try_from(stamp.as_nanosecond()).context("a time after 1970")
}

pub(super) fn now() -> anyhow::Result<u64> {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).context("the clock of this host is before 1970")
}

/// Tables (`schema.table` and their columns) → a catalog with `public` on the search path.
pub(super) fn catalog(tables: &[(String, Vec<String>)]) -> anyhow::Result<Option<Arc<Catalog>>> {
    if tables.is_empty() {
        return Ok(None);
    }
    let mut catalog =
        Catalog { search_path: vec!["pg_catalog".into(), "public".into()], ..Catalog::default() };
    for (oid, (name, columns)) in (FIRST_OID..).zip(tables) {
        let (schema, table) =
            name.split_once('.').with_context(|| format!("{name:?} is not schema.table"))?;
        let columns = (1..).zip(columns).map(|(attribute, name)| TableColumn {
            attribute,
            name: name.clone(),
            type_oid: TEXT_OID,
        });
        catalog.by_name.insert((schema.into(), table.into()), oid);
        let table = Table {
            schema: schema.into(),
            name: table.into(),
            kind: 'r',
            columns: columns.collect(),
            ..Table::default()
        };
        catalog.relations.insert(oid, table);
    }
    // Equal catalogs share an epoch; made-up ones are never mixed with real ones.
    catalog.epoch = 1 + tables.len() as u64;
    Ok(Some(Arc::new(catalog)))
}

/// RFC 5737: stands for a host whose address does not matter.
const SAMPLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// `FirstNormalObjectId` of PostgreSQL.
const FIRST_OID: u32 = 16_384;
/// `text` in pg_type.
const TEXT_OID: u32 = 25;
