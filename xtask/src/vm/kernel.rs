//! A kernel out of its packages: the image, and the modules that the tests can use, in the order in which they load.
//! It refuses a package without both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::mirror::Mirror;

/// Loaded where the kernel has them as modules; each is optional.
const MODULES: [&str; 8] =
    ["ipv6", "veth", "dummy", "tcp_diag", "udp_diag", "unix_diag", "sctp", "virtio_rng"];

/// An unpacked kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// Each after what it needs.
    pub(super) modules: Vec<PathBuf>,
}

impl Kernel {
    /// A kernel of the mirror's, with the packages that newer releases split it into.
    pub(super) fn fetch(mirror: &Mirror, package: &str, folder: &Path) -> Result<Kernel> {
        let deb = mirror.download(package)?;
        let mut debs = vec![deb.clone()];
        let output = Command::new("dpkg-deb").arg("-f").arg(&deb).arg("Depends").output()?;
        for name in parts(&String::from_utf8_lossy(&output.stdout)) {
            debs.push(mirror.download(&name)?);
        }
        Kernel::unpack(&debs, folder)
    }

    pub(super) fn unpack(debs: &[PathBuf], folder: &Path) -> Result<Kernel> {
        let name = debs.first().and_then(|deb| deb.file_stem()).context("no package")?;
        let root = folder.join("kernels").join(name);
        // Which packages are unpacked there: another list with the same first one is another kernel.
        let marker = root.join("unpacked");
        let list: Vec<_> = debs.iter().map(|deb| deb.to_string_lossy()).collect();
        let list = list.join("\n");
        if fs::read_to_string(&marker).ok().as_ref() != Some(&list) {
            fs::create_dir_all(&root)?;
            for deb in debs {
                let status = Command::new("dpkg-deb").arg("-x").arg(deb).arg(&root).status()?;
                if !status.success() {
                    bail!("{} cannot be unpacked", deb.display());
                }
            }
            fs::write(&marker, list)?;
        }
        Kernel::of(&root)
    }

    fn of(root: &Path) -> Result<Kernel> {
        let image = find(root, |name| name.starts_with("vmlinuz-"));
        let image = image.with_context(|| format!("no kernel image in {}", root.display()))?;
        // Newer packages have /usr/lib/modules.
        let base = if root.join("usr/lib/modules").is_dir() { root.join("usr") } else { root.to_owned() };
        let mut releases = fs::read_dir(base.join("lib/modules")).context("no modules")?.flatten();
        let release = releases.next().context("no modules")?.file_name().to_string_lossy().into_owned();
        // It warns of lists that split packages have elsewhere, of what is built in: such modules load nothing anyway.
        let mut depmod = Command::new("depmod");
        let status = depmod.arg("-b").arg(&base).arg(&release).stderr(Stdio::null()).status()?;
        if !status.success() {
            bail!("depmod failed for {release}");
        }
        let mut modules: Vec<PathBuf> = Vec::new();
        for name in MODULES {
            let mut modprobe = Command::new("modprobe");
            modprobe.arg("-d").arg(&base).args(["-S", &release, "--show-depends", name]);
            let output = modprobe.output()?;
            for path in loads(&String::from_utf8_lossy(&output.stdout)) {
                if !modules.contains(&path) {
                    modules.push(path);
                }
            }
        }
        Ok(Kernel { release, image, modules })
    }
}

/// Packages that hold a kernel's parts, of a `Depends` field.
fn parts(depends: &str) -> Vec<String> {
    let words = depends.split([',', '|']).filter_map(|word| word.split_whitespace().next());
    let kinds = ["linux-binary-", "linux-modules-"];
    words.filter(|word| kinds.iter().any(|kind| word.starts_with(kind))).map(str::to_owned).collect()
}

/// Files to load, of `modprobe --show-depends`; what is built in needs none.
fn loads(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next())
        .map(PathBuf::from)
        .collect()
}

/// The kernel image, wherever the package puts it.
fn find(root: &Path, is_it: impl Fn(&str) -> bool + Copy) -> Option<PathBuf> {
    for folder in ["boot", "usr/lib/modules", "lib/modules", "usr/lib/linux"] {
        for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_it(&name) {
                return Some(entry.path());
            }
            if entry.path().join("vmlinuz").is_file() {
                return Some(entry.path().join("vmlinuz"));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_split_kernel_are_found() {
        let depends = "dracut | linux-initramfs-tool, linux-base-7.2 (= 7.2), linux-binary-7.2 (= 7.2), linux-modules-7.2";
        assert_eq!(parts(depends), ["linux-binary-7.2", "linux-modules-7.2"]);
        assert!(parts("kmod, linux-base (>= 4.3~)").is_empty());
    }

    #[test]
    fn what_is_built_in_is_not_loaded() {
        let text = "builtin ipv6\ninsmod /m/inet_diag.ko.xz \ninsmod /m/tcp_diag.ko.xz \n";
        assert_eq!(loads(text), [PathBuf::from("/m/inet_diag.ko.xz"), PathBuf::from("/m/tcp_diag.ko.xz")]);
    }
}
