//! Builds the kernel object from `agent-ebpf` with a nested cargo, so that one `cargo build` makes the whole product.
//! It refuses to go on without the toolchain, since an agent without its fence guards nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const SETUP: &str = "run `cargo xtask setup` once: it installs what the kernel programs need";

fn main() {
    if let Err(fault) = build() {
        println!("cargo::error={fault}");
    }
}

fn build() -> Result<(), String> {
    let out: PathBuf = std::env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?.into();
    let agent: PathBuf =
        std::env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo did not set CARGO_MANIFEST_DIR")?.into();
    let source = agent.parent().ok_or("the agent has no parent folder")?.join("agent-ebpf");
    println!("cargo::rerun-if-changed={}", source.join("src").display());
    println!("cargo::rerun-if-changed={}", source.join("Cargo.toml").display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=WEIR_BPF_LINKER");
    let linker = linker()?;
    println!("cargo::rerun-if-changed={}", linker.display());

    // One build for all profiles: OUT_DIR is <target>/<profile>/build/<package>/out.
    let target = out.ancestors().nth(4).ok_or("OUT_DIR is not where cargo puts it")?.join("ebpf");
    let toolchain = Toolchain::find()?;
    let done = toolchain
        .cargo(&linker)
        .current_dir(&source)
        .args([
            "build",
            "--profile",
            "ebpf",
            "--features",
            "kernel",
            "--bin",
            "weir-ebpf",
            "--target",
            TARGET,
        ])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .output()
        .map_err(|fault| format!("cannot start {}: {fault}; {SETUP}", toolchain.cargo.display()))?;
    if !done.status.success() {
        let text = String::from_utf8_lossy(&done.stderr);
        for line in text.lines() {
            println!("cargo::warning={line}");
        }
        return Err(format!("the kernel programs do not build (see above). If a tool is missing, {SETUP}"));
    }
    let object = target.join(TARGET).join("ebpf/weir-ebpf");
    std::fs::copy(&object, out.join("weir-ebpf.o"))
        .map_err(|fault| format!("{}: {fault}", object.display()))?;
    Ok(())
}

/// bpf-linker: named by WEIR_BPF_LINKER, put into the cache by the set-up, or in PATH.
fn linker() -> Result<PathBuf, String> {
    let named = std::env::var_os("WEIR_BPF_LINKER").map(PathBuf::from);
    let cached = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/weir/bin/bpf-linker"));
    let in_path = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).map(|dir| dir.join("bpf-linker")).collect::<Vec<_>>())
        .unwrap_or_default();
    let found = named.into_iter().chain(cached).chain(in_path).find(|path| path.is_file());
    found.ok_or_else(|| format!("bpf-linker is missing: {SETUP}"))
}

/// A compiler with the source of its own `core` beside it.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    /// Debian's compiler must not find rustup's.
    path: Option<&'static str>,
}

impl Toolchain {
    fn find() -> Result<Self, String> {
        let cargo: PathBuf = std::env::var_os("CARGO").ok_or("cargo did not set CARGO")?.into();
        let rustc: PathBuf = std::env::var_os("RUSTC").ok_or("cargo did not set RUSTC")?.into();
        let printed = Command::new(&rustc).args(["--print", "sysroot"]).output();
        let sysroot = printed.map_err(|fault| format!("{}: {fault}", rustc.display()))?.stdout;
        let core = "lib/rustlib/src/rust/library/core";
        if Path::new(String::from_utf8_lossy(&sysroot).trim()).join(core).is_dir() {
            return Ok(Self { cargo, rustc, path: None });
        }
        if Path::new("/usr").join(core).is_dir() && Path::new("/usr/bin/cargo").is_file() {
            return Ok(Self {
                cargo: "/usr/bin/cargo".into(),
                rustc: "/usr/bin/rustc".into(),
                path: Some("/usr/bin:/bin"),
            });
        }
        Err(format!("no Rust compiler here has the source of `core` beside it: {SETUP}"))
    }

    fn cargo(&self, linker: &Path) -> Command {
        let mut command = Command::new(&self.cargo);
        // What belongs to the outer build must not reach the inner one.
        for name in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
        ] {
            command.env_remove(name);
        }
        if let Some(path) = self.path {
            command.env("PATH", path).env_remove("RUSTUP_TOOLCHAIN");
        }
        let arch = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_else(|_| "x86_64".into());
        let flags = [&format!("--cfg=bpf_target_arch=\"{arch}\""), "-Cdebuginfo=2", "-Clink-arg=--btf"]
            .join("\u{1f}");
        command
            .env("RUSTC", &self.rustc)
            // `-Z build-std` needs it; only the nested build may have it.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
            .env("CARGO_ENCODED_RUSTFLAGS", flags);
        command
    }
}
