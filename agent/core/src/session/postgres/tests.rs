//! The conversation against fakes: a policy of three words, a grammar of a dozen, and a rig that plays the rim.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::collections::BTreeMap;
use std::{format, panic, vec};

use super::judge::Rules;
use super::{Conversation, Phase};
use crate::action::*;
use crate::approval::{Answer, Question};
use crate::audit::{Decision, Durability, Kind, Receipt, Record};
use crate::destination::Destination;
use crate::detect::{ClassId, ClassSet, Finding};
use crate::identity::{Class, Identity, Process};
use crate::mask::{Key, Mask};
use crate::policy::*;
use crate::session::{Appended, Close, Host, Input, Login, Now, Opening, Outbox};
use crate::sql::{Catalog, CatalogKey, Dialect, Grammar};
use crate::wire::postgres::{backend, cstr, frontend, message};

mod masks;
mod pills;
mod splits;
mod starts;

/// Denies what says `drop`, asks about `delete`, allows the rest; `strict` makes every record wait.
#[derive(Debug, Default)]
pub struct Words {
    pub plan: Arc<MaskPlan>,
    pub catalog: bool,
    pub strict: bool,
    pub deny_all: bool,
    classes: ClassSet,
}

impl Words {
    pub fn masking() -> Words {
        let rule = MaskRule {
            class: ClassId(0),
            mask: Mask::Redact,
            filter: Filter::default(),
            rule: Arc::from("hide"),
        };
        Words {
            plan: Arc::new(MaskPlan { request: vec![], response: vec![rule] }),
            catalog: true,
            classes: ClassSet(vec![ClassId(0)]),
            ..Words::default()
        }
    }
}

pub fn permit() -> Permit {
    let (question, answer) = question_and_answer();
    Policy::grant(&question, &answer).expect("an answer that fits its question")
}

fn question_and_answer() -> (Question, Answer) {
    let question = Question {
        id: "q".into(),
        request_id: "r".into(),
        digest: [1; 32],
        rule: Arc::from("r"),
        message: Arc::from("m"),
        by: vec!["user:ann".into()],
        summary: String::new(),
        effects: vec![],
        relations: vec![],
        asked_ns: 0,
        expires_ns: u64::MAX,
    };
    let answer = Answer {
        id: "q".into(),
        digest: [1; 32],
        granted: true,
        approver: "ann".into(),
        reason: String::new(),
    };
    (question, answer)
}

impl Rules for Words {
    fn refuses(&self, context: &Context<'_>) -> Option<(Arc<str>, Arc<str>, Arc<str>)> {
        let refused = context.database == "forbidden";
        refused.then(|| ("".into(), "default".into(), "no policy targets this database".into()))
    }

    fn judge(&self, _: &Context<'_>, action: &Action<'_>) -> Judgement {
        let Action::Sql(statement) = action else { panic!("only SQL is judged here") };
        let (verdict, rule) = if self.deny_all || statement.text.contains("drop") {
            (Verdict::Deny { message: Arc::from("no drops here") }, "no-drops")
        } else if statement.effects.has(Effect::Unknown) {
            (Verdict::Deny { message: Arc::from("unknown") }, "default")
        } else if statement.text.contains("delete") {
            let approval =
                Approval { by: vec!["group:dba".into()], within_ns: 1_000, message: Arc::from("ask first") };
            (Verdict::Approve(Arc::new(approval)), "ask-deletes")
        } else {
            (Verdict::Allow(permit()), "all")
        };
        Judgement {
            verdict,
            target: Arc::from("db"),
            rule: Arc::from(rule),
            masks: self.plan.clone(),
            injects: vec![],
            durability: if self.strict { Durability::Strict } else { Durability::Fast },
            would: None,
        }
    }
    fn needs(&self, _: &Context<'_>) -> Needs {
        Needs { catalog: self.catalog, ..Needs::default() }
    }
    fn protected_columns(&self, catalog: &Catalog) -> ProtectedColumns {
        let ssn = |(oid, table): (&u32, &crate::sql::Table)| -> Vec<(Column, ClassId)> {
            let named = table.columns.iter().filter(|column| column.name == "ssn");
            named.map(|c| (Column { relation: *oid, attribute: c.attribute }, ClassId(0))).collect()
        };
        ProtectedColumns { columns: catalog.relations.iter().flat_map(ssn).collect() }
    }
    fn classes_named(&self, column: &str) -> Vec<ClassId> {
        if column == "ssn" { vec![ClassId(0)] } else { vec![] }
    }
    fn class_name(&self, _: ClassId) -> &str {
        "ssn"
    }
    fn classes(&self) -> &ClassSet {
        &self.classes
    }
    /// `SSN-` and the digits after it.
    fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>) {
        if wanted.0.is_empty() {
            return;
        }
        let mut from = 0;
        while let Some(at) = text[from..].windows(4).position(|window| window == b"SSN-") {
            let start = from + at;
            let end = start + 4 + text[start + 4..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            found.push(Finding { class: ClassId(0), start, end });
            from = end;
        }
    }
    fn mask(&self, rule: &MaskRule, _: &str, _: &Key) -> Option<String> {
        (rule.mask != Mask::Nullify).then(|| "[SSN]".into())
    }
    fn grant(&self, question: &Question, answer: &Answer) -> Option<Permit> {
        (answer.granted && answer.digest == question.digest).then(permit)
    }
    fn commit(&self) -> &str {
        "c0ffee"
    }
    fn sha(&self) -> &str {
        "5ha"
    }
}

