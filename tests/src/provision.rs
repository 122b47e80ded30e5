//! The lab of the demo: servers made by the same scripts that provision the Vagrant machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

/// A server that one of `vagrant/provision/*.sh` made and started; dropping it stops it.
#[derive(Debug)]
pub struct Provisioned {
    script: PathBuf,
    pub dir: PathBuf,
    pub port: u16,
}

impl Provisioned {
    /// Runs `vagrant/provision/NAME.sh DIR PORT`.
    ///
    /// # Errors
    /// The script failed; its own words.
    pub fn start(name: &str, dir: &Path, port: u16) -> anyhow::Result<Provisioned> {
        let script = root().join(format!("vagrant/provision/{name}.sh"));
        // The servers that it leaves running must not hold our output open.
        let log = dir.with_extension("provision.log");
        let file = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = Command::new("sh");
        command.arg(&script).arg(dir).arg(port.to_string()).stdout(file.try_clone()?).stderr(file);
        let status = command.status().with_context(|| script.display().to_string())?;
        if !status.success() {
            bail!("{}: {}", script.display(), std::fs::read_to_string(&log)?);
        }
        Ok(Provisioned { script, dir: dir.into(), port })
    }

    /// A file that the script made.
    ///
    /// # Errors
    /// It is not there.
    pub fn read(&self, name: &str) -> anyhow::Result<String> {
        let path = self.dir.join(name);
        Ok(std::fs::read_to_string(&path).with_context(|| path.display().to_string())?.trim().to_owned())
    }
}

impl Drop for Provisioned {
    fn drop(&mut self) {
        let _ = Command::new("sh").arg(&self.script).arg(&self.dir).arg("stop").output();
    }
}

/// The root of the checkout.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
