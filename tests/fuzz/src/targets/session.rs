//! Whole sessions: any bytes from both sides, in any pieces, neither panic nor loop.
//! It refuses a session that consumes more than it was given.

use std::sync::{Arc, OnceLock};

use weir_core::audit::{Receipt, Record};
use weir_core::destination::Destination;
use weir_core::identity::{Class, Identity, Process};
use weir_core::mask::Key;
use weir_core::policy::{Policy, SecretName};
use weir_core::session::{Appended, Host, Input, Now, Opening, Outbox, Session};
use weir_core::sql::Grammar;
use weir_sql::PgGrammar;

use super::policy::{APPDB, LLM, compile};

/// Turns of a conversation: `side, length, bytes…`, where an even side is the workload.
pub const HTTP: &[&[u8]] = &[
    b"\x00\x30GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n\x01\x28HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"\x00\x42POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n\x00\x0f5\r\nhello\r\n0\r\n\r\n",
];
pub const POSTGRES: &[&[u8]] = &[b"\x00\x14\x00\x00\x00\x14\x00\x03\x00\x00user\x00alice\x00\x00\
      \x01\x0fR\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I\x00\x0eQ\x00\x00\x00\x0dSELECT 1\x00"];

/// Calls without progress in a row before a session counts as stuck.
const IDLE_CALLS: usize = 3;

pub fn http(bytes: &[u8]) {
    static POLICY: OnceLock<Arc<Policy>> = OnceLock::new();
    converse(Session::http(opening(80)), bytes, policy(&POLICY, LLM));
}

pub fn postgres(bytes: &[u8]) {
    static POLICY: OnceLock<Arc<Policy>> = OnceLock::new();
    converse(Session::postgres(opening(5432)), bytes, policy(&POLICY, APPDB));
}

fn policy(cell: &OnceLock<Arc<Policy>>, text: &[u8]) -> Arc<Policy> {
    let compiled = || compile(&[std::str::from_utf8(text).unwrap_or_default()]).map(Arc::new);
    Arc::clone(cell.get_or_init(|| compiled().unwrap_or_else(|problems| panic!("{problems:?}"))))
}

fn opening(port: u16) -> Opening {
    let identity = Identity {
        workload: "fuzz".into(),
        owner: "nobody".into(),
        user: String::new(),
        groups: Vec::new(),
        class: Class::Service,
        process: Process::default(),
    };
    Opening {
        session_id: Arc::from("0123456789abcdef0123456789abcdef"),
        identity: Arc::new(identity),
        destination: Destination::new(([127, 0, 0, 1], port).into()),
        tls: false,
        login: None,
    }
}

fn converse(mut session: Session, bytes: &[u8], policy: Arc<Policy>) {
    let mut rim = Rim { policy, key: Key::new([7; 32]), records: 0 };
    let (mut out, mut mono_ns) = (Outbox::default(), 0);
    let (mut sides, mut rest) = ([Vec::new(), Vec::new()], bytes);
    while let [side, length, tail @ ..] = rest {
        let piece = &tail[..tail.len().min(usize::from(*length))];
        rest = &tail[piece.len()..];
        let side = usize::from(side % 2);
        sides[side].extend_from_slice(piece);
        let mut idle = 0;
        while out.close.is_none() && idle < IDLE_CALLS {
            mono_ns += 1_000_000;
            let now = Now { wall_ns: mono_ns, mono_ns };
            let pending = sides[side].as_slice();
            let input = if side == 0 { Input::Workload(pending) } else { Input::Server(pending) };
            let consumed = session.handle(now, input, &mut rim, &mut out);
            assert!(consumed <= pending.len(), "consumed more than there was");
            sides[side].drain(..consumed);
            idle = if consumed == 0 || sides[side].is_empty() { IDLE_CALLS } else { 0 };
            deliver(&mut out);
        }
        if out.close.is_some() {
            return;
        }
    }
    for input in [Input::Tick, Input::WorkloadClosed, Input::ServerClosed] {
        mono_ns += 60_000_000_000;
        session.handle(Now { wall_ns: mono_ns, mono_ns }, input, &mut rim, &mut out);
        deliver(&mut out);
    }
}

/// Sends both queues.
fn deliver(out: &mut Outbox) {
    let (up, down) = (out.to_server.as_slice().len(), out.to_workload.as_slice().len());
    out.to_server.sent(up);
    out.to_workload.sent(down);
}

/// A rim whose ledger is always written at once.
struct Rim {
    policy: Arc<Policy>,
    key: Key,
    records: u64,
}

impl Host for Rim {
    fn append(&mut self, _: &Record) -> Appended {
        self.records += 1;
        Appended::Done(Receipt::issue(self.records))
    }

    fn secret(&mut self, _: &SecretName) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        Err("there are no secrets here".into())
    }

    fn grammar(&self) -> &dyn Grammar {
        static GRAMMAR: OnceLock<PgGrammar> = OnceLock::new();
        GRAMMAR.get_or_init(PgGrammar::new)
    }

    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    fn mask_key(&self) -> &Key {
        &self.key
    }
}
