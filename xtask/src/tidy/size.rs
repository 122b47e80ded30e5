//! Files and functions stay small: at most 400 lines and 70 lines, tests not counted.

use super::{Fault, Source};

const FILE_LINES: usize = 400;
/// Between the braces; clippy counts code lines only, we count what a reader scrolls through.
const FUNCTION_LINES: usize = 70;

pub(super) fn check(source: &Source, faults: &mut Vec<Fault>) {
    if !source.is_rust() || source.plain == 0 {
        return;
    }
    if source.plain > FILE_LINES {
        let message = format!("{} lines without tests, more than {FILE_LINES} lines", source.plain);
        faults.push(Fault::new(&source.path, source.plain, message));
    }
    let lines: Vec<&str> = source.plain_lines().map(|(_, line)| line).collect();
    for (index, line) in lines.iter().enumerate().filter(|(_, line)| is_function(line)) {
        let indent = line.len() - line.trim_start().len();
        // rustfmt puts the closing brace of a function under its first letter.
        let close = lines[index..].iter().position(|line| is_close(line, indent));
        let length = body(&lines[index..], close);
        if length > FUNCTION_LINES {
            let message = format!("a function of {length} lines, more than {FUNCTION_LINES}");
            faults.push(Fault::new(&source.path, index + 1, message));
        }
    }
}

fn is_function(line: &str) -> bool {
    let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe ", "extern ", "fn "];
    let line = line.trim_start();
    words.iter().any(|word| line.starts_with(word))
        && line
            .split(['(', '<'])
            .next()
            .is_some_and(|head| head.split_whitespace().rev().nth(1) == Some("fn"))
}

fn is_close(line: &str, indent: usize) -> bool {
    line.len() == indent + 1 && line.ends_with('}')
}

/// Lines between the line that opens the body and the one that closes it; 0 for what has no body of its own lines.
fn body(lines: &[&str], close: Option<usize>) -> usize {
    let Some(close) = close else { return 0 };
    let opens = lines.iter().take(close).position(|line| line.trim_end().ends_with('{'));
    let ends = lines.iter().take(close).position(|line| line.trim_end().ends_with([';', '}']));
    match (opens, ends) {
        (Some(open), Some(end)) if end < open => 0,
        (Some(open), _) => close - open - 1,
        (None, _) => 0,
    }
}
