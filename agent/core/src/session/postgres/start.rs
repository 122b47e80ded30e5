//! Start-up: the first packet, authentication passed on as it is, or a login that weir makes in the client's stead.
//! It refuses replication, settings that change whose rights apply unless a rule allows them, and malformed packets.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::judge::{self, Ruled};
use super::{Close, Conversation, Phase, Turn, Wait, deny};
use crate::action::{Effect, Effects, Statement};
use crate::audit::{Decision, Durability, Kind};
use crate::limits::PG_AUTH_BYTES;
use crate::policy::Inject;
use crate::session::{Appended, Login};
use crate::wire::postgres::startup::{Opener, Startup, opener, options};
use crate::wire::postgres::{Violation, backend, header};

impl Conversation {
    pub(super) fn opening_packet(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        match opener(bytes) {
            Ok(None) => 0,
            Ok(Some((Opener::Cancel, taken))) => {
                self.cancel(turn, bytes.get(..taken).unwrap_or_default());
                taken
            }
            Ok(Some((Opener::Startup(startup), taken))) => {
                self.startup = startup;
                self.admit(turn, bytes.get(..taken).unwrap_or_default());
                taken
            }
            Err(Violation::Version) => {
                self.fatal(turn, "0A000", "unsupported frontend protocol: weir speaks 3.x");
                bytes.len()
            }
            Err(violation) => {
                self.protocol_error(turn, &format!("invalid start-up packet: {violation}"));
                bytes.len()
            }
        }
    }

    /// A CancelRequest acts on another connection; the key in it is the permission, the row says who asked.
    fn cancel(&mut self, turn: &mut Turn<'_>, packet: &[u8]) {
        let statement = Statement { text: "CANCEL".to_owned(), ..Statement::default() };
        let entry = super::record::Entry {
            number: self.scribe.number(),
            kind: Kind::Verdict,
            decision: Decision::Allowed,
            target: "",
            rule: "default",
            reason: "cancel request",
            statements: &[statement],
            bytes_up: packet.len() as u64,
            durability: Durability::Fast,
            approval: "",
            approver: "",
        };
        let record = self.scribe.entry(turn.now, &turn.rules, &entry);
        match turn.host.append(record) {
            Appended::Done(_) | Appended::Waiting => {
                turn.out.to_server.handshake(packet);
                self.phase = Phase::Cancel;
            }
            Appended::Refused(_) => self.end(turn, Close::Finish),
        }
    }

    /// The row of an opening that is refused; nothing leaves, so nothing waits for it.
    pub(super) fn record_refusal(&mut self, turn: &mut Turn<'_>, target: &str, rule: &str, reason: &str) {
        let entry = super::record::Entry {
            number: self.scribe.number(),
            kind: Kind::Verdict,
            decision: Decision::Denied,
            target,
            rule,
            reason,
            statements: &[],
            bytes_up: 0,
            durability: Durability::Fast,
            approval: "",
            approver: "",
        };
        let record = self.scribe.entry(turn.now, &turn.rules, &entry);
        // The refusal stands whatever the ledger says.
        let _ = turn.host.append(record);
        self.phase = Phase::Ended;
    }

