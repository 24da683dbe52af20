//! Finds the processes that have a socket open: walks every task's descriptor table, and
//! outputs only the wanted sockets.

use aya_ebpf::{
    bindings::{seq_file, task_struct},
    helpers::generated::{bpf_seq_write, bpf_skc_to_unix_sock, bpf_sock_from_file},
};
use portwatch_common::{ANY_SOCKET, OpenFile};

use crate::{
    layout::{copy, load, offset},
    maps::{SOCKET_OPERATIONS, WANTED},
    sock::AF_UNIX,
};

/// `SOCKFS_MAGIC` (include/uapi/linux/magic.h). Inode numbers are unique only within one file
/// system.
const SOCKFS_MAGIC: u64 = 0x534f_434b;

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c). Each pointer field is 8 bytes wide,
/// and `fd` is padded to 8 bytes.
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
    let operations = load!(file, file_operations, u64);
    let Some(of_sockets) = SOCKET_OPERATIONS.get_ptr_mut(0) else { return 0 };
    // SAFETY: the entry of an array always exists.
    let known = unsafe { *of_sockets };
    // Most files are not sockets, and reading their inodes causes cache misses
    // (`sock_alloc_file` sets the same operations for all sockets).
    if known != 0 && known != operations {
        return 0;
    }
    let inode = load!(file, file_inode, *const u8);
    let superblock = load!(inode, inode_sb, *const u8);
    if load!(superblock, sb_magic, u64) != SOCKFS_MAGIC {
        return 0;
    }
    if known == 0 {
        // SAFETY: as above. Every writer writes the same value.
        unsafe { *of_sockets = operations };
    }
    let number = load!(inode, inode_number, u64);
    // SAFETY: the references are not kept.
    let wanted = unsafe { WANTED.get(number).is_some() || WANTED.get(ANY_SOCKET).is_some() };
    if wanted {
        write(context, task, number);
    }
    0
}

/// Called like [`pw_files`]. Outputs the unix sockets to which descriptors have been sent that
/// have not been received yet (unix(7), SCM_RIGHTS).
///
/// match-proto: `struct unix_sock *bpf_skc_to_unix_sock(void *sk)` (5.16)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn pw_in_flight(context: *const TaskFile) -> i32 {
    in_flight(context, |sk| {
        // SAFETY: `sk` is a BTF pointer to a socket of any kind.
        let unix = unsafe { bpf_skc_to_unix_sock(sk.cast_mut().cast()) };
        if unix.is_null() { 0 } else { load!(unix.cast_const(), unix_descriptors, i32) }
    })
}

/// The same for a kernel whose verifier does not trust a pointer to a socket that was read from
/// memory, so that the helper does not take it (seen on a build of 6.18). It copies the number
/// instead, which lockdown=confidentiality does not permit.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn pw_in_flight_copied(context: *const TaskFile) -> i32 {
    in_flight(context, |sk| match load!(sk, sk_family, u16) {
        AF_UNIX => copy(sk.cast(), offset!(unix_descriptors)),
        _ => 0,
    })
}

/// `descriptors` returns how many are in flight to a socket of any kind; 0 if it is no unix
/// socket.
///
/// match-proto: `struct socket *bpf_sock_from_file(struct file *file)` (5.11)
#[inline(always)]
fn in_flight(context: *const TaskFile, descriptors: impl FnOnce(*const u8) -> i32) -> i32 {
    // SAFETY: the verifier checks each field of the context that is read.
    let (task, file) = unsafe { ((*context).task, (*context).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    // SAFETY: `file` comes from the iterator, and the verifier knows its type.
    let socket = unsafe { bpf_sock_from_file(file.cast_mut().cast()) };
    if socket.is_null() {
        return 0;
    }
    let sk = load!(socket.cast_const(), socket_sk, *const u8);
    if sk.is_null() || descriptors(sk) <= 0 {
        return 0;
    }
    let inode = load!(file, file_inode, *const u8);
    write(context, task, load!(inode, inode_number, u64));
    0
}

/// Outputs one open file to user space.
#[inline(always)]
fn write(context: *const TaskFile, task: *const task_struct, inode: u64) {
    // SAFETY: the verifier checks the context; `meta` and `seq` are never null.
    let (seq, fd) = unsafe { ((*(*context).meta).seq, (*context).fd) };
    let found = OpenFile {
        inode,
        pid: load!(task, task_tgid, u32),
        tid: load!(task, task_pid, u32),
        fd,
        reserved: 0,
    };
    // SAFETY: the record is on this program's stack, of that size. If it does not fit the
    // buffer, the kernel runs this again with a larger one.
    unsafe { bpf_seq_write(seq, (&raw const found).cast(), size_of::<OpenFile>() as u32) };
}
