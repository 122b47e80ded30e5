//! Patterns with `*`: names, qualified names (`schema.table`) and URL paths.
//! It refuses regular expressions, so that a pattern reads the same to everyone and costs one pass.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// A name in which `*` stands for any run of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Glob {
    Any,
    Exact(String),
    /// Literal parts between the stars; the first and last are anchored (and may be empty).
    Parts(Vec<String>),
}

impl Glob {
    pub(super) fn new(pattern: &str) -> Glob {
        if !pattern.is_empty() && pattern.bytes().all(|byte| byte == b'*') {
            Glob::Any
        } else if pattern.contains('*') {
            Glob::Parts(pattern.split('*').map(ToString::to_string).collect())
        } else {
            Glob::Exact(pattern.into())
        }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Glob::Any => true,
            Glob::Exact(exact) => exact == name,
            Glob::Parts(parts) => matches_parts(parts, name),
        }
    }

    pub(super) fn exact(&self) -> Option<&str> {
        match self {
            Glob::Exact(exact) => Some(exact),
            Glob::Any | Glob::Parts(_) => None,
        }
    }
}

/// Greedy from the left is enough: only `*` is special, so the earliest match of a middle part never hurts.
fn matches_parts(parts: &[String], name: &str) -> bool {
    let Some((first, rest)) = parts.split_first() else { return false };
    let Some((last, middle)) = rest.split_last() else { return first == name };
    let Some(mut left) = name.strip_prefix(first.as_str()) else { return false };
    for part in middle {
        match left.find(part.as_str()) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or(""),
            None => return false,
        }
    }
    left.ends_with(last.as_str())
}

/// `name` in any schema, or `schema.name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Qualified {
    pub(super) schema: Glob,
    pub(super) name: Glob,
}

impl Qualified {
    /// `None` for an empty part or more than one dot.
    pub(super) fn new(pattern: &str) -> Option<Qualified> {
        let (schema, name) = pattern.split_once('.').unwrap_or(("*", pattern));
        let sound = !schema.is_empty() && !name.is_empty() && !name.contains('.');
        sound.then(|| Qualified { schema: Glob::new(schema), name: Glob::new(name) })
    }
}

/// A normalised URL path. `*` and `**` both stand for any run of characters, `/` included, as in the policies of most
/// clouds: a rule about `/admin/*` means everything there. `/admin/*` covers `/admin` itself, `/**/x` covers `/x`, and
/// empty segments (`//`, a last `/`) do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathGlob(Vec<Glob>);

impl PathGlob {
    pub(super) fn new(pattern: &str) -> Option<PathGlob> {
        pattern.starts_with('/').then(|| {
            let whole = joined(pattern).replace("**", "*");
            let mut readings = alloc::vec![whole.clone()];
            readings.push(whole.replace("/*/", "/"));
            let below: Vec<String> = readings
                .iter()
                .filter_map(|reading| reading.strip_suffix("/*"))
                .map(ToString::to_string)
                .collect();
            readings.extend(below);
            readings.dedup();
            PathGlob(readings.iter().map(|reading| Glob::new(reading)).collect())
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let path = joined(path);
        self.0.iter().any(|reading| reading.matches(&path))
    }
}

/// The path without empty segments; empty for the root.
fn joined(path: &str) -> String {
    path.split('/').filter(|segment| !segment.is_empty()).fold(String::new(), |mut joined, segment| {
        joined.push('/');
        joined.push_str(segment);
        joined
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*", "x", true),
            ("pass*", "password", true),
            ("*word", "password", true),
            ("*.x", "a.x", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("ab*ba", "aba", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), fits, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_path_pattern_covers_everything_below() {
        for (pattern, path, fits) in [
            ("/v1/*", "/v1/users", true),
            ("/v1/*", "/v1/users/7", true),
            ("/v1/*", "/v1", true),
            ("/v1/*", "/v1/", true),
            ("/v1/*", "/v10", false),
            ("/admin*", "/admin/x", true),
            ("/admin*", "/administrator", true),
            ("/admin", "/admin/", true),
            ("/admin", "/admin/x", false),
            ("/admin/**", "/admin", true),
            ("/admin/**", "//admin/x/y", true),
            ("/admin/**", "/administrator", false),
            ("/**/export", "/a/b/export", true),
            ("/**/export", "/export", true),
            ("/**/export", "/export/x", false),
            ("/users/*/key", "/users/7/key", true),
            ("/users/*/key", "/users/7/name", false),
            ("/**", "/", true),
            ("/*", "/", true),
            ("/", "/", true),
            ("/", "/x", false),
        ] {
            assert_eq!(PathGlob::new(pattern).unwrap().matches(path), fits, "{pattern} on {path}");
        }
        assert!(PathGlob::new("v1/*").is_none());
    }

    #[test]
    fn a_qualified_name_has_at_most_one_dot() {
        assert_eq!(Qualified::new("t").unwrap().schema, Glob::Any);
        assert!(Qualified::new("a.b.c").is_none() && Qualified::new(".b").is_none());
    }
}
