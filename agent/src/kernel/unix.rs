//! The hooks for unix sockets, which aya cannot load: their attach types are newer than the library. The program is taken
//! from the same object, tied to the pinned maps, and loaded by bpf(2), once for `connect` and once for datagrams that
//! name their receiver. It refuses to be required: kernels below 6.7 have no such hooks, and then this layer is reported
//! as missing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use aya_obj::btf::{Btf, BtfKind};
use aya_obj::generated::{BPF_PSEUDO_KFUNC_CALL, bpf_insn};

use super::{Tree, load, sys};

/// In the object.
const PROGRAM: &str = "to_unix";
/// Its pins, each with its attach type: `BPF_CGROUP_UNIX_CONNECT`, `BPF_CGROUP_UNIX_SENDMSG` (include/uapi/linux/bpf.h).
pub(super) const HOOKS: [(&str, u32); 2] = [("connect_unix", UNIX_CONNECT), ("sendmsg_unix", 50)];
pub(super) const UNIX_CONNECT: u32 = 49;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
pub(super) const CGROUP_SOCK_ADDR: u32 = 18;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;

/// Loads and attaches the program at each hook, or swaps it into the link pinned there.
pub(super) fn attach(object: &[u8], folder: &Path, tree: &Tree) -> io::Result<()> {
    for ((pin, attach_type), program) in HOOKS.into_iter().zip(programs(object, folder)?) {
        load::attach_one(program.as_fd(), attach_type, &folder.join(pin), tree.node())?;
    }
    Ok(())
}

/// The program, loaded for each hook.
fn programs(object: &[u8], folder: &Path) -> io::Result<Vec<OwnedFd>> {
    let mut object = aya_obj::Object::parse(object).map_err(io::Error::other)?;
    let program =
        object.programs.get(PROGRAM).ok_or_else(|| io::Error::other("the object lacks it"))?.clone();
    object.functions.retain(|key, _| *key == program.function_key());
    let pins: Vec<(&str, OwnedFd)> = weir_ebpf::map::PINNED
        .iter()
        .map(|name| sys::open_pin(&folder.join(name)).map(|fd| (*name, fd)))
        .collect::<io::Result<_>>()?;
    let maps = object.maps.clone();
    let tied = pins.iter().filter_map(|(name, fd)| maps.get(*name).map(|map| (*name, fd.as_raw_fd(), map)));
    object.relocate_maps(tied, &std::collections::HashSet::new()).map_err(io::Error::other)?;
    let mut instructions = object
        .functions
        .into_values()
        .next()
        .ok_or_else(|| io::Error::other("the object lacks its code"))?
        .instructions;
    name_kernel_function(&mut instructions)?;
    let code = bytes(&instructions);
    // The maps stay open until the kernel holds them itself.
    HOOKS.iter().map(|(_, hook)| sys::program_load(code, &program.license, CGROUP_SOCK_ADDR, *hook)).collect()
}

/// Puts the id of `bpf_cast_to_kern_ctx` on this kernel where the object has a placeholder.
fn name_kernel_function(instructions: &mut [bpf_insn]) -> io::Result<()> {
    let kernel = Btf::from_sys_fs().map_err(io::Error::other)?;
    let id = kernel.id_by_type_name_kind("bpf_cast_to_kern_ctx", BtfKind::Func).map_err(io::Error::other)?;
    for instruction in instructions {
        if instruction.code == CALL && instruction.imm == weir_ebpf::CAST_TO_KERN_CTX as i32 {
            instruction.set_src_reg(BPF_PSEUDO_KFUNC_CALL as u8);
            instruction.imm = id as i32;
        }
    }
    Ok(())
}

fn bytes(instructions: &[bpf_insn]) -> &[u8] {
    // SAFETY: an instruction is eight bytes without padding.
    unsafe { std::slice::from_raw_parts(instructions.as_ptr().cast(), size_of_val(instructions)) }
}
