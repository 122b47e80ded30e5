//! The pump with real sessions, in-memory sockets, and a ledger and a desk made of vectors.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use weir_core::approval::{Answer, Question};
use weir_core::audit::{Durability, Kind, Receipt, Record};
use weir_core::destination::Destination;
use weir_core::identity::{Class, Identity, Process};
use weir_core::policy::{Policy, SecretName, Version};
use weir_core::session::{Appended, Host, Login, Now, Opening, Session};
use weir_core::sql::Grammar;
use weir_core::{mask, policy};
use zeroize::Zeroizing;

use super::super::surroundings::{Dialling, LoggingIn};
use super::*;

/// What happened around a pump, in order.
#[derive(Debug, Default)]
struct Seen {
    records: Vec<Record>,
    desk: Vec<String>,
}

struct Fake {
    seen: Rc<RefCell<Seen>>,
    policy: Arc<Policy>,
    key: mask::Key,
    grammar: weir_sql::PgGrammar,
    server: Option<DuplexStream>,
    /// The dial takes this long; `None`: nobody listens.
    dial: Option<u64>,
    /// Strict records never reach the disk.
    stuck: bool,
    pending: bool,
}

impl Host for Fake {
    fn append(&mut self, record: &Record) -> Appended {
        self.seen.borrow_mut().records.push(record.clone());
        match record.durability {
            Durability::Fast => Appended::Done(Receipt::issue(1)),
            Durability::Strict => {
                self.pending = true;
                Appended::Waiting
            }
        }
    }
    fn secret(&mut self, _: &SecretName) -> Result<Zeroizing<Vec<u8>>, String> {
        Err("no secrets here".into())
    }
    fn grammar(&self) -> &dyn Grammar {
        &self.grammar
    }
    fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }
    fn mask_key(&self) -> &mask::Key {
        &self.key
    }
}

impl Surroundings for Fake {
    type Server = DuplexStream;

