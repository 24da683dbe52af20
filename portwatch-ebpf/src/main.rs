//! The kernel side: catches every refused bind and listen, and reports it in
//! one [`portwatch_common::BindFailure`]. It observes and never interferes.
//!
//! Two sets of hooks, of which user space attaches one: [`hooks::fexit`], to
//! which [`hooks::culprit`] adds the socket that refused, and
//! [`hooks::tracepoint`]. Both have [`hooks::state`], for the [`record`] of who
//! holds which port, [`hooks::cgroups`], which remembers those that are gone, and
//! [`hooks::files`], which searches when asked.
//! [`hooks::cookie`] helps the fexit set on old kernels, [`hooks::forks`] both sets there.
//! [`hooks::listens`] is for `portwatch wait` alone.

#![no_std]
#![no_main]

mod hooks {
    pub mod cgroups;
    pub mod cookie;
    pub mod culprit;
    pub mod fexit;
    pub mod files;
    pub mod forks;
    pub mod listens;
    pub mod state;
    pub mod tracepoint;
}
mod call;
mod layout;
mod limit;
mod maps;
mod record;
mod report;
mod sock;
mod task;
mod tree;

/// Lets the verifier hand out GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