    fn admit(&mut self, turn: &mut Turn<'_>, packet: &[u8]) {
        let settings = match settings_of(&self.startup) {
            Ok(settings) => settings,
            Err(violation) => {
                return self.protocol_error(turn, &format!("invalid start-up packet: {violation}"));
            }
        };
        if let Some((target, rule, message)) = turn.rules.refuses(&self.context(turn.now)) {
            self.record_refusal(turn, &target, &rule, &message);
            return self.fatal(turn, deny::DENIED, &message);
        }
        if self.startup.parameters.iter().any(|(name, value)| name == "replication" && !is_off(value)) {
            return self.fatal(
                turn,
                "0A000",
                "replication connections are refused: they carry whole tables unseen",
            );
        }
        for (name, value) in &settings {
            if !changes_rights(name) {
                continue;
            }
            let text = format!("SET {name} = '{}'", value.replace('\'', "''"));
            let statement =
                Statement { effects: Effects::of(&[Effect::Session]), text, ..Statement::default() };
            let ruling = judge::judge(turn.rules.as_ref(), &self.context(turn.now), &[statement]);
            if !matches!(ruling.map(|ruling| ruling.verdict), Some(Ruled::Allow(_))) {
                return self.fatal(
                    turn,
                    deny::DENIED,
                    &format!("the start-up setting {name} is not allowed by policy"),
                );
            }
        }
        match self.opening.login.as_deref() {
            Some(Inject::Login { user, password, .. }) => {
                turn.out.login = Some(Login {
                    user: user.clone(),
                    password: password.clone(),
                    parameters: login_parameters(&self.startup),
                });
                self.phase = Phase::Login;
            }
            Some(Inject::Header { .. }) => {
                self.fatal(turn, "28000", "the policy injects an HTTP header into a PostgreSQL connection");
            }
            None => {
                turn.out.to_server.handshake(packet);
                self.phase = Phase::Authentication { asked: false };
            }
        }
    }

    /// Passwords, SASL and GSS answers: one `p` for each question of the server.
    pub(super) fn authentication_answer(&mut self, turn: &mut Turn<'_>, bytes: &[u8], asked: bool) -> usize {
        // A client may send its first statements early; they wait until the server is ready.
        if !asked && bytes.first() != Some(&b'X') {
            self.waiting = Some(Wait::Login);
            return 0;
        }
        match header(bytes, answer_bound) {
            Ok(None) => 0,
            Ok(Some(header)) => {
                let Some(message) = bytes.get(..header.whole()) else { return 0 };
                turn.out.to_server.handshake(message);
                if header.tag == b'X' {
                    self.end(turn, Close::Finish);
                } else {
                    self.phase = Phase::Authentication { asked: false };
                }
                message.len()
            }
            Err(violation) => {
                self.client_violation(turn, violation);
                bytes.len()
            }
        }
    }

    pub(super) fn authentication_request(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Phase::Authentication { .. } = self.phase {
            let rest = bytes.get(taken..).unwrap_or_default();
            let header = match header(rest, request_bound) {
                Ok(Some(header)) => header,
                Ok(None) => return taken,
                Err(violation) => {
                    self.server_violation(turn, violation);
                    return bytes.len();
                }
            };
            let Some(message) = rest.get(..header.whole()) else { return taken };
            if let Err(violation) = self.relay_request(turn, header.tag, message) {
                self.server_violation(turn, violation);
                return bytes.len();
            }
            taken += message.len();
        }
        match self.phase {
            Phase::Open => taken + self.replies(turn, bytes.get(taken..).unwrap_or_default()),
            _ => taken,
        }
    }

    fn relay_request(&mut self, turn: &mut Turn<'_>, tag: u8, message: &[u8]) -> Result<(), Violation> {
        let body = message.get(5..).unwrap_or_default();
        match tag {
            b'R' => return self.relay_authentication(turn, message, body),
            b'S' => {
                let (name, value) = backend::parameter_status(body)?;
                self.settings.report(name, value);
            }
            b'Z' => {
                self.status = backend::ready(body)?;
                self.open(turn);
                return Ok(());
            }
            _ => {}
        }
        turn.out.to_workload.relay(message);
        Ok(())
    }

    fn relay_authentication(
        &mut self,
        turn: &mut Turn<'_>,
        message: &[u8],
        body: &[u8],
    ) -> Result<(), Violation> {
        let asked = match backend::authentication(body)? {
            backend::Authentication::Ok | backend::Authentication::SaslFinal => false,
            backend::Authentication::Asks => true,
            backend::Authentication::Sasl(mechanisms) => {
                // A client without TLS cannot bind to a channel, and libpq treats the offer as an attack.
                let plain = |name: &&[u8]| self.opening.tls || !name.ends_with(b"-PLUS");
                let kept: Vec<&[u8]> = mechanisms.iter().copied().filter(plain).collect();
                self.phase = Phase::Authentication { asked: true };
                if kept.len() == mechanisms.len() {
                    turn.out.to_workload.relay(message);
                } else if kept.is_empty() {
                    self.fatal(
                        turn,
                        "28000",
                        "the server offers only authentication bound to TLS, and this client uses none",
                    );
                } else {
                    self.scratch.out.clear();
                    backend::write_sasl(&mut self.scratch.out, &kept);
                    turn.out.to_workload.own(&self.scratch.out);
                }
                return Ok(());
            }
        };
        self.phase = Phase::Authentication { asked };
        turn.out.to_workload.relay(message);
        Ok(())
    }

