//! The guests' root: one archive for all, with the product, its tests and the libraries they need, and one for each kernel
//! with its modules. It refuses to compress: unpacking would cost an emulated processor more than copying.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::kernel::Kernel;
use crate::build;

const INIT: &str = include_str!("init");
const CONFIG: &str = "\
node: guest
workloads: [{name: guest, owner: alice@acme.example}]
policies: /vm/policies
audit: {dir: /tmp/audit}
tls: {dir: /tmp/ca}
control: /run/weir.sock
";
const POLICY: &str = "\
policy: guest
target: {protocol: http, host: 127.0.0.1, port: 8080}
mode: enforce
default: deny
rules:
  - {name: the-lab, match: {http: {method: [GET], path: [/index.txt]}}, then: allow}
";

/// What all guests share.
#[derive(Debug)]
pub(super) struct Base {
    archive: PathBuf,
}

impl Base {
    pub(super) fn build(folder: &Path) -> Result<Base> {
        let (weir, fence) = binaries()?;
        let root = folder.join("root");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for binary in [&weir, &fence] {
            // At their own paths: the tests know where the product was built.
            let place = inside(&root, binary)?;
            let status =
                Command::new("strip").arg("--strip-debug").arg("-o").arg(&place).arg(binary).status()?;
            if !status.success() {
                bail!("{} cannot be stripped", binary.display());
            }
        }
        let busybox = PathBuf::from("/bin/busybox");
        fs::copy(&busybox, inside(&root, &busybox)?).context("busybox")?;
        let mut libraries = libraries(&[&weir, &fence])?;
        // Busybox's `ip` knows no network namespaces.
        if let Some(ip) = ["/usr/sbin/ip", "/usr/bin/ip", "/sbin/ip", "/bin/ip"]
            .iter()
            .map(PathBuf::from)
            .find(|ip| ip.exists())
        {
            libraries.extend(libraries_of(&ip)?);
            fs::copy(&ip, inside(&root, Path::new("/usr/sbin/ip"))?)?;
        }
        for library in libraries {
            fs::copy(&library, inside(&root, &library)?).with_context(|| library.display().to_string())?;
        }
        let paths = format!("WEIR={}\nFENCE={}\n", weir.display(), fence.display());
        for (path, text) in [
            ("/init", INIT),
            ("/vm/paths", &paths),
            ("/vm/weir.yaml", CONFIG),
            ("/vm/policies/guest.yaml", POLICY),
            ("/etc/passwd", "root:x:0:0:root:/tmp:/bin/sh\n"),
            ("/etc/resolv.conf", "nameserver 127.0.0.53\n"),
        ] {
            fs::write(inside(&root, Path::new(path))?, text)?;
        }
        executable(&root.join("init"))?;
        Ok(Base { archive: pack(&root, &folder.join("base.cpio"))? })
    }

    /// The whole image for one kernel: the kernel unpacks archives that follow each other.
    pub(super) fn with(&self, kernel: &Kernel, folder: &Path) -> Result<PathBuf> {
        let root = folder.join("modules");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for (number, module) in kernel.modules.iter().enumerate() {
            let name = module.file_name().context("a module without name")?.to_string_lossy();
            let (name, compressed) = match name.strip_suffix(".xz") {
                Some(name) => (name, true),
                None => (&*name, false),
            };
            let place = inside(&root, Path::new(&format!("/modules/{number:02}-{name}")))?;
            if compressed {
                let output = Command::new("xz").args(["-d", "-c"]).arg(module).output()?;
                fs::write(place, output.stdout)?;
            } else {
                fs::copy(module, place)?;
            }
        }
        fs::create_dir_all(&root)?;
        let modules = pack(&root, &folder.join("modules.cpio"))?;
        let whole = folder.join("image.cpio");
        let mut out = fs::File::create(&whole)?;
        for archive in [&self.archive, &modules] {
            std::io::copy(&mut fs::File::open(archive)?, &mut out)?;
        }
        Ok(whole)
    }
}

/// The product and the fence's tests, as cargo built them.
fn binaries() -> Result<(PathBuf, PathBuf)> {
    eprintln!("vm: building the product and the fence's tests …");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "--package", "weir", "--test", "fence", "--no-run", "--message-format=json"]);
    let output = cargo.current_dir(build::root()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the fence's tests do not build");
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = |name: &str, kind: &str| {
        executable_of(&messages, name, kind).with_context(|| format!("cargo built no {name}"))
    };
    Ok((built("weir", "bin")?, built("fence", "test")?))
}

/// Of cargo's messages: where it put the target of this name and kind.
fn executable_of(messages: &str, name: &str, kind: &str) -> Option<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut wanted =
        artifacts.filter(|found| found["target"]["name"] == name && found["target"]["kind"][0] == kind);
    wanted.find_map(|found| found["executable"].as_str().map(PathBuf::from))
}

fn libraries(binaries: &[&PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut all = BTreeSet::new();
    for binary in binaries {
        all.extend(libraries_of(binary)?);
    }
    Ok(all)
}

fn libraries_of(binary: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(binary).output().context("cannot start ldd")?;
    Ok(paths(&String::from_utf8_lossy(&output.stdout)))
}

/// `libc.so.6 => /lib/libc.so.6 (0x…)`, and the loader without an arrow.
fn paths(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// Where a file of the guest is made, with the folders above it.
fn inside(root: &Path, path: &Path) -> Result<PathBuf> {
    let place = root.join(path.strip_prefix("/").unwrap_or(path));
    fs::create_dir_all(place.parent().unwrap_or(root))?;
    Ok(place)
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Packs a folder as the kernel wants it (Documentation/driver-api/early-userspace/buffer-format.rst).
fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let mut names = vec![".".to_owned()];
    list(root, Path::new("."), &mut names)?;
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc", "-R", "0:0"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(archive)?)
        .spawn()
        .context("cannot start cpio")?;
    cpio.stdin.take().context("cpio reads nothing")?.write_all(names.join("\n").as_bytes())?;
    if !cpio.wait()?.success() {
        bail!("cpio failed");
    }
    Ok(archive.to_owned())
}

/// Everything below, folders before what is in them.
fn list(root: &Path, below: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let path = below.join(entry.file_name());
        names.push(path.to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            list(root, &path, names)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text =
            "\tlinux-vdso.so.1 (0x7f)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld.so.2 (0x7f)\n";
        assert_eq!(paths(text), [PathBuf::from("/lib/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]);
    }

    #[test]
    fn the_binaries_are_told_apart_by_name_and_kind() {
        let messages = "{\"target\":{\"name\":\"weir\",\"kind\":[\"lib\"]},\"executable\":null}\n\
                        no json\n\
                        {\"target\":{\"name\":\"weir\",\"kind\":[\"bin\"]},\"executable\":\"/t/weir\"}\n";
        assert_eq!(executable_of(messages, "weir", "bin"), Some(PathBuf::from("/t/weir")));
        assert_eq!(executable_of(messages, "fence", "test"), None);
    }
}
