//! What an HTTP session asks of policy, and nothing else. It refuses to let tests depend on a policy file.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Debug;

use crate::action::{Action, Context, Request};
use crate::detect::{ClassId, ClassSet, Finding};
use crate::mask::{Key, Mask};
use crate::policy::{Judgement, Needs, Policy};

/// Implemented by [`Policy`]; an act keeps the judge it began with.
pub(super) trait Judge: Debug + Send + Sync {
    fn judge(&self, context: &Context<'_>, action: &Action<'_>) -> Judgement;
    /// For one request. Where `response_body` is asked for, the response is judged as `Action::Response`, which denies
    /// only when a response rule says so.
    fn needs(&self, context: &Context<'_>, request: &Request<'_>) -> Needs;
    fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>);
    fn json_classes(&self, keys: &[Cow<'_, str>], classes: &mut Vec<ClassId>);
    /// Empty beyond the last class.
    fn class_name(&self, class: ClassId) -> &str;
    fn commit(&self) -> &str;
    fn sha(&self) -> &str;

    /// `None`: no value at all.
    fn masked(&self, class: ClassId, mask: Mask, value: &str, key: &Key) -> Option<String> {
        mask.apply(self.class_name(class), value, key)
    }

    /// Every class: what audit rows must not hold.
    fn classes(&self) -> ClassSet {
        ClassSet((0..u16::MAX).map(ClassId).take_while(|class| !self.class_name(*class).is_empty()).collect())
    }
}

impl Judge for Policy {
    fn judge(&self, context: &Context<'_>, action: &Action<'_>) -> Judgement {
        Policy::judge(self, context, action)
    }

    fn needs(&self, context: &Context<'_>, request: &Request<'_>) -> Needs {
        Policy::needs(self, context, Some(request))
    }

    fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>) {
        self.scanner().find(text, wanted, found);
    }

    fn json_classes(&self, keys: &[Cow<'_, str>], classes: &mut Vec<ClassId>) {
        let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
        classes.extend(Policy::json_classes(self, &keys));
    }

    fn class_name(&self, class: ClassId) -> &str {
        Policy::class_name(self, class)
    }

    fn commit(&self) -> &str {
        Policy::commit(self)
    }

    fn sha(&self) -> &str {
        Policy::sha(self)
    }
}
