//! Ways to keep a socket outside of all descriptor tables. Each returns what must stay open,
//! or the socket is closed.

use std::{
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Sent to the other end of a pair, which does not receive it.
pub fn under_way(socket: OwnedFd) -> anyhow::Result<Vec<OwnedFd>> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    send(ours.as_fd(), socket.as_fd())?;
    Ok(vec![ours, theirs])
}

fn send(to: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> anyhow::Result<()> {
    let descriptors = [socket];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    anyhow::ensure!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room");
    sendmsg(to, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Sent to whoever listens at `path`, who has received it when this returns.
pub fn sent_to(path: &Path, socket: OwnedFd) -> anyhow::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    send(stream.as_fd(), socket.as_fd())?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

/// Keeps what one connection to `path` sends, for as long as this process is there.
pub fn receive(path: &Path) -> anyhow::Result<()> {
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || -> anyhow::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        recvmsg(&stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let received: Vec<_> = control.drain().collect();
        stream.write_all(b"x")?;
        loop {
            std::thread::park();
            std::hint::black_box(&received);
        }
    });
    Ok(())
}

/// Registered with an io_uring (io_uring_register(2)).
pub fn in_ring(socket: OwnedFd) -> anyhow::Result<Vec<OwnedFd>> {
    const IORING_REGISTER_FILES: libc::c_uint = 2;
    // `struct io_uring_params`, 120 bytes, filled in by the kernel.
    let mut parameters = [0u64; 15];
    // SAFETY: the parameters are as large as what the kernel writes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let failed = io::Error::last_os_error();
    let ring = i32::try_from(ring).ok().filter(|&ring| ring >= 0).ok_or(failed)?;
    // SAFETY: the kernel has just created it for this program.
    let ring = unsafe { OwnedFd::from_raw_fd(ring) };
    let files = [socket.as_raw_fd()];
    // SAFETY: one descriptor is passed, and its count is 1.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            IORING_REGISTER_FILES,
            files.as_ptr(),
            1,
        )
    };
    anyhow::ensure!(registered == 0, io::Error::last_os_error());
    Ok(vec![ring])
}
