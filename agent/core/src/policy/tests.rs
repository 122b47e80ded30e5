//! Policies from JSON (which is YAML's flow style): what they decide, what they refuse, what never changes.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::{format, vec};

use serde_json::{Value as Json, json};

use super::*;
use crate::action::{
    Access, Action, Context, Effect, Effects, Protocol, Relation, Request, Response, Statement,
};
use crate::audit::Decision;
use crate::destination::{Destination, Evidence};
use crate::identity::{Class, Identity, Process};

mod connections;
mod loading;
mod properties;
mod verdicts;

pub(super) fn node(json: &Json) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Scalar(value.to_string()),
        Json::Number(value) => Value::Scalar(value.to_string()),
        Json::String(text) => Value::Scalar(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(node).collect()),
        Json::Object(entries) => Value::Map(
            entries.iter().map(|(key, value)| (Key { line: 1, text: key.clone() }, node(value))).collect(),
        ),
    };
    Node { line: 1, value }
}

pub(super) fn compile(documents: &[Json], surroundings: &Surroundings) -> Result<Policy, Vec<String>> {
    let documents: Vec<Document> =
        documents.iter().map(|json| Document { file: Arc::from("p.yaml"), root: node(json) }).collect();
    let version = Version { commit: "none".into(), sha: "0".into() };
    Policy::compile(&documents, surroundings, version)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

pub(crate) fn policy(documents: &[Json]) -> Policy {
    compile(documents, &Surroundings::default()).unwrap_or_else(|problems| panic!("{}", problems.join("\n")))
}

/// A PostgreSQL file at 10.0.0.1 with these rules.
pub(super) fn database(rules: Json) -> Json {
    json!({"policy": "db", "target": {"protocol": "postgres", "host": "10.0.0.1"}, "rules": rules})
}

/// An HTTP file at 10.0.0.1 with these rules.
pub(super) fn api(rules: Json) -> Json {
    json!({"policy": "api", "target": {"protocol": "http", "host": "10.0.0.1"}, "rules": rules})
}

pub(super) struct World {
    pub(super) identity: Identity,
    pub(super) destination: Destination,
    pub(super) protocol: Protocol,
}

impl World {
    pub(super) fn new(protocol: Protocol, groups: &[&str]) -> World {
        World {
            identity: Identity {
                workload: "app".into(),
                owner: String::new(),
                user: "ana".into(),
                groups: groups.iter().map(ToString::to_string).collect(),
                class: Class::Service,
                process: Process { exe: "/usr/bin/psql".into(), uid: 1000, ..Process::default() },
            },
            destination: Destination::new("10.0.0.1:5432".parse().unwrap()),
            protocol,
        }
    }

    pub(super) fn to(mut self, address: &str, names: &[(&str, Evidence)]) -> World {
        self.destination = Destination::new(address.parse().unwrap());
        names.iter().for_each(|(name, evidence)| self.destination.learn(name, *evidence));
        self
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            identity: &self.identity,
            destination: &self.destination,
            protocol: self.protocol,
            database: "",
            login: "",
            // 2026-11-20T10:00:00Z, a Friday.
            wall_ns: 1_795_168_800 * 1_000_000_000,
        }
    }

    pub(super) fn sql(&self, policy: &Policy, statement: &Statement) -> Judgement {
        policy.judge(&self.context(), &Action::Sql(statement))
    }

    pub(super) fn http(&self, policy: &Policy, method: &str, path: &str, body: Option<&[u8]>) -> Judgement {
        let host = self.destination.host().unwrap_or_default();
        let request = Request { method, host, path, other_paths: &[], sent_path: path, query: "", body };
        policy.judge(&self.context(), &Action::Http(&request))
    }
}

pub(super) fn relation(name: &str, access: Access) -> Relation {
    let (schema, name) = match name.split_once('.') {
        Some((schema, name)) => (Some(schema.into()), name),
        None => (None, name),
    };
    Relation { schema, name: name.into(), oid: 0, access }
}

pub(super) fn statement(effects: &[Effect], relations: &[(&str, Access)]) -> Statement {
    Statement {
        effects: Effects::of(effects),
        relations: relations.iter().map(|(name, access)| relation(name, *access)).collect(),
        ..Statement::default()
    }
}

/// `allow`, `deny`, `approve`, and the rule that decided.
pub(super) fn told(judgement: &Judgement) -> (&'static str, &str) {
    let decision = match judgement.verdict {
        Verdict::Allow(_) => "allow",
        Verdict::Deny { .. } => "deny",
        Verdict::Approve(_) => "approve",
    };
    (decision, &judgement.rule)
}
