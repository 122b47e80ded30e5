//! `provider#name` → the secret, read at the moment it is used; a file that changes is read again.
//! It refuses files that others can read, names it does not know, and empty values; and it never prints a value.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use weir_core::policy::SecretName;
use zeroize::{Zeroize, Zeroizing};

use super::Stamp;
use crate::config::SecretProvider;

/// Every provider of the configuration.
#[derive(Debug)]
pub struct Secrets {
    providers: BTreeMap<String, Provider>,
}

#[derive(Debug)]
enum Provider {
    File(Mutex<Vault>),
    Env(String),
}

/// One file of secrets as it was when last read.
struct Vault {
    path: PathBuf,
    stamp: Stamp,
    looked: Instant,
    values: BTreeMap<String, Value>,
}

/// Wiped when dropped; no Debug.
struct Value(String);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Vault").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Opens every provider once, so that a wrong file is known at the start.
    ///
    /// # Errors
    /// In words, without a value: unreadable file, readable by others, no flat YAML map of texts.
    pub fn load(config: &BTreeMap<String, SecretProvider>) -> Result<Secrets, String> {
        let mut providers = BTreeMap::new();
        for (name, provider) in config {
            let provider = match provider {
                SecretProvider::File(path) => Provider::File(Mutex::new(Vault::open(path)?)),
                SecretProvider::Env(prefix) => Provider::Env(prefix.clone()),
            };
            providers.insert(name.clone(), provider);
        }
        Ok(Secrets { providers })
    }

    /// The secret's bytes, wiped when dropped. Call it after the verdict, never before.
    ///
    /// # Errors
    /// In words, without a value: unknown provider or name, empty value, a file that has become unusable (its old values
    /// are not used any more).
    pub fn secret(&self, name: &SecretName) -> Result<Zeroizing<Vec<u8>>, String> {
        let SecretName { provider, name } = name;
        let found = match self.providers.get(provider) {
            None => return Err(format!("weir.yaml names no secret provider {provider:?}")),
            Some(Provider::Env(prefix)) => {
                std::env::var(format!("{prefix}{name}")).ok().map(String::into_bytes)
            }
            Some(Provider::File(vault)) => {
                let mut vault = vault.lock().unwrap_or_else(PoisonError::into_inner);
                vault.refresh()?;
                vault.values.get(name).map(|value| value.0.clone().into_bytes())
            }
        };
        match found.map(Zeroizing::new) {
            None => Err(format!("secret provider {provider:?} has no {name:?}")),
            Some(value) if value.is_empty() => Err(format!("secret {provider}#{name} is empty")),
            Some(value) => Ok(value),
        }
    }

    /// Whether a policy may name this provider at all; checked when policies load.
    #[must_use]
    pub fn has_provider(&self, provider: &str) -> bool {
        self.providers.contains_key(provider)
    }
}

impl Vault {
    fn open(path: &Path) -> Result<Vault, String> {
        let failed = |reason: &str| format!("secrets {}: {reason}", path.display());
        let opened = File::open(path).map_err(|fault| failed(&fault.to_string()))?;
        // Judged on the open file, so nobody swaps it in between.
        let facts = opened.metadata().map_err(|fault| failed(&fault.to_string()))?;
        is_private(&facts).map_err(|reason| failed(&reason))?;
        let mut text = Zeroizing::new(String::new());
        opened
            .take(FILE_BYTES)
            .read_to_string(&mut text)
            .map_err(|fault| failed(&fault.kind().to_string()))?;
        let values = parse(&text).map_err(|reason| failed(&reason))?;
        Ok(Vault { path: path.into(), stamp: Stamp::from(&facts), looked: Instant::now(), values })
    }

    fn refresh(&mut self) -> Result<(), String> {
        if self.looked.elapsed() < LOOK_EACH {
            return Ok(());
        }
        let failed = |reason: String| format!("secrets {}: {reason}", self.path.display());
        let stamp = Stamp::of(&self.path).map_err(|fault| failed(fault.to_string()))?;
        if stamp != self.stamp {
            *self = Vault::open(&self.path)?;
        }
        self.looked = Instant::now();
        Ok(())
    }
}

fn is_private(facts: &Metadata) -> Result<(), String> {
    if !facts.is_file() {
        return Err("not a regular file".into());
    }
    if facts.size() > FILE_BYTES {
        return Err(format!("larger than {FILE_BYTES} bytes"));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(format!("mode {:o} lets others at it: chmod 600", facts.mode() & 0o777));
    }
    let us = rustix::process::geteuid().as_raw();
    if facts.uid() != 0 && facts.uid() != us {
        return Err(format!("belongs to uid {}: chown it to root or to weir's user", facts.uid()));
    }
    Ok(())
}

/// A flat map. The parser's own messages quote the text around a mistake, so only the line is told.
fn parse(text: &str) -> Result<BTreeMap<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let values: BTreeMap<String, String> = serde_saphyr::from_str(text).map_err(|fault| {
        let line = fault.location().map_or_else(String::new, |at| format!(" (line {})", at.line()));
        format!("not a map of names to texts{line}")
    })?;
    Ok(values.into_iter().map(|(name, value)| (name, Value(value))).collect())
}

/// A rotated secret is in use within this time.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// Largest file of secrets.
const FILE_BYTES: u64 = 1024 * 1024;
