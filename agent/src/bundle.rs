//! A folder of policy files → a compiled [`Policy`], loaded again within a second of a change.
//! It refuses half a bundle: one problem anywhere and the policy in force stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use weir_core::policy::{Document, Policy, Problem, Surroundings, Version, zone_names};

use crate::config::Config;
use crate::kernel;
use crate::lane::message::Sources;

mod commit;
pub(crate) mod folder;
mod watch;
pub(crate) mod yaml;
mod zone;

pub use folder::SourceFile;
pub use watch::{Live, Reload};
pub use yaml::documents;

/// A bundle that was read and compiled.
#[derive(Debug)]
pub struct Bundle {
    pub policy: Policy,
    /// The files it was made of, in canonical order.
    pub files: Vec<PathBuf>,
    /// Their text, for the relaying process.
    pub sources: Sources,
}

/// Why a folder is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("cannot read the policy folder {path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("{path}: no policy file here (*.yaml, not *_test.yaml)")]
    Empty { path: PathBuf },
    #[error("{} in {path}:\n{}", count(.problems), lines(.problems))]
    Problems { path: PathBuf, problems: Vec<Problem> },
}

/// Reads every `*.yaml` below `folder` except tests, and compiles them together.
///
/// # Errors
/// The folder cannot be read, holds no policy file, or has problems: all of them, with file and line.
pub fn load(folder: &Path, surroundings: &Surroundings) -> Result<Bundle, BundleError> {
    let mut problems = Vec::new();
    let sources = folder::read(folder, &mut problems)
        .map_err(|source| BundleError::Folder { path: folder.into(), source })?;
    if sources.is_empty() && problems.is_empty() {
        return Err(BundleError::Empty { path: folder.into() });
    }
    let files = sources.iter().map(|source| source.path.clone()).collect();
    let texts = sources.into_iter().map(|source| (source.name.to_string(), source.text)).collect();
    let mut sources = Sources { commit: commit::of(folder), files: texts, zones: BTreeMap::new() };
    let documents = read(&sources, &mut problems);
    sources.zones = zone::tables(&zone_names(&documents));
    match compile_read(&documents, &sources, surroundings, problems) {
        Ok(policy) => Ok(Bundle { policy, files, sources }),
        Err(problems) => Err(BundleError::Problems { path: folder.into(), problems }),
    }
}

/// Compiles the text of a bundle's files.
///
/// # Errors
/// All problems, sorted, with those that were found before.
pub fn compile(
    sources: &Sources,
    surroundings: &Surroundings,
    mut problems: Vec<Problem>,
) -> Result<Policy, Vec<Problem>> {
    let documents = read(sources, &mut problems);
    compile_read(&documents, sources, surroundings, problems)
}

fn compile_read(
    documents: &[Document],
    sources: &Sources,
    surroundings: &Surroundings,
    mut problems: Vec<Problem>,
) -> Result<Policy, Vec<Problem>> {
    let mut surroundings = surroundings.clone();
    surroundings.zones.extend(sources.zones.clone());
    let version = Version { commit: sources.commit.clone(), sha: digest(&sources.files) };
    match Policy::compile(documents, &surroundings, version) {
        Ok(policy) if problems.is_empty() => return Ok(policy),
        Ok(_) => {}
        Err(more) => problems.extend(more),
    }
    problems.sort();
    problems.dedup();
    Err(problems)
}

fn read(sources: &Sources, problems: &mut Vec<Problem>) -> Vec<Document> {
    let read = |(name, text): &(String, String)| yaml::documents(&Arc::from(name.as_str()), text, problems);
    sources.files.iter().flat_map(read).collect()
}

/// What the configuration knows of the names that policies use, and which layers of the fence this host does not have:
/// none for those who only read names.
#[must_use]
pub fn surroundings(config: &Config, missing: &[&str]) -> Surroundings {
    let groups: BTreeSet<&String> = config.people.iter().flat_map(|person| &person.groups).collect();
    Surroundings {
        workloads: Some(config.workloads.iter().map(|workload| workload.name.clone()).collect()),
        users: Some(config.people.iter().map(|person| person.user.clone()).collect()),
        groups: Some(groups.into_iter().cloned().collect()),
        providers: Some(config.secrets.keys().cloned().collect()),
        layers: Some(
            kernel::LAYERS.iter().map(|layer| ((*layer).to_owned(), !missing.contains(layer))).collect(),
        ),
        zones: Default::default(),
    }
}

/// SHA-256 over each file in order of name: name, NUL, length in decimal, NUL, bytes.
fn digest(files: &[(String, String)]) -> String {
    let mut digest = Sha256::new();
    for (name, text) in files {
        digest.update(name.as_bytes());
        digest.update([0]);
        digest.update(text.len().to_string());
        digest.update([0]);
        digest.update(text.as_bytes());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn count(problems: &[Problem]) -> String {
    match problems.len() {
        1 => "1 problem".into(),
        many => format!("{many} problems"),
    }
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests;
