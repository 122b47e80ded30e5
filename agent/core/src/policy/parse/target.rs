//! `target:`, `tls:` and `inject:` of a policy file: where it applies, how the upstream leg is secured, who logs in.
//! It refuses credentials for targets whose server cannot prove who it is.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::glob::Glob;
use super::super::host::{Host, HostPattern};
use super::super::node::{Node, Value};
use super::super::problem::suggestion;
use super::super::rule::{FileInject, Target};
use super::super::{Engine, Inject, SecretName, TargetTls, TlsMode};
use super::{Keys, Lexicon, Reader};
use crate::action::Protocol;

pub(super) fn target(reader: &mut Reader<'_>, node: &Node) -> Option<Target> {
    let mut target = Target { protocol: None, hosts: Vec::new(), ports: Vec::new(), databases: Vec::new() };
    let mut hosted = false;
    for (key, line, value) in reader.map(node, &KEYS) {
        match key {
            "protocol" => target.protocol = Some(protocol(reader, value)?),
            "host" => {
                hosted = true;
                target.hosts = hosts(reader, value, "host");
            }
            "port" => target.ports = ports(reader, value),
            "database" => {
                let names = reader.texts(value, "database");
                target.databases = names.into_iter().map(|(_, name)| Glob::new(name)).collect();
                if node.field("protocol").and_then(Node::scalar) != Some("postgres") {
                    reader.problem(line, "database needs `protocol: postgres`");
                }
            }
            other => reader.problem(line, format!("`{other}` in target is read by nothing")),
        }
    }
    if !hosted {
        reader.problem(node.line, "target needs host: a name, \"*.name\", an address, a network, or \"*\"");
    }
    (!target.hosts.is_empty()).then_some(target)
}

pub(super) fn protocol(reader: &mut Reader<'_>, node: &Node) -> Option<Protocol> {
    let names = [
        ("postgres", Protocol::Postgres),
        ("http", Protocol::Http),
        ("tls", Protocol::Tls),
        ("ssh", Protocol::Ssh),
        ("opaque", Protocol::Opaque),
    ];
    if node.scalar() == Some("https") {
        reader
            .problem(node.line, "protocol https: write http; TLS is terminated where policy has to read it");
        return None;
    }
    reader.choice(node, "protocol", &names)
}