/// Knows the words these tests use; `t` is table 100 (id, ssn), `v` what `upper(ssn)` would be.
#[derive(Debug, Default)]
pub struct Dozen;

impl Grammar for Dozen {
    fn analyse(&self, sql: &str, _: Dialect, catalog: Option<&Arc<Catalog>>) -> Arc<Vec<Statement>> {
        let parts = sql.split(';').map(str::trim).filter(|part| !part.is_empty() && !part.starts_with("--"));
        Arc::new(parts.map(|part| statement(part, catalog)).collect())
    }
    fn view(&self, _: &Arc<Catalog>, _: u32) -> Arc<Vec<Output>> {
        Arc::default()
    }
}

fn statement(text: &str, catalog: Option<&Arc<Catalog>>) -> Statement {
    let word = text.split([' ', '(']).next().unwrap_or_default().to_ascii_lowercase();
    let effect = match word.as_str() {
        "select" | "fetch" | "execute" | "declare" => Effect::Read,
        "insert" => Effect::Insert,
        "delete" => Effect::Delete,
        "drop" => Effect::Drop,
        "create" => Effect::Create,
        "set" | "prepare" | "deallocate" => Effect::Session,
        "begin" | "commit" | "rollback" => Effect::Txn,
        "copy" if text.contains("from") => Effect::CopyIn,
        "copy" => Effect::CopyOut,
        _ => Effect::Unknown,
    };
    let touches = text.split(' ').any(|word| word == "t") && effect != Effect::Session;
    let oid = if catalog.is_some_and(|catalog| catalog.find(None, "t").is_some()) { 100 } else { 0 };
    let relation = Relation { schema: None, name: "t".into(), oid, access: Access::Read };
    let column = |attribute| Column { relation: 100, attribute };
    let output = |name: &str, kind, sources| Output { name: name.into(), kind, sources };
    let outputs = match () {
        () if effect != Effect::Read => None,
        () if oid == 0 && touches => None,
        () if text.contains("upper(ssn)") => {
            Some(vec![output("upper", OutputKind::Derived, vec![column(2)])])
        }
        () if text.contains("count(") => Some(vec![output("count", OutputKind::Neutral, vec![])]),
        () if text.contains("mystery") => Some(vec![output("mystery", OutputKind::Opaque, vec![])]),
        () if touches => Some(vec![
            output("id", OutputKind::Direct, vec![column(1)]),
            output("ssn", OutputKind::Direct, vec![column(2)]),
        ]),
        () => Some(vec![output("?column?", OutputKind::Neutral, vec![])]),
    };
    let named = match word.as_str() {
        "prepare" => text.split(' ').nth(1).map(|name| Named::Prepare(name.into())),
        "execute" => text.split(' ').nth(1).map(|name| Named::Execute(name.into())),
        "declare" => text.split(' ').nth(1).map(|name| Named::Declare(name.into())),
        "fetch" => text.split(' ').nth(1).map(|name| Named::Fetch(name.into())),
        _ => None,
    };
    let effect = match &named {
        Some(Named::Execute(_) | Named::Fetch(_)) => Effect::Unknown,
        Some(Named::Prepare(_)) if text.contains("delete") => Effect::Delete,
        Some(_) | None => effect,
    };
    Statement {
        effects: Effects::of(&[effect]),
        named,
        relations: if touches { vec![relation] } else { vec![] },
        opaque: effect == Effect::Unknown,
        outputs,
        text: text.into(),
        ..Statement::default()
    }
}

