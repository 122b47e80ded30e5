//! The kernel programs. All attach at one cgroup high in the tree and decide inside whom they concern: hooks follow
//! the cgroup a socket was born in, so a hook on the workload's own cgroup is passed by a socket from elsewhere.
//! They refuse whatever a labelled task tries and the agent cannot see; unlabelled tasks are never touched.
#![no_std]
#![no_main]
// The target has atomic addition, the language does not know it yet; the nested build is the only one of this file.
#![feature(asm_experimental_arch)]

mod birth;
mod connect;
mod create;
mod fits;
mod guard;
mod label;
mod maps;
mod origin;
mod peer;
mod question;
mod refusal;
mod task;
mod udp;
mod unix;
mod wall;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Unreachable: the verifier proves that the programs end. It is required by the language.
    loop {}
}

/// Several helpers are open to GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
