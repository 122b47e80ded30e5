//! Held acts waiting for a human: one open question per session, answered at most once, by somebody the rule names.
//! It refuses answers from people the rule does not name, and for questions that are no longer open.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::Serialize;
use tokio::sync::{oneshot, watch};
use weir_core::approval::{Answer, Question};

use crate::config::Person;

/// The open questions of this agent.
#[derive(Debug)]
pub struct Desk {
    open: Mutex<BTreeMap<String, Held>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Held {
    question: Question,
    requester: Requester,
    answer: oneshot::Sender<Answer>,
}

/// Who asked, for the approver to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Requester {
    pub workload: String,
    pub user: String,
    pub owner: String,
    pub exe: String,
    pub pid: u32,
    pub destination: String,
}

/// An open question as the terminal and the API show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Shown {
    pub id: String,
    pub request_id: String,
    pub rule: String,
    pub message: String,
    pub by: Vec<String>,
    pub summary: String,
    pub effects: Vec<String>,
    pub relations: Vec<String>,
    /// SHA-256 of the exact bytes that will be sent, lower-case hex.
    pub digest: String,
    pub asked_ns: u64,
    pub expires_ns: u64,
    #[serde(flatten)]
    pub requester: Requester,
}

/// Why an answer was not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    #[error("no act with id {0} is waiting; `weir approvals list` shows those that are")]
    NotOpen(String),
    #[error("{user} may not answer this: rule {rule} names {by}")]
    NotNamed { user: String, rule: String, by: String },
}

impl Default for Desk {
    fn default() -> Self {
        Self { open: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Desk {
    /// Puts a question; the receiver yields the answer, or an error when the question is withdrawn.
    pub fn ask(&self, question: Question, requester: Requester) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        self.locked().insert(question.id.clone(), Held { question, requester, answer });
        self.changed.send_modify(|version| *version += 1);
        receiver
    }

    /// Takes a question off the desk: the client is gone or time is up.
    pub fn withdraw(&self, id: &str) {
        self.locked().remove(id);
        self.changed.send_modify(|version| *version += 1);
    }

    /// The open questions, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.locked().values().map(show).collect();
        shown.sort_by_key(|question| question.asked_ns);
        shown
    }

    /// Answers a question for `person`.
    ///
    /// # Errors
    /// The question is not open, or the rule does not name the person or one of their groups.
    pub fn answer(&self, id: &str, person: &Person, granted: bool, reason: &str) -> Result<Shown, DeskError> {
        let mut open = self.locked();
        let held = open.get(id).ok_or_else(|| DeskError::NotOpen(id.into()))?;
        if !names(&held.question.by, person) {
            return Err(DeskError::NotNamed {
                user: person.user.clone(),
                rule: held.question.rule.to_string(),
                by: held.question.by.join(", "),
            });
        }
        let Some(held) = open.remove(id) else { return Err(DeskError::NotOpen(id.into())) };
        drop(open);
        let shown = show(&held);
        let answer = Answer {
            id: held.question.id,
            digest: held.question.digest,
            granted,
            approver: person.user.clone(),
            reason: reason.into(),
        };
        held.answer.send(answer).map_err(|_| DeskError::NotOpen(id.into()))?;
        self.changed.send_modify(|version| *version += 1);
        Ok(shown)
    }

    /// Changes whenever a question comes or goes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Held>> {
        // A panic elsewhere cannot leave the map half-changed: each change is one call.
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn names(by: &[String], person: &Person) -> bool {
    by.iter().any(|principal| match principal.split_once(':') {
        Some(("user", user)) => user == person.user,
        Some(("group", group)) => person.groups.iter().any(|own| own == group),
        Some(_) | None => false,
    })
}

fn show(held: &Held) -> Shown {
    let question = &held.question;
    Shown {
        id: question.id.clone(),
        request_id: question.request_id.clone(),
        rule: question.rule.to_string(),
        message: question.message.to_string(),
        by: question.by.clone(),
        summary: question.summary.clone(),
        effects: question.effects.clone(),
        relations: question.relations.clone(),
        digest: question.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        asked_ns: question.asked_ns,
        expires_ns: question.expires_ns,
        requester: held.requester.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            id: "q1".into(),
            request_id: "s-1".into(),
            digest: [7; 32],
            rule: "deletes".into(),
            message: "".into(),
            by: vec!["group:dba".into(), "user:eve@x".into()],
            summary: "DELETE FROM t".into(),
            effects: vec![],
            relations: vec![],
            asked_ns: 1,
            expires_ns: 2,
        }
    }

    fn requester() -> Requester {
        Requester {
            workload: "w".into(),
            user: String::new(),
            owner: String::new(),
            exe: String::new(),
            pid: 1,
            destination: String::new(),
        }
    }

    fn person(user: &str, groups: &[&str]) -> Person {
        Person { user: user.into(), uids: vec![], groups: groups.iter().map(|g| (*g).into()).collect() }
    }

    #[tokio::test]
    async fn somebody_the_rule_names_can_answer_once() {
        let desk = Desk::default();
        let answer = desk.ask(question(), requester());
        desk.answer("q1", &person("bob@x", &["dba"]), true, "ok").unwrap();
        let answer = answer.await.unwrap();
        assert!(answer.granted && answer.digest == [7; 32] && answer.approver == "bob@x");
        assert_eq!(
            desk.answer("q1", &person("bob@x", &["dba"]), true, ""),
            Err(DeskError::NotOpen("q1".into()))
        );
    }

    #[test]
    fn others_cannot_answer_and_the_question_stays() {
        let desk = Desk::default();
        let _answer = desk.ask(question(), requester());
        assert!(matches!(
            desk.answer("q1", &person("mallory@x", &["dev"]), true, ""),
            Err(DeskError::NotNamed { .. })
        ));
        assert_eq!(desk.list().len(), 1);
    }

    #[test]
    fn a_withdrawn_question_is_gone() {
        let desk = Desk::default();
        let mut answer = desk.ask(question(), requester());
        desk.withdraw("q1");
        assert!(desk.list().is_empty());
        assert!(answer.try_recv().is_err());
    }
}
