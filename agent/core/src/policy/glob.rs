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

/// A normalised URL path: `*` stands for any run within one segment, `**` for any number of segments.
/// Empty segments do not count, so `/admin/**` covers `/admin`, `/admin/` and `//admin/x`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathGlob(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    One(Glob),
    Many,
}

impl PathGlob {
    pub(super) fn new(pattern: &str) -> Option<PathGlob> {
        pattern.starts_with('/').then(|| {
            PathGlob(
                segments(pattern)
                    .map(|segment| match segment {
                        "**" => Segment::Many,
                        one => Segment::One(Glob::new(one)),
                    })
                    .collect(),
            )
        })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        let path: Vec<&str> = segments(path).collect();
        // Backtracks to the last `**` only, as with `*` in names: linear in practice, quadratic at worst.
        let (mut at, mut pattern, mut resume) = (0, 0, None);
        loop {
            let fits = match (self.0.get(pattern), path.get(at)) {
                (None, None) => return true,
                (Some(Segment::Many), _) => {
                    resume = Some((pattern + 1, at));
                    pattern += 1;
                    continue;
                }
                (Some(Segment::One(glob)), Some(segment)) => glob.matches(segment),
                (Some(Segment::One(_)), None) | (None, Some(_)) => false,
            };
            if fits {
                (at, pattern) = (at + 1, pattern + 1);
            } else {
                let Some((after, from)) = resume else { return false };
                if from >= path.len() {
                    return false;
                }
                resume = Some((after, from + 1));
                (pattern, at) = (after, from + 1);
            }
        }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
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
    fn paths_are_matched_by_segment() {
        for (pattern, path, fits) in [
            ("/v1/*", "/v1/users", true),
            ("/v1/*", "/v1/users/7", false),
            ("/v1/*", "/v1", false),
            ("/admin/**", "/admin", true),
            ("/admin/**", "//admin/x/y", true),
            ("/admin/**", "/administrator", false),
            ("/**/export", "/a/b/export", true),
            ("/**/export", "/export", true),
            ("/**/export", "/export/x", false),
            ("/**/a/**/b", "/a/x/a/b", true),
            ("/**", "/", true),
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
