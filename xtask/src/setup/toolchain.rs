//! The toolchain of the kernel programs: a Rust compiler with the source of its `core`, and bpf-linker built against
//! that compiler's own LLVM, so that no other LLVM is installed. It refuses a linker older than the compiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{ask, cache, step};

const LINKER_VERSION: &str = "0.13.0";

pub(super) fn install() -> Result<()> {
    let compiler = match Compiler::of_rustup() {
        Ok(compiler) => compiler,
        Err(fault) => {
            println!(
                "setup: rustup cannot help ({fault:#}); Debian's compiler is taken for the kernel programs"
            );
            Compiler::of_debian()?
        }
    };
    let llvm = cache()?.join("llvm");
    compiler.link_llvm(&llvm)?;
    let linker = cache()?.join("bin/bpf-linker");
    if is_built_for(&linker, &compiler.llvm_major) {
        return Ok(());
    }
    let feature = format!("llvm-{}", compiler.llvm_major);
    let mut install = compiler.cargo();
    install.env("LLVM_PREFIX", &llvm).args(["install", "bpf-linker", "--version", LINKER_VERSION]);
    install
        .args(["--locked", "--force", "--no-default-features", "--features", &feature, "--root"])
        .arg(cache()?);
    step("bpf-linker links the kernel programs (about a minute, once)", &mut install)?;
    if !is_built_for(&linker, &compiler.llvm_major) {
        bail!("{} was built and does not run", linker.display());
    }
    Ok(())
}

/// Does the linker run, with an LLVM as new as the compiler's?
fn is_built_for(linker: &Path, llvm_major: &str) -> bool {
    let runs = linker.to_str().and_then(|linker| ask(linker, &["--version"])).is_some();
    // cargo keeps the features of what it installed here.
    let installed = linker.ancestors().nth(2).map(|root| root.join(".crates2.json"));
    let record = installed.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    runs && record.contains(&format!("\"bpf-linker {LINKER_VERSION} "))
        && record.contains(&format!("\"llvm-{llvm_major}\""))
}

struct Compiler {
    cargo: PathBuf,
    /// Where the other compiler must not be found.
    path: Option<&'static str>,
    libllvm: PathBuf,
    llvm_major: String,
}

impl Compiler {
    /// The compiler in use, when rustup gave it: it gets the source of `core` as a component.
    fn of_rustup() -> Result<Self> {
        let sysroot = PathBuf::from(ask("rustc", &["--print", "sysroot"]).context("no rustc in PATH")?);
        if !has_core(&sysroot) {
            let toolchain =
                sysroot.file_name().and_then(|name| name.to_str()).context("a sysroot without name")?;
            let mut add = Command::new("rustup");
            add.args(["component", "add", "rust-src", "--toolchain", toolchain]);
            step("`core` is built for the kernel's instruction set from its source", &mut add)?;
        }
        let libllvm =
            find(&sysroot.join("lib"), |name| name.starts_with("libLLVM.so.") && name.contains("-rust-"))
                .context("this compiler has no libLLVM of its own")?;
        Ok(Self { cargo: "cargo".into(), path: None, libllvm, llvm_major: llvm_major("rustc")? })
    }

    /// Debian's newer compiler, kept beside the distribution's default one for building browsers.
    fn of_debian() -> Result<Self> {
        if !has_core(Path::new("/usr")) || !Path::new("/usr/bin/cargo").is_file() {
            let mut install = Command::new("apt-get");
            install.env("DEBIAN_FRONTEND", "noninteractive");
            install.args([
                "install",
                "-y",
                "-q",
                "--no-install-recommends",
                "rustc-web",
                "cargo-web",
                "rust-web-src",
            ]);
            step("a compiler with the source of its `core`", &mut install)?;
        }
        let llvm_major = llvm_major("/usr/bin/rustc")?;
        let is_it = |name: &str| {
            name.starts_with(&format!("libLLVM.so.{llvm_major}"))
                || name == format!("libLLVM-{llvm_major}.so.1")
        };
        let folder = fs::read_dir("/usr/lib")?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| find(path, is_it).is_some());
        let libllvm =
            folder.and_then(|folder| find(&folder, is_it)).context("Debian's libLLVM is missing")?;
        Ok(Self { cargo: "/usr/bin/cargo".into(), path: Some("/usr/bin:/bin"), libllvm, llvm_major })
    }

    fn cargo(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        // A cargo that runs this program has set these for itself.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        if let Some(path) = self.path {
            cargo.env("PATH", path).env_remove("RUSTUP_TOOLCHAIN");
        }
        cargo
    }

    /// A folder that looks like an LLVM installation. The linker keeps its path, so it must stay where it is; both the
    /// name for linking and the name for running point to the compiler's library.
    fn link_llvm(&self, llvm: &Path) -> Result<()> {
        let folder = llvm.join("lib");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let soname = self.libllvm.file_name().context("a library without name")?;
        for name in [Path::new("libLLVM.so"), Path::new(soname)] {
            let link = folder.join(name);
            if fs::read_link(&link).is_ok_and(|target| target == self.libllvm) {
                continue;
            }
            println!("setup: {} → {}", link.display(), self.libllvm.display());
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&self.libllvm, &link).with_context(|| link.display().to_string())?;
        }
        Ok(())
    }
}

fn has_core(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core").is_dir()
}

fn llvm_major(rustc: &str) -> Result<String> {
    let version = ask(rustc, &["-vV"]).with_context(|| format!("{rustc} does not run"))?;
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .context("rustc names no LLVM")?;
    Ok(llvm.split('.').next().unwrap_or(llvm).to_owned())
}

fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().find(|entry| entry.file_name().to_str().is_some_and(&is_it)).map(|entry| entry.path())
}