pub(super) fn hosts(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<HostPattern> {
    let mut patterns = Vec::new();
    for (line, text) in reader.texts(node, what) {
        match HostPattern::new(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(reason) => reader.problem(line, format!("{what}: {reason}")),
        }
    }
    patterns
}

pub(super) fn ports(reader: &mut Reader<'_>, node: &Node) -> Vec<u16> {
    let mut ports = Vec::new();
    for (line, text) in reader.texts(node, "port") {
        match text.parse::<u16>() {
            Ok(port) if port > 0 => ports.push(port),
            Ok(_) | Err(_) => reader.problem(line, format!("port {text:?} is no number from 1 to 65535")),
        }
    }
    ports
}

pub(super) fn tls(reader: &mut Reader<'_>, node: &Node) -> TargetTls {
    let mut tls = TargetTls::default();
    for (key, line, value) in reader.map(node, &TLS_KEYS) {
        match key {
            "engine" => {
                let engines = [("rustls", Engine::Rustls), ("boring", Engine::Boring)];
                tls.engine = reader.choice(value, "engine", &engines).unwrap_or_default();
            }
            "mode" => {
                let modes = [("auto", TlsMode::Auto), ("verify", TlsMode::Verify), ("off", TlsMode::Off)];
                tls.mode = reader.choice(value, "tls mode", &modes).unwrap_or_default();
            }
            "ca" => {
                tls.ca = reader.text(value, "ca").unwrap_or_default().into();
                if !tls.ca.starts_with('/') {
                    reader.problem(value.line, "ca is the absolute path of a PEM file");
                }
            }
            "name" => {
                tls.name = reader.text(value, "name").unwrap_or_default().to_ascii_lowercase();
                if !matches!(HostPattern::new(&tls.name), Ok(HostPattern { host: Host::Name(_), port: None }))
                {
                    reader.problem(
                        value.line,
                        "name is the host name that the server's certificate must carry",
                    );
                }
            }
            other => reader.problem(line, format!("`{other}` in tls is read by nothing")),
        }
    }
    if tls.mode == TlsMode::Off && !(tls.ca.is_empty() && tls.name.is_empty()) {
        reader.problem(node.line, "tls mode off verifies nothing, so ca and name can have no effect");
    }
    tls
}

/// `inject:` of a file: one map or a list of them.
pub(super) fn injects(
    reader: &mut Reader<'_>,
    node: &Node,
    target: &Target,
    tls: &TargetTls,
    lexicon: &Lexicon<'_>,
) -> Vec<FileInject> {
    let mut found = Vec::new();
    for item in reader.items(node, "inject") {
        let hosts = item.field("host").map_or_else(Vec::new, |node| hosts(reader, node, "host"));
        if let Some(inject) = credential(reader, item, target.protocol, lexicon) {
            provable(
                reader,
                item.line,
                &inject,
                if hosts.is_empty() { &target.hosts } else { &hosts },
                target,
                tls,
            );
            found.push(FileInject { inject: inject.into(), hosts });
        }
    }
    let logins = found.iter().filter(|own| matches!(*own.inject, Inject::Login { .. })).count();
    if logins > 1 {
        reader.problem(node.line, "a target has one login");
    }
    found
}

pub(super) fn credential(
    reader: &mut Reader<'_>,
    node: &Node,
    protocol: Option<Protocol>,
    lexicon: &Lexicon<'_>,
) -> Option<Inject> {
    let fields = reader.map(node, &INJECT_KEYS);
    let clear_text = fields.iter().find(|(key, ..)| *key == "clear_text").map(|(.., node)| *node);
    let mut field = |name: &str| {
        let node = fields.iter().find(|(key, ..)| *key == name).map(|(.., node)| *node)?;
        reader.text(node, name).map(|text| (node.line, text))
    };
    let (header, value) = (field("header"), field("value"));
    let (user, password) = (field("user"), field("password"));
    match (header, value, user, password) {
        (Some((line, name)), Some((value_line, value)), None, None) => {
            if protocol != Some(Protocol::Http) {
                reader.problem(line, "a header is injected only where the target says `protocol: http`");
            }
            let sound = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            if !sound || FRAMING.iter().any(|own| own.eq_ignore_ascii_case(name)) {
                reader.problem(line, format!("header {name:?} cannot be injected"));
                return None;
            }
            let (prefix, secret) = secret(reader, value_line, value, lexicon)?;
            Some(Inject::Header { name: name.into(), prefix, secret })
        }
        (None, None, Some((line, user)), Some((password_line, password))) => {
            if protocol != Some(Protocol::Postgres) {
                reader.problem(line, "a login is injected only where the target says `protocol: postgres`");
            }
            let (prefix, secret) = secret(reader, password_line, password, lexicon)?;
            if !prefix.is_empty() {
                reader.problem(password_line, "password is one secret, `provider#name`, and nothing else");
            }
            let clear_text = clear_text.and_then(|node| reader.boolean(node, "clear_text")).unwrap_or(false);
            Some(Inject::Login { user: user.into(), password: secret, clear_text })
        }
        (None, None, None, None) if fields.is_empty() => None,
        _ => {
            reader.problem(node.line, "inject takes either header and value, or user and password");
            None
        }
    }
}

/// `Bearer kv#name` → ("Bearer ", kv#name).
fn secret(
    reader: &mut Reader<'_>,
    line: u32,
    text: &str,
    lexicon: &Lexicon<'_>,
) -> Option<(String, SecretName)> {
    let (prefix, reference) = match text.rsplit_once(' ') {
        Some((before, reference)) => (format!("{before} "), reference),
        None => (String::new(), text),
    };
    let named = reference.split_once('#').filter(|(provider, name)| {
        super::class::is_name(provider)
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte))
    });
    let Some((provider, name)) = named else {
        // The text itself may be a secret that someone pasted here, so it is not repeated.
        reader.problem(line, "this must end in a secret, `provider#name`; secrets never stand in a policy");
        return None;
    };
    if let Some(known) = &lexicon.surroundings.providers
        && !known.iter().any(|own| own == provider)
    {
        let nearest = suggestion(provider, known.iter().map(String::as_str));
        reader
            .problem(line, format!("`secrets:` of the configuration has no provider {provider:?}{nearest}"));
    }
    Some((prefix, SecretName { provider: provider.into(), name: name.into() }))
}

