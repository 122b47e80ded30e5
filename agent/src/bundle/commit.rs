//! The git commit of a policy folder, and whether its files differ from it.
//! It refuses to run anything the checkout configures: hooks, monitors and prompts are off.

use std::path::Path;
use std::process::{Command, Stdio};

/// `<40 hex>`, `<40 hex>-dirty`, or `none` where no file of the folder is in a checkout.
///
/// Without the `git` program the commit is read from `.git` itself and marked `-unverified`.
pub(super) fn of(folder: &Path) -> String {
    match git(folder, &["ls-files", "--", "."]) {
        Some(files) if files.trim().is_empty() => "none".into(),
        Some(_) => match git(folder, &["rev-parse", "HEAD"]) {
            Some(commit) if is_commit(commit.trim()) => {
                match git(folder, &["status", "--porcelain", "--", "."]) {
                    Some(changes) if changes.trim().is_empty() => commit.trim().into(),
                    Some(_) | None => format!("{}-dirty", commit.trim()),
                }
            }
            Some(_) | None => "none".into(),
        },
        None => {
            head(&folder.join(".git")).map_or_else(|| "none".into(), |commit| format!("{commit}-unverified"))
        }
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        // The agent runs as root, and the checkout often belongs to a deploy user.
        .args(["-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What HEAD names, read from the files of a plain `.git` folder.
fn head(git: &Path) -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(git.join(name)).ok();
    let head = read("HEAD")?;
    let Some(reference) = head.trim().strip_prefix("ref: ") else {
        return is_commit(head.trim()).then(|| head.trim().into());
    };
    let loose = read(reference).map(|commit| commit.trim().to_owned());
    let packed = || {
        let refs = read("packed-refs")?;
        let line = refs.lines().find(|line| line.ends_with(&format!(" {reference}")))?;
        Some(line.split(' ').next()?.to_owned())
    };
    loose.or_else(packed).filter(|commit| is_commit(commit))
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
