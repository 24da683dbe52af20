//! Who has a socket open, asked of the kernel: every task's table of files, and
//! of what is in it only the sockets that are looked for come out.

use aya_ebpf::{
    bindings::{seq_file, task_struct},
    helpers::generated::bpf_seq_write,
};
use portwatch_common::{ANY_SOCKET, OpenFile};

use crate::{layout::load, maps::WANTED};

/// `SOCKFS_MAGIC` (include/uapi/linux/magic.h). Inode numbers are unique only
/// within one file system.
const SOCKFS_MAGIC: u64 = 0x534f_434b;

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c): each pointer field is
/// 8 bytes wide, `fd` is padded to 8.
#[repr(C)]
pub struct TaskFile {
    meta: *const Meta,
    task: *const task_struct,
    fd: u32,
    padding: u32,
    file: *const u8,
}

/// `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// Called once for each open file of each table, and once more at the end with
/// null pointers. Tables that threads share are walked once.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn pw_files(context: *const TaskFile) -> i32 {
    // SAFETY: the verifier checks each field of the context that is read.
    let (task, file) = unsafe { ((*context).task, (*context).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    let inode = load!(file, file_inode, *const u8);
    let superblock = load!(inode, inode_sb, *const u8);
    if load!(superblock, sb_magic, u64) != SOCKFS_MAGIC {
        return 0;
    }
    let number = load!(inode, inode_number, u64);
    // SAFETY: the references are not kept.
    let wanted = unsafe { WANTED.get(number).is_some() || WANTED.get(ANY_SOCKET).is_some() };
    if !wanted {
        return 0;
    }
    // SAFETY: as above; `meta` and `seq` are never null.
    let (seq, fd) = unsafe { ((*(*context).meta).seq, (*context).fd) };
    let found = OpenFile {
        inode: number,
        pid: load!(task, task_tgid, u32),
        tid: load!(task, task_pid, u32),
        fd,
        reserved: 0,
    };
    // SAFETY: the record is on this program's stack, of that size. What does
    // not fit the buffer is written again by the kernel with a larger one.
    unsafe { bpf_seq_write(seq, (&raw const found).cast(), size_of::<OpenFile>() as u32) };
    0
}