/// Keeps every record; `waiting` makes strict ones wait.
pub struct Desk {
    pub records: Vec<Record>,
    pub refuse: bool,
    /// What sessions of this agent have read.
    pub catalogs: hashbrown::HashMap<CatalogKey, Arc<Catalog>>,
    grammar: Dozen,
    key: Key,
}

impl Host for Desk {
    fn append(&mut self, record: &Record) -> Appended {
        if self.refuse {
            return Appended::Refused("full".into());
        }
        self.records.push(record.clone());
        match record.durability {
            Durability::Fast => Appended::Done(Receipt::issue(1)),
            Durability::Strict => Appended::Waiting,
        }
    }
    fn secret(&mut self, _: &SecretName) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
        Err("no secrets here".into())
    }
    fn grammar(&self) -> &dyn Grammar {
        &self.grammar
    }
    fn policy(&self) -> Arc<Policy> {
        panic!("these tests hand their rules in")
    }
    fn mask_key(&self) -> &Key {
        &self.key
    }
    fn known_catalog(&self, key: &CatalogKey) -> Option<Arc<Catalog>> {
        self.catalogs.get(key).cloned()
    }
    fn share_catalog(&mut self, key: CatalogKey, catalog: &Arc<Catalog>) {
        self.catalogs.insert(key, catalog.clone());
    }
}

/// Plays the rim: keeps what is not consumed, sends what is queued.
pub struct Rig {
    pub conversation: Conversation,
    pub rules: Arc<dyn Rules>,
    pub desk: Desk,
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
    pub asked: Vec<Question>,
    pub withdrawn: bool,
    pub login: Option<Login>,
    pub close: Option<Close>,
    pub mono: u64,
    client: Vec<u8>,
    server: Vec<u8>,
    out: Outbox,
}

impl Rig {
    pub fn new(rules: Words) -> Rig {
        Rig::with(rules, None)
    }

    pub fn with(rules: Words, login: Option<Arc<Inject>>) -> Rig {
        let identity = Identity {
            workload: "app".into(),
            owner: "ann".into(),
            user: String::new(),
            groups: vec![],
            class: Class::Service,
            process: Process::default(),
        };
        let opening = Opening {
            session_id: Arc::from("5e55"),
            identity: Arc::new(identity),
            destination: Destination::new(([127, 0, 0, 1], 5432).into()),
            tls: false,
            login,
        };
        let desk = Desk {
            records: vec![],
            refuse: false,
            catalogs: hashbrown::HashMap::new(),
            grammar: Dozen,
            key: Key::new([7; 32]),
        };
        Rig {
            conversation: Conversation::new(opening),
            rules: Arc::new(rules),
            desk,
            to_server: vec![],
            to_client: vec![],
            asked: vec![],
            withdrawn: false,
            login: None,
            close: None,
            mono: 0,
            client: vec![],
            server: vec![],
            out: Outbox::default(),
        }
    }

    /// Past start-up: the server is ready, the client has seen it, queues are empty.
    pub fn open(rules: Words) -> Rig {
        let mut rig = Rig::new(rules);
        rig.client(&startup(&[("user", "ann")]));
        rig.server(&[ok(), parameter("client_encoding", "UTF8"), ready(b'I')].concat());
        rig.answer_catalog();
        rig.clear();
        rig
    }

    pub fn clear(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.desk.records.clear();
    }

