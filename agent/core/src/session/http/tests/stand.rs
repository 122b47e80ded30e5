//! A policy, a ledger and a rim of our own for the tests: what they say is set by each test.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::super::judge::Judge;
use super::super::{Conversation, Wake};
use crate::action::{Action, Context, Request};
use crate::approval::{Answer, Question};
use crate::audit::{Durability, Receipt, Record};
use crate::destination::{Destination, Evidence};
use crate::detect::{ClassId, ClassSet, Finding};
use crate::identity::{Class, Identity, Process};
use crate::mask::{Key, Mask};
use crate::policy::{
    Approval, Filter, Inject, Judgement, MaskPlan, MaskRule, Needs, Permit, Policy, SecretName, Verdict,
    Would,
};
use crate::session::{Appended, Host, Input, Now, Opening, Outbox};
use crate::sql::Grammar;

pub const SECRET: &str = "4111-1111";
pub const CREDENTIAL: &str = "s3cr3t-value";

/// Denies paths with `deny`, asks for `approve`, refuses bodies with `badword`; classes are `card` (the text
/// [`SECRET`]) and `ssn` (the JSON key).
#[derive(Debug, Default, Clone)]
pub struct FakeJudge {
    pub needs: Needs,
    pub request_masks: bool,
    pub response_masks: bool,
    pub inject: bool,
    pub durability: Durability,
    pub monitor: bool,
    pub mask: Option<Mask>,
}

/// A permit as an approval would give it.
pub fn permit() -> Permit {
    let question = Question {
        id: "q".into(),
        request_id: "r".into(),
        digest: [0; 32],
        rule: Arc::from("rule"),
        message: Arc::from(""),
        by: Vec::new(),
        summary: String::new(),
        effects: Vec::new(),
        relations: Vec::new(),
        asked_ns: 0,
        expires_ns: 1,
    };
    let answer = Answer {
        id: "q".into(),
        digest: [0; 32],
        granted: true,
        approver: "a".into(),
        reason: String::new(),
    };
    Policy::grant(&question, &answer).expect("a grant")
}

impl Judge for FakeJudge {
    fn judge(&self, context: &Context<'_>, action: &Action<'_>) -> Judgement {
        assert_eq!(context.identity.workload, "tests");
        let has =
            |body: Option<&[u8]>| body.is_some_and(|body| String::from_utf8_lossy(body).contains("badword"));
        let deny = || Verdict::Deny { message: Arc::from("not \"here\"\n") };
        let verdict = match action {
            Action::Http(request) if request.path.contains("approve") => {
                Verdict::Approve(Arc::new(Approval {
                    by: vec!["group:x".into()],
                    within_ns: 1_000,
                    message: Arc::from("please"),
                }))
            }
            Action::Http(request) if request.path.contains("deny") || has(request.body) => deny(),
            Action::Response(response) if has(response.body) => deny(),
            _ => Verdict::Allow(permit()),
        };
        let rules = |on: bool| {
            let rule = |class| MaskRule {
                class: ClassId(class),
                mask: self.mask.unwrap_or(Mask::Redact),
                filter: Filter::default(),
                rule: Arc::from("hide"),
            };
            if on { vec![rule(0), rule(1)] } else { Vec::new() }
        };
        let masks = MaskPlan { request: rules(self.request_masks), response: rules(self.response_masks) };
        let header = Inject::Header {
            name: "Authorization".into(),
            prefix: "Bearer ".into(),
            secret: SecretName { provider: "kv".into(), name: "key".into() },
        };
        Judgement {
            verdict,
            target: Arc::from("target"),
            rule: Arc::from("rule"),
            masks: Arc::new(masks),
            injects: if self.inject { vec![Arc::new(header)] } else { Vec::new() },
            durability: self.durability,
            would: self
                .monitor
                .then(|| Would { decision: crate::audit::Decision::WouldDeny, rule: Arc::from("strict") }),
        }
    }

    fn needs(&self, _: &Context<'_>, _: &Request<'_>) -> Needs {
        self.needs
    }

    fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>) {
        assert!(wanted.0.contains(&ClassId(0)));
        let positions = memchr::memmem::find_iter(text, SECRET.as_bytes());
        found.extend(positions.map(|start| Finding { class: ClassId(0), start, end: start + SECRET.len() }));
    }

    fn json_classes(&self, keys: &[Cow<'_, str>], classes: &mut Vec<ClassId>) {
        if keys.last().is_some_and(|key| key == "ssn") {
            classes.push(ClassId(1));
        }
    }

    fn class_name(&self, class: ClassId) -> &str {
        match class.0 {
            0 => "card",
            1 => "ssn",
            _ => "",
        }
    }

    fn masked(&self, class: ClassId, mask: Mask, _: &str, _: &Key) -> Option<String> {
        (mask != Mask::Nullify).then(|| ["[", &self.class_name(class).to_uppercase(), "]"].concat())
    }

    fn commit(&self) -> &str {
        "c0ffee"
    }

    fn sha(&self) -> &str {
        "abc"
    }
}

/// A ledger that answers as it is told.
#[derive(Debug, Default)]
pub struct Ledger {
    pub records: Vec<Record>,
    pub full: bool,
    pub no_secret: bool,
}

