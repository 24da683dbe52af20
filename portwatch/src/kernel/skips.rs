//! Counts how often the kernel skipped a program. While a task is preempted or interrupted in
//! the middle of a program, the kernel skips that program for all other tasks on the same
//! processor (`bpf_prog_get_recursion_context`, include/linux/bpf.h).

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use aya::Ebpf;

use super::sets::Probe;

/// The count of one attached program.
pub struct Skips {
    /// Its name.
    pub program: &'static str,
    told_by: PathBuf,
}

impl Skips {
    /// Opens the count of each program. It can be read as long as `ebpf` exists.
    pub fn of(ebpf: &Ebpf, probes: &[Probe]) -> Vec<Self> {
        let one = |probe: &Probe| {
            let fd = ebpf.program(probe.program)?.fd().ok()?.as_fd().as_raw_fd();
            let told_by = PathBuf::from(format!("/proc/self/fdinfo/{fd}"));
            Some(Self { program: probe.program, told_by })
        };
        probes.iter().filter_map(one).collect()
    }

    /// Returns the count so far (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c), or `None` if
    /// the kernel does not report it, up to 5.11.
    pub fn count(&self) -> Option<u64> {
        count_in(&fs::read_to_string(&self.told_by).ok()?)
    }
}

fn count_in(text: &str) -> Option<u64> {
    let mut values = text.lines().filter_map(|line| line.strip_prefix("recursion_misses:"));
    values.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::count_in;

    #[test]
    fn the_count_is_one_line_among_others() {
        let text = "pos:\t0\nprog_type:\t26\nrun_cnt:\t4\nrecursion_misses:\t685\n";
        assert_eq!(count_in(text), Some(685));
        assert_eq!(count_in("prog_type:\t26\nrun_cnt:\t4\n"), None, "an older kernel");
    }
}
