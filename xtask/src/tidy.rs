//! `cargo xtask tidy [DIR]`: holds the house style and the architecture's arrows. It refuses to judge taste: every rule here
//! is one that a machine can decide, and every exception is listed with its reason beside the rule.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

mod arrows;
mod seams;
mod size;
mod source;
mod specification;
mod words;

use source::Source;

/// Checks the whole checkout (this one, or the one in the folder named), prints `file:line: message` for each fault and one line in the end.
pub fn run(arguments: &[String]) -> Result<()> {
    let checkout = match arguments {
        [] => root(),
        [folder] if !folder.starts_with('-') => PathBuf::from(folder),
        _ => bail!("usage: cargo xtask tidy [DIR]"),
    };
    let (count, faults) = check(&checkout)?;
    faults.iter().for_each(|fault| println!("{fault}"));
    println!("tidy: {count} files, {} faults", faults.len());
    if faults.is_empty() { Ok(()) } else { bail!("the checkout is not tidy") }
}

/// One thing to mend.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    /// Path from the root of the checkout.
    file: String,
    /// From 1.
    line: usize,
    message: String,
}

impl Fault {
    fn new(file: &str, line: usize, message: impl Into<String>) -> Fault {
        Fault { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Number of files and what is wrong with them.
fn check(root: &Path) -> Result<(usize, Vec<Fault>)> {
    let mut sources = Vec::new();
    gather(root, root, &mut sources)?;
    let mut faults = Vec::new();
    for source in &sources {
        arrows::check(source, &mut faults);
        seams::check(source, &mut faults);
        size::check(source, &mut faults);
        words::check(source, &mut faults);
    }
    specification::check(&sources, &mut faults);
    faults.sort();
    faults.dedup();
    Ok((sources.len(), faults))
}

/// Folders that hold nothing of ours.
const FOREIGN: &[&str] = &["target", ".git", "node_modules", ".vagrant", "artifacts", "crashes"];
/// Larger files are recordings and captures, not text to read.
const LARGEST: u64 = 2 * 1024 * 1024;

fn gather(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            if !FOREIGN.iter().any(|name| entry.file_name() == *name) {
                gather(root, &path, sources)?;
            }
        } else if kind.is_file() && entry.file_name() != ".git" && entry.metadata()?.len() <= LARGEST {
            // What is not UTF-8 is not source.
            if let Ok(text) = std::fs::read_to_string(&path) {
                let name = path.strip_prefix(root).unwrap_or(&path);
                sources.push(Source::new(&name.to_string_lossy(), text));
            }
        }
    }
    Ok(())
}

fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::{Fault, Source, arrows, check, root, seams, size, specification, words};

    #[test]
    fn the_checkout_is_tidy() {
        let (count, faults) = check(&root()).unwrap();
        let list: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert!(count > 10 && faults.is_empty(), "\n{}", list.join("\n"));
    }

    fn faults(path: &str, text: &str) -> Vec<String> {
        let source = Source::new(path, text.to_owned());
        let mut faults = Vec::new();
        arrows::check(&source, &mut faults);
        seams::check(&source, &mut faults);
        size::check(&source, &mut faults);
        words::check(&source, &mut faults);
        faults.into_iter().map(|Fault { line, message, .. }| format!("{line}: {message}")).collect()
    }

    /// Exactly one fault, on this line, whose message holds these words.
    fn one(path: &str, text: &str, line: usize, words: &str) {
        let faults = faults(path, text);
        let [fault] = &faults[..] else { panic!("{path}: {faults:?}") };
        assert!(fault.starts_with(&format!("{line}: ")) && fault.contains(words), "{fault}");
    }

