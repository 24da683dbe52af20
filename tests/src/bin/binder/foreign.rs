//! bind(2) as other kinds of programs call it on x86-64: 32-bit ones, and x32.

#![cfg_attr(not(target_arch = "x86_64"), allow(unused_variables, reason = "x86 alone has them"))]

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::{io::Errno, net::addr::SocketAddrArg as _};

/// `bind` and `socketcall` (arch/x86/entry/syscalls/syscall_32.tbl).
const BIND: u32 = 361;
const SOCKETCALL: u32 = 102;
/// `__X32_SYSCALL_BIT`, and 64-bit programs' `bind`.
const X32_BIND: u32 = 0x4000_0000 | 49;
/// `SYS_BIND` (include/uapi/linux/net.h).
const SYS_BIND: u32 = 2;

pub fn bind_by_int80(socket: &OwnedFd, address: &SocketAddr) -> Result<(), Errno> {
    let (low, length) = Low::with(address)?;
    low.int80(BIND, socket.as_raw_fd().cast_unsigned(), low.address(), length)
}

pub fn bind_by_socketcall(socket: &OwnedFd, address: &SocketAddr) -> Result<(), Errno> {
    let (low, length) = Low::with(address)?;
    let arguments = low.arguments([socket.as_raw_fd().cast_unsigned(), low.address(), length]);
    low.int80(SOCKETCALL, SYS_BIND, arguments, 0)
}

pub fn bind_by_x32(socket: &OwnedFd, address: &SocketAddr) -> Result<(), Errno> {
    // SAFETY: a system call on an address that is valid for its length.
    let result = unsafe {
        address.with_sockaddr(|address, length| {
            libc::syscall(X32_BIND.into(), socket.as_raw_fd(), address, length)
        })
    };
    let error = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    if result == 0 { Ok(()) } else { Err(error()) }
}

/// A page that 32 bits can address.
struct Low(*mut u8);

impl Low {
    const SIZE: usize = 4096;
    /// Offset of the arguments in it, after the address.
    const ARGUMENTS: usize = 256;

    /// Creates one with the address at its beginning, and returns the address's length.
    fn with(address: &SocketAddr) -> Result<(Self, u32), Errno> {
        #[cfg(target_arch = "x86_64")]
        const LOW: i32 = libc::MAP_32BIT;
        #[cfg(not(target_arch = "x86_64"))]
        const LOW: i32 = 0;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | LOW;
        // SAFETY: a new mapping.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(Errno::NOMEM);
        }
        let page = Self(page.cast());
        // SAFETY: an address is shorter than a page.
        let length = unsafe {
            address.with_sockaddr(|address, length| {
                std::ptr::copy_nonoverlapping(address.cast(), page.0, length as usize);
                length
            })
        };
        Ok((page, length))
    }

    fn address(&self) -> u32 {
        self.0 as usize as u32
    }

    fn arguments(&self, arguments: [u32; 3]) -> u32 {
        // SAFETY: aligned, and within the page.
        unsafe { self.0.add(Self::ARGUMENTS).cast::<[u32; 3]>().write(arguments) };
        self.address() + Self::ARGUMENTS as u32
    }

    #[cfg(target_arch = "x86_64")]
    fn int80(&self, call: u32, first: u32, second: u32, third: u32) -> Result<(), Errno> {
        let mut result = u64::from(call);
        // SAFETY: the system call reads what this page has. LLVM keeps rbx to itself.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {first}",
                "int 0x80",
                "xchg rbx, {first}",
                first = inout(reg) u64::from(first) => _,
                inout("rax") result,
                in("rcx") u64::from(second),
                in("rdx") u64::from(third),
                out("r8") _,
                out("r9") _,
                out("r10") _,
                out("r11") _,
            );
        }
        match result as i32 {
            0.. => Ok(()),
            error => Err(Errno::from_raw_os_error(-error)),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn int80(&self, _call: u32, _first: u32, _second: u32, _third: u32) -> Result<(), Errno> {
        Err(Errno::NOSYS)
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: the page is this value's.
        unsafe { libc::munmap(self.0.cast(), Self::SIZE) };
    }
}