    fn now(&self) -> Now {
        crate::clock::now()
    }
    fn dial(&mut self) -> Dialling<DuplexStream> {
        let (server, delay) = (self.server.take(), self.dial);
        Box::pin(async move {
            let Some(delay) = delay else { return Err(io::ErrorKind::ConnectionRefused.into()) };
            tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
            server.ok_or_else(|| io::Error::other("dialled twice"))
        })
    }
    fn login(&mut self, _: Login) -> LoggingIn<DuplexStream> {
        Box::pin(async { Err(io::Error::other("no logins here")) })
    }
    fn is_writing(&self) -> bool {
        self.pending
    }
    fn poll_recorded(&mut self, _: &mut Context<'_>) -> Poll<Result<Receipt, String>> {
        if !self.pending || self.stuck {
            return Poll::Pending;
        }
        self.pending = false;
        Poll::Ready(Ok(Receipt::issue(1)))
    }
    fn poll_policy(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    fn poll_revoked(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
    fn ask(&mut self, question: Question) {
        self.seen.borrow_mut().desk.push(format!("ask {}", question.id));
    }
    fn withdraw(&mut self) {
        self.seen.borrow_mut().desk.push("withdraw".into());
    }
    fn poll_answer(&mut self, _: &mut Context<'_>) -> Poll<Answer> {
        Poll::Pending
    }
}

const TARGET: &str = "target: {protocol: http, host: 127.0.0.1}\n";

struct Stage {
    client: DuplexStream,
    server: DuplexStream,
    seen: Rc<RefCell<Seen>>,
    pump: Pump<DuplexStream, Fake>,
}

fn stage(rules: &str, dial: Option<u64>, stuck: bool) -> Stage {
    let mut problems = Vec::new();
    let text = format!("policy: p\n{TARGET}{rules}");
    let documents = crate::bundle::yaml::documents(&"p.yaml".into(), &text, &mut problems);
    let version = Version { commit: "none".into(), sha: String::new() };
    let policy = Policy::compile(&documents, &policy::Surroundings::default(), version).unwrap();
    let identity = Identity {
        workload: "tests".into(),
        owner: String::new(),
        user: String::new(),
        groups: Vec::new(),
        class: Class::Service,
        process: Process::default(),
    };
    let session = Session::http(Opening {
        session_id: "5e55".into(),
        identity: Arc::new(identity),
        destination: Destination::new("127.0.0.1:80".parse().unwrap()),
        tls: false,
        login: None,
    });
    let (client, workload) = duplex(1 << 20);
    let (server, upstream) = duplex(1 << 20);
    let seen = Rc::<RefCell<Seen>>::default();
    let fake = Fake {
        seen: Rc::clone(&seen),
        policy: Arc::new(policy),
        key: mask::Key::new([7; 32]),
        grammar: weir_sql::PgGrammar::new(),
        server: Some(upstream),
        dial,
        stuck,
        pending: false,
    };
    let pump = Pump::new(session, fake, workload, BytesMut::new(), None);
    Stage { client, server, seen, pump }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

fn count(seen: &Rc<RefCell<Seen>>, kind: Kind) -> usize {
    seen.borrow().records.iter().filter(|record| record.kind == kind).count()
}

const ALLOW: &str = "default: allow\n";
const HOLD: &str = "rules: [{name: held, match: {http: {method: [GET]}}, then: {approve: {by: [\"group:dba\"], within: 1s}}}]\n";

#[tokio::test]
async fn requests_and_answers_pass_and_both_ends_close() {
    let Stage { mut client, mut server, seen, pump } = stage(ALLOW, Some(5), false);
    let talk = async {
        client.write_all(get("/a").as_bytes()).await.unwrap();
        let mut heard = vec![0; get("/a").len()];
        server.read_exact(&mut heard).await.unwrap();
        server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
        let mut answer = [0; 40];
        assert!(client.read(&mut answer).await.unwrap() > 0);
        client.shutdown().await.unwrap();
    };
    let (ended, ()) = tokio::join!(pump.run(), talk);
    assert_eq!(ended.end, End::Finished);
    assert_eq!((count(&seen, Kind::Verdict), count(&seen, Kind::Outcome)), (1, 1));
}

#[tokio::test]
async fn nothing_leaves_before_its_record_is_on_the_disk() {
    let Stage { client, server, seen, pump } = stage(ALLOW, None, true);
    let mut client = client;
    client.write_all(b"POST /b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), pump.run()).await;
    assert!(waited.is_err(), "the ledger has not answered");
    assert_eq!((count(&seen, Kind::Verdict), count(&seen, Kind::Outcome)), (1, 0));
    drop((client, server));
}

#[tokio::test]
async fn each_act_has_an_outcome_when_the_server_cannot_be_reached() {
    let Stage { mut client, server: _server, seen, pump } = stage(ALLOW, None, true);
    let pipelined = get("/a") + "POST /b HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
    client.write_all(pipelined.as_bytes()).await.unwrap();
    let ended = pump.run().await;
    assert_eq!(ended.end, End::Reset);
    assert_eq!((count(&seen, Kind::Verdict), count(&seen, Kind::Outcome)), (2, 2));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_not_waited_for_for_ever() {
    let Stage { client, mut server, seen, mut pump } = stage(ALLOW, Some(0), false);
    let (mut client_narrow, workload) = duplex(16);
    pump.workload = Leg::new(workload, Buffer::default());
    drop(client);
    let talk = async {
        client_narrow.write_all(get("/a").as_bytes()).await.unwrap();
        let mut heard = vec![0; get("/a").len()];
        server.read_exact(&mut heard).await.unwrap();
        server
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
            .await
            .unwrap();
    };
    let (ended, ()) = tokio::join!(pump.run(), talk);
    assert_eq!(ended.end, End::Reset);
    assert_eq!(count(&seen, Kind::Outcome), 1);
    drop(client_narrow);
}

#[tokio::test]
async fn the_next_question_is_put_after_the_last_one_has_left_the_desk() {
    let Stage { mut client, server: _server, seen, pump } = stage(HOLD, Some(0), false);
    client.write_all((get("/a") + &get("/b")).as_bytes()).await.unwrap();
    let _ = tokio::time::timeout(std::time::Duration::from_millis(1_500), pump.run()).await;
    let desk = seen.borrow().desk.clone();
    assert_eq!(desk.len(), 3, "{desk:?}");
    assert!(desk[0].starts_with("ask") && desk[1] == "withdraw" && desk[2].starts_with("ask"), "{desk:?}");
    assert_ne!(desk[0], desk[2]);
}

#[tokio::test]
async fn a_client_that_leaves_while_more_is_unread_takes_its_question_along() {
    let Stage { mut client, server: _server, seen, pump } = stage(HOLD, Some(0), false);
    client.write_all((get("/a") + &get("/b")).as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_millis(900), pump.run()).await;
    assert!(ended.is_ok(), "the question is still open");
    assert!(seen.borrow().desk.iter().any(|step| step == "withdraw"));
}

/// Whether this side has been told of the end while the other still holds its socket.
async fn is_told(side: &mut DuplexStream) -> bool {
    let mut byte = [0];
    let read = std::pin::pin!(side.read(&mut byte));
    matches!(tokio::time::timeout(std::time::Duration::ZERO, read).await, Ok(Ok(0)))
}

/// A FIN before the reset would tell either side that what it has is whole.
#[tokio::test]
async fn no_end_goes_before_a_reset() {
    for (close, told) in [(Close::Reset, false), (Close::Finish, true)] {
        let Stage { mut client, mut server, mut pump, .. } = stage(ALLOW, None, false);
        pump.server = pump.host.server.take().map(|stream| Leg::new(stream, Buffer::default()));
        (pump.out.finish_server, pump.out.finish_workload) = (true, true);
        pump.out.close = Some(close);
        let ended = pump.run().await;
        assert_eq!((is_told(&mut client).await, is_told(&mut server).await), (told, told), "{close:?}");
        drop(ended);
    }
}