impl Host for Ledger {
    fn append(&mut self, record: &Record) -> Appended {
        if self.full {
            return Appended::Refused("full".into());
        }
        self.records.push(record.clone());
        match record.durability {
            Durability::Fast => Appended::Done(Receipt::issue(self.records.len() as u64)),
            Durability::Strict => Appended::Waiting,
        }
    }

    fn secret(&mut self, _: &SecretName) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        if self.no_secret { Err("no such secret".into()) } else { Ok(CREDENTIAL.as_bytes().to_vec().into()) }
    }

    fn grammar(&self) -> &dyn Grammar {
        unreachable!("HTTP has no grammar")
    }

    fn policy(&self) -> Arc<Policy> {
        unreachable!("the tests bring their own judge")
    }

    fn mask_key(&self) -> &Key {
        static KEY: std::sync::OnceLock<Key> = std::sync::OnceLock::new();
        KEY.get_or_init(|| Key::new([1; 32]))
    }
}

pub fn opening(names: &[(&str, Evidence)], tls: bool) -> Opening {
    let mut destination = Destination::new("10.0.0.1:80".parse().unwrap());
    for (name, evidence) in names {
        destination.learn(name, *evidence);
    }
    let identity = Identity {
        workload: "tests".into(),
        owner: "owner".into(),
        user: String::new(),
        groups: Vec::new(),
        class: Class::Service,
        process: Process::default(),
    };
    Opening { session_id: Arc::from("5e55"), identity: Arc::new(identity), destination, tls, login: None }
}

/// A conversation with its rim: what was read and not consumed is kept and offered again.
pub struct Stand {
    pub conversation: Conversation,
    pub judge: Arc<dyn Judge>,
    pub ledger: Ledger,
    pub out: Outbox,
    pub upstream: Vec<u8>,
    pub downstream: Vec<u8>,
    pub asked: Vec<Question>,
    pub now: u64,
    workload: Vec<u8>,
    server: Vec<u8>,
    durable: usize,
}

impl Stand {
    pub fn new(judge: FakeJudge) -> Self {
        Self::with(judge, opening(&[], false))
    }

    pub fn with(judge: FakeJudge, opening: Opening) -> Self {
        Self {
            conversation: Conversation::new(opening),
            judge: Arc::new(judge),
            ledger: Ledger::default(),
            out: Outbox::default(),
            upstream: Vec::new(),
            downstream: Vec::new(),
            asked: Vec::new(),
            now: 0,
            workload: Vec::new(),
            server: Vec::new(),
            durable: 0,
        }
    }

    pub fn workload(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.workload.extend_from_slice(bytes.as_ref());
        self.run();
        self
    }

    pub fn server(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.server.extend_from_slice(bytes.as_ref());
        self.run();
        self
    }

    pub fn input(&mut self, input: Input<'_>) -> &mut Self {
        self.step(input);
        self.run();
        self
    }

    pub fn answer(&mut self, granted: bool) -> &mut Self {
        let question = self.asked.last().expect("a question").clone();
        self.input(Input::Answered(Answer {
            id: question.id,
            digest: question.digest,
            granted,
            approver: "bob".into(),
            reason: "because".into(),
        }))
    }

    pub fn up(&self) -> String {
        String::from_utf8_lossy(&self.upstream).into_owned()
    }

    pub fn down(&self) -> String {
        String::from_utf8_lossy(&self.downstream).into_owned()
    }

    /// Offers what is left over until nothing moves.
    fn run(&mut self) {
        loop {
            let state = |stand: &Self| {
                (stand.workload.len(), stand.server.len(), stand.ledger.records.len(), stand.upstream.len())
            };
            let before = state(self);
            let bytes = core::mem::take(&mut self.workload);
            let taken = self.step(Input::Workload(&bytes));
            self.workload = bytes[taken..].to_vec();
            let bytes = core::mem::take(&mut self.server);
            let taken = self.step(Input::Server(&bytes));
            self.server = bytes[taken..].to_vec();
            if before == state(self) {
                return;
            }
        }
    }

    fn step(&mut self, input: Input<'_>) -> usize {
        let now = Now { wall_ns: 1_000_000 + self.now, mono_ns: self.now };
        let judge = Arc::clone(&self.judge);
        let mut wake = Wake { now, host: &mut self.ledger, judge: &judge, out: &mut self.out };
        let taken = self.conversation.advance(&mut wake, input);
        self.upstream.extend_from_slice(self.out.to_server.as_slice());
        self.downstream.extend_from_slice(self.out.to_workload.as_slice());
        self.out.to_server.sent(usize::MAX);
        self.out.to_workload.sent(usize::MAX);
        self.asked.extend(self.out.ask.take());
        // The disk: every strict record is answered once, in the next wake.
        let strict =
            self.ledger.records.iter().filter(|record| record.durability == Durability::Strict).count();
        if strict > self.durable {
            self.durable = strict;
            self.step(Input::Recorded(Ok(Receipt::issue(strict as u64))));
        }
        taken
    }

    /// `kind decision status reason` of each record.
    pub fn story(&self) -> Vec<String> {
        let line = |record: &Record| {
            let name = |value: &dyn core::fmt::Debug| alloc::format!("{value:?}").to_lowercase();
            let parts = [name(&record.kind), name(&record.decision), record.status.to_owned()];
            parts.join(" ").trim().to_string()
        };
        self.ledger.records.iter().map(line).collect()
    }
}
