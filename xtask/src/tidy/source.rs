//! One file as the rules see it: its text, its code without comments and literals, and which lines are tests.
//! It refuses to parse Rust: rustfmt has laid the code out, and lines and braces are enough.

/// A text file of the checkout.
pub(super) struct Source {
    /// From the root of the checkout, with `/`.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments and the contents of literals blanked, line for line; empty for files that are not Rust.
    pub(super) code: String,
    /// Lines of the file, from 1, that come before its tests.
    pub(super) plain: usize,
}

impl Source {
    pub(super) fn new(path: &str, text: String) -> Source {
        let code = if path.ends_with(".rs") { blank(&text) } else { String::new() };
        let plain = if is_test_path(path) { 0 } else { before_tests(&text) };
        Source { path: path.to_owned(), code, plain, text }
    }

    pub(super) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Lines of code with their numbers, from 1.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Lines of code that are not tests.
    pub(super) fn plain_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().take_while(|(number, _)| *number <= self.plain)
    }

    /// The line, from 1, that holds the byte `at`.
    pub(super) fn line_of(&self, at: usize) -> usize {
        self.code.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }
}

fn is_test_path(path: &str) -> bool {
    path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Lines before `#[cfg(test)] mod tests {` at the bottom.
fn before_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let starts = |pair: &[&str]| matches!(pair, [one, two] if one.trim() == "#[cfg(test)]" && two.starts_with("mod tests {"));
    lines.windows(2).position(starts).unwrap_or(lines.len())
}

/// Replaces comments and the contents of string and character literals with blanks; keeps line ends.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match token(&bytes[at..], at.checked_sub(1).map(|before| bytes[before])) {
            Token::Code(length) => {
                at += length;
                continue;
            }
            Token::Blank(length) => at + length,
        };
        for byte in &mut code[at..end.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).unwrap_or_default()
}

/// What stands at the begin of the rest, and how many bytes it has.
enum Token {
    Code(usize),
    Blank(usize),
}

fn token(rest: &[u8], before: Option<u8>) -> Token {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => Token::Blank(find(rest, b"\n").unwrap_or(rest.len())),
        [b'/', b'*', ..] => Token::Blank(comment(rest)),
        [b'"', ..] => Token::Blank(string(rest)),
        [b'r', b'"' | b'#', ..] | [b'b', b'r', b'"' | b'#', ..] if !in_word => match raw(rest) {
            Some(length) => Token::Blank(length),
            None => Token::Code(1),
        },
        [b'\'', b'\\', ..] => Token::Blank(2 + find(&rest[2..], b"'").map_or(0, |quote| quote.max(1) + 1)),
        // A character, not a lifetime: something, then a quote at once.
        [b'\'', tail @ ..] => match tail.iter().take(5).position(|byte| *byte == b'\'') {
            Some(quote) if quote > 0 && (quote == 1 || tail[0] >= 0x80) => Token::Blank(quote + 2),
            Some(_) | None => Token::Code(1),
        },
        _ => Token::Code(1),
    }
}

fn comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// `r"…"`, `br#"…"#`; `None` for a raw identifier.
fn raw(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") { 2 } else { 1 };
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let body = prefix + hashes + 1;
    let close = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some(find(&rest[body..], &close).map_or(rest.len(), |end| body + end + close.len()))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::blank;

    #[test]
    fn comments_and_literals_are_blanked() {
        let text =
            "a /* b /* c */ d */ e // f\n\"g\\\"h\" r#\"i\"j\"# 'k' '\\'' 'é' &'static x b\"y\" br\"z\" r#fn";
        let code: String = blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, "a e &'static x b r#fn");
        assert_eq!(blank(text).len(), text.len());
    }
}