    #[test]
    fn arrows_inside_the_core() {
        let wire = "agent/core/src/wire/http1.rs";
        one(wire, "//! x\nuse crate::policy::Policy;\n", 2, "wire may not use policy");
        one(wire, "//! x\nuse super::super::policy::Policy;\n", 2, "wire may not use policy");
        one(
            wire,
            "//! x\nuse crate::{\n    limits,\n    session::Host,\n};\n",
            4,
            "wire may not use session",
        );
        one(
            "agent/core/src/detect.rs",
            "//! x\nfn a(_: crate::mask::Key) {}\n",
            2,
            "detect may not use mask",
        );
        one("agent/core/src/mask.rs", "//! x\nuse std::vec::Vec;\n", 2, "std");
        assert!(
            faults("agent/core/src/session.rs", "//! x\nuse crate::{wire, policy::Policy};\n").is_empty()
        );
        assert!(
            faults(
                wire,
                "//! x\n// crate::policy is not used\n#[cfg(test)]\nmod tests {\n use std::vec;\n}\n"
            )
            .is_empty()
        );
        one("agent/core/src/brandnew.rs", "//! x\nuse crate::wire;\n", 2, "add brandnew to the table");
    }

    #[test]
    fn arrows_between_crates() {
        one(
            "agent/core/Cargo.toml",
            "[package]\nname = \"weir-core\"\n[dependencies]\nweir-sql = {}\n",
            4,
            "weir-sql",
        );
        assert!(
            faults("agent/Cargo.toml", "[package]\nname = \"weir\"\n[dependencies]\nweir-sql = {}\n")
                .is_empty()
        );
    }

    #[test]
    fn sizes() {
        let lines = |count| format!("//! x\n{}", "const A: u8 = 0;\n".repeat(count));
        one("agent/src/a.rs", &lines(400), 401, "400 lines");
        assert!(faults("agent/src/a.rs", &lines(399)).is_empty());
        assert!(faults("agent/src/a/tests.rs", &lines(900)).is_empty());
        let function =
            format!("//! x\nimpl A {{\n    pub fn b() {{\n{}    }}\n}}\n", "        c();\n".repeat(71));
        one("agent/src/a.rs", &function, 3, "71 lines");
    }

    #[test]
    fn words_of_the_house() {
        one("agent/src/a.rs", "use a;\n", 1, "//!");
        one("agent/src/a.rs", "//! x\nstruct RowHandler;\n", 2, "RowHandler");
        one("agent/src/a.rs", "//! x\nfn get_row() {}\n", 2, "get_row");
        one("agent/src/utils.rs", "//! x\n", 1, "utils");
        assert!(
            faults("agent/src/a.rs", "//! x\nstruct DataRow;\nconst A: &str = \"fn get_row()\";\n")
                .is_empty()
        );
        one("agent/src/a.rs", &format!("//! x\nfn a() {{ {}!() }}\n", "todo"), 2, "todo!");
        one("agent/src/a.rs", &format!("//! x\n#[{}]\nfn a() {{}}\n", "ignore"), 2, "ignore");
        one("README.md", &format!("see /{}/main\n", "work"), 1, "path of a development machine");
    }

    #[test]
    fn seams_stay_where_they_are() {
        one("agent/src/relay.rs", "//! x\nfn a() { unsafe { b() } }\n", 2, "unsafe");
        assert!(faults("agent/src/kernel/load.rs", "//! x\nfn a() { unsafe { b() } }\n").is_empty());
        one("agent/src/relay.rs", "//! x\nfn a() { Receipt::issue(1); }\n", 2, "Receipt::issue");
        assert!(faults("agent/src/ledger/journal.rs", "//! x\nfn a() { Receipt::issue(1); }\n").is_empty());
    }

    #[test]
    fn promises_name_their_tests() {
        let row = |cell: &str| format!("| promise | held by |\n|---|---|\n| fast | {cell} |\n");
        let judge = |cell: &str| {
            let test = Source::new("agent/src/a.rs", "//! x\n#[test]\nfn it_is_fast() {}\n".into());
            let mut faults = Vec::new();
            specification::check(&[test, Source::new("SPECIFICATION.md", row(cell))], &mut faults);
            faults.len()
        };
        assert_eq!(
            [judge("`a::it_is_fast`"), judge("pending"), judge("`a::gone`"), judge("surely")],
            [0, 0, 1, 1]
        );
    }
}