    pub fn input(&mut self, input: Input<'_>) -> usize {
        let now = Now { wall_ns: 1_000_000 + self.mono, mono_ns: self.mono };
        let rules = self.rules.clone();
        let taken = self.conversation.step(now, input, rules, &mut self.desk, &mut self.out);
        self.to_server.extend_from_slice(self.out.to_server.as_slice());
        self.out.to_server.sent(usize::MAX);
        self.to_client.extend_from_slice(self.out.to_workload.as_slice());
        self.out.to_workload.sent(usize::MAX);
        self.asked.extend(self.out.ask.take());
        self.withdrawn |= core::mem::take(&mut self.out.withdraw);
        self.login = self.login.take().or(self.out.login.take());
        self.close = self.close.or(self.out.close);
        taken
    }

    pub fn client(&mut self, bytes: &[u8]) {
        self.client.extend_from_slice(bytes);
        if !self.out.pause_workload {
            self.pump();
        }
    }

    pub fn server(&mut self, bytes: &[u8]) {
        self.server.extend_from_slice(bytes);
        let kept = core::mem::take(&mut self.server);
        let taken = self.input(Input::Server(&kept));
        self.server = kept[taken..].to_vec();
        if !self.out.pause_workload {
            self.pump();
        }
    }

    pub fn pump(&mut self) {
        while !self.client.is_empty() {
            let kept = core::mem::take(&mut self.client);
            let taken = self.input(Input::Workload(&kept));
            self.client = kept[taken..].to_vec();
            if taken == 0 || self.client.is_empty() || self.out.pause_workload {
                return;
            }
        }
    }

    pub fn event(&mut self, input: Input<'_>) {
        self.input(input);
        if !self.out.pause_workload {
            self.pump();
        }
    }

    /// Answers weir's own questions, for the digest and for the rows, with table `t` (100: id int4, ssn text).
    pub fn answer_catalog(&mut self) {
        while self.conversation.catalog.is_reading() {
            self.answer_catalog_once("c0ffee");
        }
    }

    /// Answers one question of weir's own, as a database in the state that `digest` names.
    pub fn answer_catalog_once(&mut self, digest: &str) {
        let rows = [
            ["d", digest, "", "", "", ""],
            ["p", "1", "public", "", "", ""],
            ["r", "100", "public", "t", "r", ""],
            ["c", "100", "1", "id", "23", ""],
            ["c", "100", "2", "ssn", "25", ""],
        ];
        let mut wire = [tagged(b'1'), tagged(b'2')].concat();
        for row in rows {
            wire.extend(data_row(&row.map(|cell| Some(cell.as_bytes()))));
        }
        let status = match self.conversation.status {
            backend::Status::Idle => b'I',
            backend::Status::Transaction => b'T',
            backend::Status::Failed => b'E',
        };
        wire.extend([complete("SELECT 4"), tagged(b'3'), tagged(b'3'), ready(status)].concat());
        self.server(&wire);
    }
}

pub fn startup(pairs: &[(&str, &str)]) -> Vec<u8> {
    startup_version(196_608, pairs)
}

