//! SQL that gives or uses a name: PREPARE, EXECUTE, DEALLOCATE, DECLARE, FETCH, MOVE, CLOSE.
//! It refuses to read what it is not sure of: such a statement is `Unclear`, and that counts as unknown.

use alloc::string::String;
use alloc::vec::Vec;

/// What a statement does with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// `PREPARE name AS …`: the text after AS.
    Prepare {
        name: Vec<u8>,
        text: String,
    },
    Execute {
        name: Vec<u8>,
    },
    Deallocate {
        name: Vec<u8>,
    },
    /// `DECLARE name CURSOR … FOR …`: the text after FOR.
    Declare {
        name: Vec<u8>,
        text: String,
        hold: bool,
    },
    /// FETCH or MOVE.
    Fetch {
        name: Vec<u8>,
    },
    CloseCursor {
        name: Vec<u8>,
    },
    /// Begins like one of these and cannot be read.
    Unclear,
}

/// Reads the naming of one statement; `None` for every other kind of statement.
pub fn naming(text: &str) -> Option<Naming> {
    let mut lexer = Lexer { rest: text };
    let Token::Word(verb) = lexer.next()? else { return None };
    let read = match verb.as_str() {
        // Two-phase commit names no statement: PREPARE TRANSACTION 'id'.
        "prepare" if lexer.is_transaction() => return None,
        "prepare" => prepare(&mut lexer),
        "execute" => execute(&mut lexer),
        "deallocate" => deallocate(&mut lexer),
        "declare" => declare(&mut lexer),
        "fetch" | "move" => last_name(&mut lexer).map(|name| Naming::Fetch { name }),
        "close" => last_name(&mut lexer).map(|name| Naming::CloseCursor { name }),
        _ => return None,
    };
    Some(read.unwrap_or(Naming::Unclear))
}

/// The first word, lower case; empty when the text begins otherwise.
pub fn verb(text: &str) -> String {
    match (Lexer { rest: text }).next() {
        Some(Token::Word(word)) => word,
        Some(Token::Quoted(_) | Token::Other(_)) | None => String::new(),
    }
}

fn prepare(lexer: &mut Lexer<'_>) -> Option<Naming> {
    let name = lexer.next()?.name()?;
    let mut depth = 0_usize;
    loop {
        match lexer.next()? {
            Token::Other('(') => depth += 1,
            Token::Other(')') => depth = depth.checked_sub(1)?,
            Token::Word(word) if depth == 0 && word == "as" => {
                return Some(Naming::Prepare { name, text: lexer.rest.into() });
            }
            Token::Word(_) | Token::Quoted(_) | Token::Other(_) => {}
        }
    }
}

/// Arguments of EXECUTE are expressions: one that calls a function is not read further.
fn execute(lexer: &mut Lexer<'_>) -> Option<Naming> {
    let name = lexer.next()?.name()?;
    let parentheses = lexer.rest.bytes().filter(|byte| *byte == b'(').count();
    (parentheses <= 1).then_some(Naming::Execute { name })
}

fn deallocate(lexer: &mut Lexer<'_>) -> Option<Naming> {
    let mut name = lexer.next()?;
    if name == Token::Word("prepare".into())
        && let Some(next) = lexer.next()
        && next != Token::Other(';')
    {
        name = next;
    }
    Some(Naming::Deallocate { name: name.name()? })
}

fn declare(lexer: &mut Lexer<'_>) -> Option<Naming> {
    let name = lexer.next()?.name()?;
    let (mut hold, mut without) = (false, false);
    loop {
        match lexer.next()? {
            Token::Word(word) => match word.as_str() {
                "hold" => hold = !without,
                "without" => without = true,
                "for" => return Some(Naming::Declare { name, text: lexer.rest.into(), hold }),
                _ => {}
            },
            Token::Quoted(_) | Token::Other(_) => return None,
        }
    }
}

/// FETCH, MOVE and CLOSE end with the cursor's name.
fn last_name(lexer: &mut Lexer<'_>) -> Option<Vec<u8>> {
    let mut last = None;
    while let Some(token) = lexer.next() {
        match token {
            Token::Other(';') => {}
            token => last = Some(token),
        }
    }
    last?.name()
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// An unquoted word or number, folded to lower case.
    Word(String),
    Quoted(String),
    Other(char),
}

impl Token {
    fn name(self) -> Option<Vec<u8>> {
        match self {
            Token::Word(word) if word.is_ascii() => Some(word.into_bytes()),
            Token::Quoted(word) => Some(word.into_bytes()),
            // The server folds letters outside ASCII by its locale.
            Token::Word(_) | Token::Other(_) => None,
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
}

impl Lexer<'_> {
    fn next(&mut self) -> Option<Token> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        if is_word(first) {
            let end = self.rest.find(|letter| !is_word(letter)).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            // U&"…", E'…' and the like: what follows is not an ordinary token.
            if rest.starts_with("&\"") {
                self.rest = "";
                return Some(Token::Other('&'));
            }
            self.rest = rest;
            return Some(Token::Word(word.to_ascii_lowercase()));
        }
        self.rest = self.rest.get(first.len_utf8()..)?;
        if first != '"' {
            return Some(Token::Other(first));
        }
        let mut name = String::new();
        loop {
            let (part, rest) = self.rest.split_once('"')?;
            name.push_str(part);
            self.rest = rest;
            match self.rest.strip_prefix('"') {
                Some(rest) => {
                    name.push('"');
                    self.rest = rest;
                }
                None => return Some(Token::Quoted(name)),
            }
        }
    }

    fn is_transaction(&self) -> bool {
        let mut ahead = Lexer { rest: self.rest };
        ahead.next() == Some(Token::Word("transaction".into())) && ahead.next() == Some(Token::Other('\''))
    }

    fn skip_blank(&mut self) {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment.find(['\n', '\r']).and_then(|end| comment.get(end..)).unwrap_or("");
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = after_comment(comment);
            } else {
                return;
            }
        }
    }
}

/// Comments nest.
fn after_comment(mut rest: &str) -> &str {
    let mut depth = 1_usize;
    while depth > 0 {
        let Some(at) = rest.find(['*', '/']) else { return "" };
        rest = rest.get(at..).unwrap_or("");
        if let Some(inner) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, inner);
        } else if let Some(outer) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, outer);
        } else {
            rest = rest.get(1..).unwrap_or("");
        }
    }
    rest
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == '$' || !letter.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_server_folds_them() {
        let prepared =
            |name: &[u8], text: &str| Some(Naming::Prepare { name: name.into(), text: text.into() });
        assert_eq!(naming("PREPARE P1 AS select 1"), prepared(b"p1", " select 1"));
        assert_eq!(
            naming("prepare \"A\"\"b\"(int, numeric(3,2)) as select $1"),
            prepared(b"A\"b", " select $1")
        );
        assert_eq!(
            naming("/* /* x */ */ -- y\n execute P1(1)"),
            Some(Naming::Execute { name: b"p1".into() })
        );
        assert_eq!(naming("EXECUTE p(f(1))"), Some(Naming::Unclear));
        assert_eq!(naming("execute U&\"\\0070\""), Some(Naming::Unclear));
        assert_eq!(naming("FETCH 10 FROM c;"), Some(Naming::Fetch { name: b"c".into() }));
        assert_eq!(naming("deallocate prepare x"), Some(Naming::Deallocate { name: b"x".into() }));
        assert_eq!(
            naming("declare c no scroll cursor with hold for select 2"),
            Some(Naming::Declare { name: b"c".into(), text: " select 2".into(), hold: true })
        );
        assert_eq!(naming("select 1"), None);
    }
}
