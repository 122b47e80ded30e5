//! `who:`: principals as policies write them.
//! It refuses principals that nobody can be: unknown kinds, and names the host does not have.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::super::condition::who::{Principal, Who};
use super::super::glob::Glob;
use super::super::node::{Node, Value};
use super::super::problem::suggestion;
use super::matching::Scope;
use super::{Keys, Lexicon, Reader};

pub(super) fn who(reader: &mut Reader<'_>, node: &Node, scope: Scope<'_>) -> Option<Who> {
    let (list, all) = match &node.value {
        Value::Map(_) => {
            let fields = reader.map(node, &Keys { of: "who", known: &["all"], unbuilt: &[] });
            (fields.first().map(|(.., node)| *node)?, true)
        }
        Value::Null | Value::Scalar(_) | Value::List(_) => (node, false),
    };
    let texts = reader.texts(list, "who");
    let count = texts.len();
    let principals: Vec<Principal> =
        texts.into_iter().filter_map(|(line, text)| principal(reader, line, text, scope.lexicon)).collect();
    if count == 0 || principals.len() != count {
        return None;
    }
    Some(if all { Who::All(principals) } else { Who::Any(principals) })
}

fn principal(reader: &mut Reader<'_>, line: u32, text: &str, lexicon: &Lexicon<'_>) -> Option<Principal> {
    let Some((kind, name)) = text.split_once(':').filter(|(_, name)| !name.is_empty()) else {
        reader.problem(
            line,
            format!("{text:?} is no principal: write workload:, user:, group:, exe: or uid: before a name"),
        );
        return None;
    };
    let own = lexicon.surroundings;
    match kind {
        "workload" => {
            known(
                reader,
                line,
                "workload",
                name,
                own.workloads.as_deref(),
                "`workloads` of the configuration",
            );
            Some(Principal::Workload(Glob::new(name)))
        }
        "user" => {
            known(reader, line, "user", name, own.users.as_deref(), "`people` of the configuration");
            Some(Principal::User(Glob::new(name)))
        }
        "group" if name.contains('*') => {
            reader.problem(line, format!("{text:?}: groups are named whole, without `*`"));
            None
        }
        "group" => {
            known(
                reader,
                line,
                "group",
                name,
                own.groups.as_deref(),
                "any person's `groups` in the configuration",
            );
            Some(Principal::Group(name.into()))
        }
        "exe" => executable(reader, line, name),
        "uid" => match name.parse() {
            Ok(uid) => Some(Principal::Uid(uid)),
            Err(_) => {
                reader.problem(line, format!("uid {name:?} is no number"));
                None
            }
        },
        _ if kind.starts_with("claim.") => {
            reader
                .problem(line, format!("`{kind}:` is not built yet: claims come with an identity provider"));
            None
        }
        _ => {
            let nearest = suggestion(kind, ["workload", "user", "group", "exe", "uid"]);
            reader.problem(line, format!("{text:?}: there is no kind of principal {kind:?}{nearest}"));
            None
        }
    }
}

/// `/usr/bin/psql`, with `*`, or `sha256:HEX`.
fn executable(reader: &mut Reader<'_>, line: u32, name: &str) -> Option<Principal> {
    if let Some(digest) = name.strip_prefix("sha256:") {
        let sound = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !sound {
            reader.problem(line, "exe:sha256: is followed by 64 hex digits");
        }
        return sound.then(|| Principal::ExeDigest(digest.to_ascii_lowercase()));
    }
    if !name.starts_with('/') && !name.starts_with('*') {
        reader.problem(line, format!("exe {name:?}: write the whole path, or begin it with `*`"));
        return None;
    }
    Some(Principal::Exe(Glob::new(name)))
}

/// Notes a name that nobody has; such a rule can never fire.
pub(super) fn known(
    reader: &mut Reader<'_>,
    line: u32,
    kind: &str,
    name: &str,
    list: Option<&[String]>,
    place: &str,
) {
    let Some(list) = list else { return };
    let glob = Glob::new(name);
    if !list.iter().any(|own| glob.matches(own)) {
        let nearest = suggestion(name, list.iter().map(String::as_str));
        reader.problem(line, format!("{kind} {name:?} is not in {place}{nearest}"));
    }
}