pub fn startup_version(version: u32, pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in pairs {
        cstr(&mut body, name.as_bytes());
        cstr(&mut body, value.as_bytes());
    }
    body.push(0);
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

pub fn tagged(tag: u8) -> Vec<u8> {
    framed(tag, b"")
}

pub fn framed(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut wire = vec![];
    message(&mut wire, tag, |out| out.extend_from_slice(body));
    wire
}

pub fn ok() -> Vec<u8> {
    framed(b'R', &[0; 4])
}

pub fn ready(status: u8) -> Vec<u8> {
    framed(b'Z', &[status])
}

pub fn parameter(name: &str, value: &str) -> Vec<u8> {
    framed(b'S', format!("{name}\0{value}\0").as_bytes())
}

pub fn complete(tag: &str) -> Vec<u8> {
    framed(b'C', format!("{tag}\0").as_bytes())
}

pub fn server_error(severity: &str, code: &str, text: &str) -> Vec<u8> {
    let mut wire = vec![];
    let fields: [(u8, &[u8]); 4] = [
        (b'S', severity.as_bytes()),
        (b'V', severity.as_bytes()),
        (b'C', code.as_bytes()),
        (b'M', text.as_bytes()),
    ];
    backend::write_error(&mut wire, b'E', &fields);
    wire
}

pub fn data_row(cells: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = (cells.len() as i16).to_be_bytes().to_vec();
    for cell in cells {
        match cell {
            None => body.extend((-1_i32).to_be_bytes()),
            Some(cell) => {
                body.extend((cell.len() as i32).to_be_bytes());
                body.extend(*cell);
            }
        }
    }
    framed(b'D', &body)
}

pub fn columns(columns: &[(&str, u32, i16, u32, i16)]) -> Vec<u8> {
    let columns: Vec<backend::Column> = columns
        .iter()
        .map(|(name, relation, attribute, type_oid, format)| backend::Column {
            name: name.as_bytes().to_vec(),
            relation: *relation,
            attribute: *attribute,
            type_oid: *type_oid,
            size: -1,
            modifier: -1,
            format: *format,
        })
        .collect();
    let mut wire = vec![];
    backend::write_row_description(&mut wire, &columns);
    wire
}

pub fn query(text: &str) -> Vec<u8> {
    let mut wire = vec![];
    frontend::query(&mut wire, text.as_bytes());
    wire
}

pub fn parse(name: &str, text: &str) -> Vec<u8> {
    let mut wire = vec![];
    frontend::parse_message(&mut wire, name.as_bytes(), text.as_bytes());
    wire
}

pub fn bind(portal: &str, statement: &str, format: Option<i16>) -> Vec<u8> {
    let mut body = vec![];
    cstr(&mut body, portal.as_bytes());
    cstr(&mut body, statement.as_bytes());
    body.extend([0; 4]);
    match format {
        None => body.extend([0; 2]),
        Some(format) => {
            body.extend(1_i16.to_be_bytes());
            body.extend(format.to_be_bytes());
        }
    }
    framed(b'B', &body)
}

pub fn execute(portal: &str) -> Vec<u8> {
    let mut wire = vec![];
    frontend::execute(&mut wire, portal.as_bytes(), 0);
    wire
}

pub fn sync() -> Vec<u8> {
    tagged(b'S')
}

pub fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// The tags of a run of messages.
pub fn tags(mut wire: &[u8]) -> String {
    let mut tags = String::new();
    while let Ok(Some(header)) = crate::wire::postgres::header(wire, |_| Some(usize::MAX)) {
        tags.push(header.tag as char);
        wire = &wire[header.whole()..];
    }
    tags
}

pub fn decisions(rig: &Rig) -> Vec<(Kind, Decision)> {
    rig.desk.records.iter().map(|record| (record.kind, record.decision)).collect()
}

/// Records by what matters, for comparing runs.
pub fn gist(rig: &Rig) -> BTreeMap<usize, String> {
    let each = |(n, record): (usize, &Record)| {
        (
            n,
            format!(
                "{:?} {:?} {} {} {} {:?}",
                record.kind, record.decision, record.request_id, record.statement, record.rows, record.masked
            ),
        )
    };
    rig.desk.records.iter().enumerate().map(each).collect()
}

#[test]
fn a_simple_query_is_recorded_before_and_after() {
    let mut rig = Rig::open(Words::default());
    rig.client(&query("select 1"));
    assert_eq!(rig.to_server, query("select 1"));
    assert_eq!(decisions(&rig), [(Kind::Verdict, Decision::Allowed)]);
    let answer =
        [columns(&[("a", 0, 0, 23, 0)]), data_row(&[Some(b"1")]), complete("SELECT 1"), ready(b'I')].concat();
    rig.server(&answer);
    assert_eq!(rig.to_client, answer);
    assert_eq!(decisions(&rig), [(Kind::Verdict, Decision::Allowed), (Kind::Outcome, Decision::Allowed)]);
    let outcome = &rig.desk.records[1];
    assert_eq!((outcome.rows, outcome.request_id.as_str()), (1, "5e55-1"));
    assert_eq!(outcome.request_id, rig.desk.records[0].request_id);
    assert_eq!(rig.conversation.deeds.len(), 0);
    assert_eq!(rig.conversation.phase, Phase::Open);
}
