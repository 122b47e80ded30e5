//! Patterns for cgroup paths: `*` stands for any characters within one segment. It refuses to cross a `/`.

/// A path pattern, relative to the attach point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<String>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self { segments: segments(text).map(str::to_owned).collect() }
    }

    /// Does the whole path match?
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut found = segments(path);
        self.segments.iter().all(|pattern| found.next().is_some_and(|segment| fits(pattern, segment)))
            && found.next().is_none()
    }

    /// May a path below this one match?
    pub(super) fn continues(&self, path: &str) -> bool {
        let mut patterns = self.segments.iter();
        segments(path).all(|segment| patterns.next().is_some_and(|pattern| fits(pattern, segment)))
            && patterns.next().is_some()
    }

    pub(super) fn segments(&self) -> &[String] {
        &self.segments
    }
}

/// Segments of a path.
pub(super) fn depth(path: &str) -> usize {
    segments(path).count()
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.segments.join("/"))
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn fits(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    // The leftmost place for each part leaves the most room for the next ones.
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stay_within_a_segment() {
        let matches = |pattern: &str, path: &str| Pattern::new(pattern).matches(path);
        assert!(matches("system.slice/payments*.service", "system.slice/payments-eu.service"));
        assert!(matches("/system.slice/payments*.service", "system.slice/payments.service"));
        assert!(matches("*", "anything"));
        assert!(matches("a*b*c", "aXbXbYc"));
        assert!(!matches("a*b*c", "aXc"));
        assert!(!matches("*", "any/thing"));
        assert!(!matches("system.slice/*", "system.slice"));
        assert!(!matches("system.slice", "system.slice/web.service"));
        assert!(!matches("a*a", "a"));
    }
}
