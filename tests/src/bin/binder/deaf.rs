//! A process whose memory cannot be read: one thread waits for a page of a file whose server
//! does not answer, and holds the lock of all this memory. Another waits to change it, and
//! every later reader waits for that one.

use std::{
    ffi::CString,
    fs::File,
    io::{PipeReader, PipeWriter, Read as _, Write as _, pipe},
    os::fd::AsRawFd as _,
    path::Path,
    process::exit,
    ptr, thread,
};

use anyhow::ensure;
use rustix::{
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::{Signal, set_parent_process_death_signal},
    thread::{UnshareFlags, unshare_unsafe},
};

const PAGE: usize = 4096;

/// Starts it. A caller can only find out by trying when the memory is unreadable.
pub fn begin() -> anyhow::Result<()> {
    let point = tempfile::NamedTempFile::new()?;
    let (file, mut waits) = unanswered(point.path())?;
    // SAFETY: the kernel chooses the place.
    let page = unsafe {
        let page = mmap(ptr::null_mut(), PAGE, ProtFlags::READ, MapFlags::PRIVATE, &file, 0)?;
        // So that one page is read at a time.
        madvise(page, PAGE, Advice::Random)?;
        page as usize
    };
    thread::spawn(move || {
        waits.read_exact(&mut [0])?;
        // SAFETY: the kernel chooses the place.
        unsafe { mmap_anonymous(ptr::null_mut(), PAGE, ProtFlags::READ, MapFlags::PRIVATE)? };
        anyhow::Ok(())
    });
    // SAFETY: the page stays mapped; its content is not used.
    thread::spawn(move || unsafe { ptr::read_volatile(page as *const u8) });
    Ok(())
}

/// Mounts a file at `point` whose second read is never answered.
pub fn silence(point: &Path) -> anyhow::Result<()> {
    unanswered(point)?;
    Ok(())
}

/// Returns a file that can be opened, and a pipe that gets a byte when the file is read; the
/// read does not end before this process does.
fn unanswered(point: &Path) -> anyhow::Result<(File, PipeReader)> {
    // SAFETY: only the mounts become this process's own.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS)? };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let server = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=100444,user_id=0,group_id=0", server.as_raw_fd());
    let options = CString::new(options)?;
    mount("deaf", point, "fuse", MountFlags::empty(), Some(options.as_c_str()))?;
    let (waits, tell) = pipe()?;
    start(server, tell)?;
    let file = File::open(point)?;
    // The kernel asks for its size only now, and there is nothing after the end.
    file.metadata()?;
    Ok((file, waits))
}

/// Starts the server in a process of its own with nothing else open: a reader that waits for
/// an answer can end only when that process has exited.
fn start(server: File, tell: PipeWriter) -> anyhow::Result<()> {
    // SAFETY: there is only one thread, so the child may run any code.
    let pid = unsafe { libc::fork() };
    ensure!(pid >= 0, "no process for the server");
    if pid > 0 {
        return Ok(());
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    for fd in (0..1024).filter(|fd| ![server.as_raw_fd(), tell.as_raw_fd()].contains(fd)) {
        // SAFETY: nothing of this process is used any more but those two.
        unsafe { libc::close(fd) };
    }
    serve(server, tell);
    exit(0)
}

/// Answers (include/uapi/linux/fuse.h). The first read fails: a page fault waits without the
/// lock the first time, but not when it is tried again.
fn serve(mut server: File, mut tell: PipeWriter) -> Option<()> {
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const OPEN: u32 = 14;
    const READ: u32 = 15;
    const INIT: u32 = 26;
    let mut request = vec![0; 1 << 17];
    let mut reads = 0;
    loop {
        let length = server.read(&mut request).ok()?;
        let head = request.get(..length.min(40))?;
        let opcode = u32::from_ne_bytes(head.get(4..8)?.try_into().ok()?);
        let unique = head.get(8..16)?;
        let (error, body) = match opcode {
            INIT => (0, words(&[7, 31, 0, 0, 0, 4096, 1], 16)),
            GETATTR => (0, words(&attributes(), 26)),
            OPEN => (0, words(&[], 4)),
            READ if reads == 0 => {
                reads += 1;
                (-libc::EIO, Vec::new())
            }
            READ => {
                // Nobody may be waiting for that.
                tell.write_all(&[0]).ok();
                continue;
            }
            FORGET => continue,
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let length = u32::try_from(16 + body.len()).ok()?;
        let answer = [&length.to_ne_bytes(), &i32::to_ne_bytes(error), unique, &body].concat();
        server.write_all(&answer).ok()?;
    }
}

/// `struct fuse_attr_out`: valid for a minute, inode 1 of 1 MiB that may be read.
fn attributes() -> [u32; 21] {
    let mut words = [0; 21];
    for (place, word) in [(0, 60), (4, 1), (6, 1 << 20), (8, 8), (19, 0o100_444), (20, 1)] {
        if let Some(place) = words.get_mut(place) {
            *place = word;
        }
    }
    words
}

/// This many 32-bit numbers, zeros after `first`.
fn words(first: &[u32], many: usize) -> Vec<u8> {
    let zeros = std::iter::repeat(&0);
    first.iter().chain(zeros).take(many).flat_map(|word| word.to_ne_bytes()).collect()
}