    /// weir is logged in: the client is told that it is, with everything the server said.
    pub(super) fn logged_in(&mut self, turn: &mut Turn<'_>, messages: &[u8]) -> usize {
        if self.phase != Phase::Login {
            return 0;
        }
        self.reached = true;
        self.scratch.out.clear();
        let unknown: Vec<&str> = self
            .startup
            .parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with("_pq_."))
            .collect();
        if self.startup.minor > 0 || !unknown.is_empty() {
            backend::write_negotiation(&mut self.scratch.out, &unknown);
        }
        backend::write_authenticated(&mut self.scratch.out);
        turn.out.to_workload.own(&self.scratch.out);
        self.phase = Phase::Authentication { asked: false };
        let taken = self.authentication_request(turn, messages);
        if taken < messages.len() || self.phase != Phase::Open {
            self.server_violation(turn, Violation::Field("the login ended without ReadyForQuery"));
        }
        0
    }

    /// The server is ready for the first statement.
    fn open(&mut self, turn: &mut Turn<'_>) {
        self.phase = Phase::Open;
        self.guard = self.standing_masks(turn);
        let needs = self.is_guarded(turn);
        if needs {
            // The client sees the server ready when the catalog is read.
            self.read_catalog(turn);
        } else {
            self.show_ready(turn);
        }
    }

    fn show_ready(&mut self, turn: &mut Turn<'_>) {
        self.opened = true;
        self.scratch.out.clear();
        backend::write_ready(&mut self.scratch.out, self.status);
        turn.out.to_workload.own(&self.scratch.out);
    }
}

/// Every setting the client makes at start-up, those inside `options` too.
fn settings_of(startup: &Startup) -> Result<Vec<(String, String)>, Violation> {
    let mut settings = Vec::new();
    for (name, value) in &startup.parameters {
        match name.as_str() {
            "user" | "database" | "replication" => {}
            "options" => settings.extend(options(value)?),
            name => settings.push((name.to_ascii_lowercase(), value.clone())),
        }
    }
    Ok(settings)
}

/// Settings that change whose rights apply or what code runs; every other one is the session's own business.
fn changes_rights(name: &str) -> bool {
    matches!(
        name,
        "role"
            | "session_authorization"
            | "session_replication_role"
            | "row_security"
            | "session_preload_libraries"
            | "local_preload_libraries"
            | "dynamic_library_path"
            | "lo_compat_privileges"
            | "allow_system_table_mods"
            | "ignore_system_indexes"
    )
}

fn is_off(value: &str) -> bool {
    matches!(value, "" | "0")
        || ["false", "off", "no", "f", "n"].iter().any(|off| value.eq_ignore_ascii_case(off))
}

/// The client's parameters without its user; the database it meant is said outright, since the user changes.
fn login_parameters(startup: &Startup) -> Vec<(String, String)> {
    let mut parameters = Vec::from([("database".to_string(), startup.database.clone())]);
    parameters.extend(
        startup
            .parameters
            .iter()
            .filter(|(name, _)| {
                !matches!(name.as_str(), "user" | "database" | "replication") && !name.starts_with("_pq_.")
            })
            .cloned(),
    );
    parameters
}

fn answer_bound(tag: u8) -> Option<usize> {
    match tag {
        b'p' => Some(PG_AUTH_BYTES),
        b'X' => Some(0),
        _ => None,
    }
}

/// Messages of a server before it is ready.
fn request_bound(tag: u8) -> Option<usize> {
    matches!(tag, b'R' | b'S' | b'K' | b'N' | b'E' | b'Z' | b'v').then_some(PG_AUTH_BYTES)
}
