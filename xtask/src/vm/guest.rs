//! One boot: qemu without hardware virtualisation, two serial lines into files, a time limit, and what the guest said.
//! It refuses to wait for ever, and gives a guest that broke down, which emulation does now and then, one more try.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::image::Base;
use super::kernel::Kernel;

/// A boot and all tests take a minute on a busy host.
const LIMIT: Duration = Duration::from_secs(420);

/// What a guest said on its own line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    parts: Vec<Part>,
    /// Turned itself off after the last part.
    pub(super) done: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Part {
    name: String,
    pub(super) lines: Vec<String>,
    /// Exit status; `None` when it did not come to an end.
    pub(super) status: Option<i32>,
}

impl Report {
    pub(super) fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|part| part.name == name)
    }

    /// The lines of `/init`: `@vm begin NAME`, `@vm end NAME STATUS`, `@vm done`.
    pub(super) fn parse(text: &str) -> Report {
        let mut report = Report::default();
        for line in text.lines().map(|line| line.trim_end_matches('\r')) {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["@vm", "begin", name] => {
                    report.parts.push(Part { name: (*name).to_owned(), ..Part::default() });
                }
                ["@vm", "end", name, status] => {
                    let part = report.parts.last_mut().filter(|part| part.name == *name);
                    if let Some(part) = part {
                        part.status = status.parse().ok();
                    }
                }
                ["@vm", "done"] => report.done = true,
                _ => {
                    if let Some(part) = report.parts.last_mut().filter(|part| part.status.is_none()) {
                        part.lines.push(line.to_owned());
                    }
                }
            }
        }
        report
    }
}

/// Boots a kernel, twice when the first guest broke down.
pub(super) fn boot(base: &Base, kernel: &Kernel, folder: &Path) -> Result<Report> {
    let image = base.with(kernel, folder)?;
    let logs = folder.join("logs");
    fs::create_dir_all(&logs)?;
    let said = logs.join(format!("{}.log", kernel.release));
    let console = logs.join(format!("{}.console", kernel.release));
    for retry in [true, false] {
        let mut qemu = qemu(kernel, &image, &console, &said).spawn().context("cannot start qemu")?;
        let ended = wait(&mut qemu)?;
        let report = Report::parse(&String::from_utf8_lossy(&fs::read(&said)?));
        let broke = broke_down(&String::from_utf8_lossy(&fs::read(&console)?));
        if report.done || !retry || !(broke || ended.is_none()) {
            return Ok(report);
        }
        let why = if broke { "broke down" } else { "did not end" };
        eprintln!("vm: {}: the guest {why} ({}); once more", kernel.release, console.display());
    }
    Ok(Report::default())
}

fn qemu(kernel: &Kernel, image: &Path, console: &Path, said: &Path) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]);
    qemu.args(["-display", "none", "-monitor", "none", "-nic", "none", "-no-reboot"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(image);
    qemu.args(["-append", "console=ttyS0 loglevel=4 oops=panic panic=-1 rdinit=/init"]);
    for line in [console, said] {
        qemu.arg("-serial").arg(format!("file:{}", line.display()));
    }
    qemu.stdin(Stdio::null());
    qemu
}

/// `None` when it had to be killed.
fn wait(qemu: &mut Child) -> Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        if let Some(status) = qemu.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    qemu.kill()?;
    qemu.wait()?;
    Ok(None)
}

fn broke_down(console: &str) -> bool {
    ["Kernel panic", "Oops:", "BUG: "].iter().any(|sign| console.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_says_is_read_part_by_part() {
        let text = "noise\r\n@vm kernel 6.1\r\n@vm begin check\r\n{}\r\n@vm end check 1\r\n@vm begin fence\r\n  ok  a\r\n";
        let report = Report::parse(text);
        assert_eq!(report.part("check").unwrap().status, Some(1));
        assert_eq!(report.part("check").unwrap().lines, ["{}"]);
        assert_eq!(report.part("fence").unwrap().status, None);
        assert!(!report.done && report.part("agent").is_none());
        assert!(Report::parse("@vm done\r\n").done);
    }

    #[test]
    fn a_panic_is_told_from_silence() {
        assert!(broke_down("[    1.0] Kernel panic - not syncing: Fatal exception"));
        assert!(!broke_down("[    1.0] Run /init as init process"));
    }
}
