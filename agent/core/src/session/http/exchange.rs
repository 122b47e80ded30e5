//! One request and its answer, from the head's arrival to the outcome record.
//! It refuses to hold payload: bodies live only in the step that needs them.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::deny::Refusal;
use super::form;
use super::judge::Judge;
use crate::action::Request;
use crate::audit::Decision;
use crate::detect::ClassId;
use crate::policy::MaskPlan;
use crate::session::Act;
use crate::wire::http1::{Framing, RequestHead};

/// What is known of one act. It stands in the queue once it has an answer coming: the server's, or weir's own.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) id: String,
    pub(super) method: String,
    pub(super) host: String,
    /// Normal form, for rules, and its other readings.
    pub(super) path: String,
    pub(super) other_paths: Vec<String>,
    /// Path as sent, where it is not the normal form.
    pub(super) sent_path: String,
    pub(super) query: String,
    /// Path and query with protected values masked, for records and approvers.
    pub(super) shown: String,
    pub(super) judge: Arc<dyn Judge>,
    pub(super) target: Arc<str>,
    pub(super) rule: Arc<str>,
    pub(super) decision: Decision,
    pub(super) approver: String,
    pub(super) approval_id: String,
    pub(super) masks: Arc<MaskPlan>,
    /// The response is read whole: masks or rules wait for it.
    pub(super) hold_response: bool,
    /// The response itself is judged.
    pub(super) judge_response: bool,
    /// The client wants, and its version allows, more requests after this one.
    pub(super) persistent: bool,
    pub(super) http10: bool,
    /// `Expect: 100-continue` went to the server, which has not said 100 yet.
    pub(super) expecting: bool,
    /// Clears the rest of the body.
    pub(super) act: Option<Act>,
    pub(super) request_done: bool,
    /// The answer is complete though the request is not.
    pub(super) response_done: bool,
    /// Some of the server's answer has been passed on.
    pub(super) response_begun: bool,
    /// weir's own answer, sent when everything before it is answered.
    pub(super) refusal: Option<Refusal>,
    /// The connection ends after this answer.
    pub(super) close: bool,
    pub(super) status: u16,
    pub(super) bytes_up: u64,
    pub(super) bytes_down: u64,
    pub(super) upstream_bytes: u64,
    pub(super) masked: Counts,
    /// Monotonic nanoseconds: head complete; ready to judge; released.
    pub(super) started: u64,
    pub(super) ready: u64,
    pub(super) released: u64,
}

impl Exchange {
    /// An act of which nothing is known yet.
    pub(super) fn new(id: String, judge: Arc<dyn Judge>, blank: &Blank, started: u64) -> Self {
        Self {
            id,
            method: String::new(),
            host: String::new(),
            path: String::new(),
            other_paths: Vec::new(),
            sent_path: String::new(),
            query: String::new(),
            shown: String::new(),
            judge,
            target: blank.text.clone(),
            rule: blank.text.clone(),
            decision: Decision::Denied,
            approver: String::new(),
            approval_id: String::new(),
            masks: blank.masks.clone(),
            hold_response: false,
            judge_response: false,
            persistent: false,
            http10: false,
            expecting: false,
            act: None,
            request_done: false,
            response_done: false,
            response_begun: false,
            refusal: None,
            close: false,
            status: 0,
            bytes_up: 0,
            bytes_down: 0,
            upstream_bytes: 0,
            masked: Counts::default(),
            started,
            ready: started,
            released: started,
        }
    }

    /// The request as rules see it.
    pub(super) fn request<'a>(&'a self, body: Option<&'a [u8]>) -> Request<'a> {
        Request {
            method: &self.method,
            host: &self.host,
            path: &self.path,
            other_paths: &self.other_paths,
            sent_path: self.sent_path(),
            query: &self.query,
            body,
        }
    }

    pub(super) fn sent_path(&self) -> &str {
        if self.sent_path.is_empty() { &self.path } else { &self.sent_path }
    }

    /// Every text that the path may be read as, what dot segments take away included.
    pub(super) fn path_texts(&self) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let paths = core::iter::once(&self.path).chain(&self.other_paths);
        let sent = Some(&self.sent_path).filter(|sent| !sent.is_empty());
        let sent = sent.into_iter().map(|sent| Cow::Owned(form::percent_decoded(sent.as_bytes())));
        // The fullest first.
        sent.chain(paths.map(|path| Cow::Borrowed(path.as_bytes())))
    }

    /// The rules that have to read the answer.
    pub(super) fn readers(&self) -> String {
        let mut names: Vec<&str> = self.masks.response.iter().map(|mask| &*mask.rule).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() { String::from("a rule on responses") } else { names.join(", ") }
    }

    pub(super) fn bodiless(&self) -> bool {
        self.method == "HEAD"
    }
}

/// What of a request has not been read yet when its fate is decided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unread {
    pub(super) framing: Framing,
    pub(super) expects: bool,
    pub(super) persistent: bool,
}

impl Unread {
    pub(super) fn body_of(head: &RequestHead<'_>) -> Self {
        Self { framing: head.framing, expects: head.expects, persistent: head.persistent }
    }

    pub(super) fn nothing(persistent: bool) -> Self {
        Self { framing: Framing::Empty, expects: false, persistent }
    }
}

/// Values masked, by class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) Vec<(ClassId, u64)>);

impl Counts {
    pub(super) fn add(&mut self, class: ClassId) {
        match self.0.iter_mut().find(|(known, _)| *known == class) {
            Some((_, count)) => *count += 1,
            None => self.0.push((class, 1)),
        }
    }
}

/// What an act has before it is judged; shared by all acts of a connection, so that a new one costs no allocation.
#[derive(Debug, Default)]
pub(super) struct Blank {
    text: Arc<str>,
    masks: Arc<MaskPlan>,
}
