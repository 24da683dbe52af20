//! The kernel side: catches every failed bind and listen, and reports each in one
//! [`portwatch_common::BindFailure`]. It observes and never interferes.
//!
//! User space attaches one of three hook sets: [`hooks::fexit`], to which [`hooks::culprit`] adds
//! the blocking socket, [`hooks::kprobe`], or [`hooks::tracepoint`]. All sets contain
//! [`hooks::state`], for the owner [`record`], [`hooks::cgroups`], which keeps the paths of
//! removed control groups, [`hooks::ends`], which sees what processes with failed binds do next,
//! and [`hooks::files`], which runs on request. [`hooks::cookie`] supports the fexit set on old
//! kernels and the kprobe set, [`hooks::begin`] both on new kernels, [`hooks::forks`] supports all
//! sets. [`hooks::listens`] is for `portwatch wait` only.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "core::sync::atomic has no additions for this target")]

mod hooks {
    /// The value that lets a bind continue. Any other value from a cgroup program makes the bind
    /// fail.
    const ALLOW: i32 = 1;

    pub mod begin;
    pub mod cgroups;
    pub mod cookie;
    pub mod culprit;
    pub mod ends;
    pub mod fexit;
    pub mod files;
    pub mod forks;
    pub mod kprobe;
    pub mod listens;
    pub mod state;
    pub mod tracepoint;
}
mod binds;
mod call;
mod conflict;
mod connection;
mod exits;
mod follow;
mod layout;
mod limit;
mod maps;
mod record;
mod report;
mod sock;
mod task;
mod tree;

/// Allows GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
