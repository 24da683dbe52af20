//! Records the paths of removed control groups. A service that cannot bind exits at once, and
//! systemd removes its group a few milliseconds later. After that, only this map names the
//! unit. All hook sets contain this program.

use aya_ebpf::{helpers::bpf_snprintf, macros::btf_tracepoint, programs::BtfTracePointContext};
use portwatch_common::CGROUP_PATH;

use crate::{
    layout::load,
    maps::{GONE_CGROUPS, GONE_OF_USERS, PATH},
};

/// The id of the cgroup2 hierarchy. Group ids are unique within one hierarchy.
const CGROUP2: i32 = 0;

/// The groups that users may create.
const USERS: &[u8] = b"/user.slice/";

/// It is in the read-only section, as `bpf_snprintf` (5.13) requires.
#[unsafe(no_mangle)]
static PLAIN: [u8; 3] = *b"%s\0";

/// Called after the group is removed, with its path from the hierarchy's root.
///
/// match-proto: `void (struct cgroup *cgrp, const char *path)`
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn pw_cgroup_gone(ctx: BtfTracePointContext) -> i32 {
    let cgroup: *const u8 = ctx.arg(0);
    let root = load!(cgroup, cgroup_root, *const u8);
    if load!(root, root_hierarchy, i32) != CGROUP2 {
        return 0;
    }
    let node = load!(cgroup, cgroup_kn, *const u8);
    let id = load!(node, kernfs_id, u64);
    let Some(path) = PATH.get_ptr_mut(0) else {
        return 0;
    };
    let mut values = [ctx.arg::<u64>(1)];
    // SAFETY: the slot belongs to this CPU, and the kernel calls this with interrupts disabled
    // (`TRACE_CGROUP_PATH`). The format and its one value are valid for the whole call, and so
    // is the path, which the helper reads without faulting.
    unsafe {
        let (to, format) = (path.cast(), PLAIN.as_ptr().cast());
        let length = bpf_snprintf(to, CGROUP_PATH as u32, format, values.as_mut_ptr(), 8);
        if length > 0 && length <= CGROUP_PATH as i64 {
            let path = &*path;
            let gone = if path.starts_with(USERS) { &GONE_OF_USERS } else { &GONE_CGROUPS };
            let _ = gone.insert(id, path, 0);
        }
    }
    0
}
