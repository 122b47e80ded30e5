//! Network namespaces by name. It refuses to leave one behind: it goes with its owner.

use std::process::Command;

/// A named network namespace, removed when this is dropped.
#[derive(Debug)]
pub struct Netns(String);

impl Netns {
    /// # Errors
    /// iproute2 is missing, or may not (CAP_SYS_ADMIN).
    pub fn add(name: &str) -> anyhow::Result<Netns> {
        let name = format!("weir-{name}-{}", std::process::id());
        let added = Command::new("ip").args(["netns", "add", &name]).status()?;
        anyhow::ensure!(added.success(), "ip netns add {name}");
        Ok(Netns(name))
    }

    /// A command inside. Not by `ip netns exec`, which mounts another /sys, without cgroups.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).args(words);
        command
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}