/// A credential goes to a server that proves its name, or to one literal address and port.
fn provable(
    reader: &mut Reader<'_>,
    line: u32,
    inject: &Inject,
    hosts: &[HostPattern],
    target: &Target,
    tls: &TargetTls,
) {
    for pattern in hosts {
        let literal =
            pattern.is_literal() || (matches!(pattern.host, Host::Address(_)) && !target.ports.is_empty());
        match (&pattern.host, inject) {
            (Host::Any | Host::Network(..), _) => {
                reader.problem(
                    line,
                    "inject needs a target of names or of one address and port: not \"*\" or a network",
                );
            }
            (Host::Address(_), _) if !literal => {
                reader.problem(line, "inject to an address needs a port too, as in \"10.0.0.7:5432\"");
            }
            (Host::Name(_) | Host::Below(_), Inject::Login { .. }) if tls.mode != TlsMode::Verify => {
                reader.problem(line, "a login for a named server needs `tls: {mode: verify}`, so that the server proves its name first");
            }
            (
                Host::Address(_) | Host::Name(_) | Host::Below(_),
                Inject::Header { .. } | Inject::Login { .. },
            ) => {}
        }
    }
}

/// `inject` inside a rule's `then`.
pub(super) fn rule_injects(
    reader: &mut Reader<'_>,
    node: &Node,
    target: &Target,
    tls: &TargetTls,
    lexicon: &Lexicon<'_>,
) -> Vec<Inject> {
    let mut found = Vec::new();
    if let Value::Scalar(_) | Value::Null = node.value {
        reader.problem(node.line, "inject is a map: {header: NAME, value: \"Bearer provider#name\"}");
        return found;
    }
    for item in reader.items(node, "inject") {
        if let Some(host) = item.field("host") {
            reader.problem(
                host.line,
                "host in a rule's inject: write it in the rule's match, as dst: {host: …}",
            );
        }
        let Some(inject) = credential(reader, item, target.protocol, lexicon) else { continue };
        if let Inject::Login { .. } = inject {
            reader.problem(
                item.line,
                "a login is made before the first statement: write it as the file's `inject`, not in a rule",
            );
            continue;
        }
        provable(reader, item.line, &inject, &target.hosts, target, tls);
        found.push(inject);
    }
    found
}

const KEYS: Keys = Keys {
    of: "target",
    known: &["protocol", "host", "port", "database"],
    unbuilt: &[("kind", "llm, vector and kubernetes targets are plain `protocol: http` for now")],
};

const TLS_KEYS: Keys = Keys { of: "tls", known: &["engine", "mode", "ca", "name"], unbuilt: &[] };

const INJECT_KEYS: Keys = Keys {
    of: "inject",
    known: &["host", "header", "value", "user", "password", "clear_text"],
    unbuilt: &[("impersonate", ""), ("tls", "write the file's own `tls: {mode: verify}`")],
};

/// Headers that frame a message or name its target are never a credential's place.
const FRAMING: [&str; 8] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect"];
