//! Which files of a folder are a bundle, and their text.
//! It refuses files and trees beyond the bounds below; a policy folder is small.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_core::policy::Problem;

/// One file of a bundle.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Path below the folder, with `/`.
    pub name: Arc<str>,
    pub path: PathBuf,
    pub text: String,
}

/// Policy files in order of name.
pub(super) fn read(folder: &Path, problems: &mut Vec<Problem>) -> std::io::Result<Vec<SourceFile>> {
    let mut sources = Vec::new();
    for path in paths(folder, is_policy)? {
        let name: Arc<str> = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into();
        match text(&path) {
            Ok(text) => sources.push(SourceFile { name, path, text }),
            Err(message) => problems.push(Problem::new(&name, 0, message)),
        }
    }
    if sources.len() > FILES {
        problems.push(Problem::new(&Arc::from("."), 0, format!("more than {FILES} policy files")));
    }
    Ok(sources)
}

/// Test files in order of name.
pub(crate) fn tests(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    paths(folder, is_test)
}

pub(crate) fn is_policy(path: &Path) -> bool {
    has_suffix(path, ".yaml") && !is_test(path)
}

fn is_test(path: &Path) -> bool {
    has_suffix(path, "_test.yaml")
}

fn has_suffix(path: &Path, suffix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(suffix))
}

/// Files below `folder` that `wanted` picks, sorted; names that begin with a dot are left out.
pub(crate) fn paths(folder: &Path, wanted: fn(&Path) -> bool) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(folder, DEPTH, wanted, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(
    folder: &Path,
    depth: usize,
    wanted: fn(&Path) -> bool,
    found: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    if depth == 0 || found.len() > FILES {
        return Err(std::io::Error::other(format!("deeper than {DEPTH} folders or more than {FILES} files")));
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        // Follows symbolic links: a mounted configuration is often made of them.
        if path.is_dir() {
            walk(&path, depth - 1, wanted, found)?;
        } else if wanted(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// # Errors
/// Unreadable, too large, or not UTF-8.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|fault| format!("cannot be read: {fault}"))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|fault| format!("cannot be read: {fault}"))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(format!("larger than {FILE_BYTES} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".into())
}

/// Bytes of one file: a thousand rules are about 200 KiB.
const FILE_BYTES: u64 = 1 << 20;
/// Files of one bundle.
const FILES: usize = 1_000;
/// Folders in folders; also ends loops of symbolic links.
const DEPTH: usize = 8;
