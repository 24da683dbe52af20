//! Network namespaces of a test's own: any fixed port in one is free, whatever else runs on
//! the machine, and it identifies the test's events.

use std::{
    ffi::CStr,
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::PathBuf,
    process::Command,
    thread,
};

use rustix::{
    mount::{UnmountFlags, mount_bind, unmount},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket,
        socket_with,
    },
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{began, cgroup, kernel, ours};

/// Where ip-netns(8) keeps its names.
const NAMES: &str = "/run/netns";
/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h), Linux 5.14.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// A network namespace. It is removed with the last process in it and this handle.
pub struct Netns {
    file: File,
    /// Its inode, as `readlink /proc/PID/ns/net` shows it.
    pub inode: u32,
    /// Its cookie, if the kernel reports it.
    pub cookie: Option<u64>,
    name: Option<String>,
}

/// How an event names a namespace.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Place {
    inode: Option<u64>,
    cookie: Option<u64>,
}

impl Place {
    /// Whether an event names this one: by its cookie, or by its inode where the kernel
    /// does not tell cookies.
    #[must_use]
    pub fn is(self, named: Self) -> bool {
        match self.cookie {
            Some(_) => named.cookie == self.cookie,
            None => named.inode == self.inode,
        }
    }
}

impl Netns {
    /// Creates one in which the loopback interface is up.
    #[must_use]
    pub fn new() -> Self {
        began::now();
        cgroup::set_apart();
        let fresh = Self::seen_by_a_thread(enter_fresh);
        ours::add_place(fresh.place());
        fresh
    }

    /// Creates one that `ip netns list` shows as `name`.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let mut netns = Self::new();
        fs::create_dir_all(NAMES).unwrap();
        let path = named_path(name);
        File::create_new(&path).unwrap();
        netns.name = Some(name.to_owned());
        mount_bind(format!("/proc/self/fd/{}", netns.file.as_raw_fd()), &path).unwrap();
        netns
    }

    /// The one that this process runs in.
    #[must_use]
    pub fn host() -> Self {
        Self::seen_by_a_thread(|| ())
    }

    /// A thread's namespace is its own, so the rest of the test stays where it is.
    fn seen_by_a_thread(prepare: impl FnOnce() + Send) -> Self {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                prepare();
                let file = File::open("/proc/thread-self/ns/net").unwrap();
                let inode = u32::try_from(file.metadata().unwrap().ino()).unwrap();
                let cookie = own_cookie();
                if cookie.is_none() {
                    // There only the inode distinguishes namespaces, and inodes are reused: so
                    // each is kept open as long as this process runs.
                    std::mem::forget(file.try_clone().unwrap());
                }
                Self { file, inode, cookie, name: None }
            });
            inside.join().expect("a namespace can be made")
        })
    }

    /// Returns whether `ip netns list` shows it.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.name.is_some()
    }

    /// How an event names it.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { inode: Some(self.inode.into()), cookie: self.cookie }
    }

    /// What an event says of it, as far as it is known here.
    #[must_use]
    pub fn told(&self) -> Value {
        let mut told = json!({"inode": self.inode});
        if let Some(cookie) = self.cookie {
            told["cookie"] = json!(cookie);
        }
        told
    }

    /// Writes a setting below /proc/sys/net, which shows the namespace of the thread that
    /// opens it.
    pub fn set(&self, name: &str, value: &str) {
        self.inside(|| std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap());
    }

    /// Runs in here, on a thread of its own.
    fn inside(&self, work: impl FnOnce() + Send) {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work();
            });
            inside.join().expect("it can be done in the namespace");
        });
    }

    /// Makes the kernel itself take a UDP port in here, for a vxlan device.
    pub fn add_tunnel(&self, port: u16) {
        self.inside(|| add_vxlan(port));
    }

    /// Runs `command`'s process in here.
    pub fn confine(&self, command: &mut Command) {
        let file = self.file.try_clone().unwrap();
        // SAFETY: one system call, which is safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let network = Some(LinkNameSpaceType::Network);
                Ok(move_into_link_name_space(file.as_fd(), network)?)
            });
        }
    }

    /// Moves the calling thread in here, permanently.
    pub fn enter(&self) {
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(self.file.as_fd(), network).unwrap();
    }

    /// A connection of this very process, from in here.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                TcpStream::connect(address)
            });
            inside.join().unwrap()
        })
    }

    /// A listener of this very process, in here.
    #[must_use]
    pub fn listen(&self, address: SocketAddr) -> TcpListener {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                TcpListener::bind(address).unwrap()
            });
            inside.join().unwrap()
        })
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let path = named_path(name);
            // Errors would hide the test's own failure; the directory stays if others have
            // names in it.
            unmount(&path, UnmountFlags::DETACH).ok();
            fs::remove_file(&path).ok();
            fs::remove_dir(NAMES).ok();
        }
    }
}

/// Moves the calling thread into a new one, in which the loopback interface is up. It is
/// removed when the thread has left it and nothing in it is open.
pub fn enter_fresh() {
    // SAFETY: a namespace changes; the sharing of memory and descriptors does not.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("unshare(2) needs root");
    raise_loopback();
}

fn named_path(name: &str) -> PathBuf {
    PathBuf::from(NAMES).join(name)
}

/// `ip link set lo up`, without needing `ip`.
fn raise_loopback() {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    // SAFETY: the structure is plain data, and the two requests read and write
    // it in full and nothing else (netdevice(7)).
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = libc::c_char::from_ne_bytes([b'l']);
        request.ifr_name[1] = libc::c_char::from_ne_bytes([b'o']);
        assert_eq!(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request), 0);
        let up = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap();
        request.ifr_ifru.ifru_flags |= up;
        assert_eq!(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request), 0);
    }
}

/// The name of the device that [`add_vxlan`] makes.
pub const TUNNEL: &CStr = c"pw0";

/// `ip link add pw0 up type vxlan id 1 dstport PORT` in the calling thread's
/// namespace, without needing `ip` (rtnetlink(7)).
pub fn add_vxlan(port: u16) {
    const RTM_NEWLINK: u16 = 16;
    /// NLM_F_REQUEST, NLM_F_ACK, NLM_F_CREATE and NLM_F_EXCL.
    const FLAGS: u16 = 0x1 | 0x4 | 0x400 | 0x200;
    const UP: u32 = libc::IFF_UP.cast_unsigned();
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    // IFLA_VXLAN_ID and IFLA_VXLAN_PORT.
    let data = [attribute(1, &1u32.to_ne_bytes()), attribute(15, &port.to_be_bytes())].concat();
    // IFLA_INFO_KIND and IFLA_INFO_DATA.
    let info = [attribute(1, b"vxlan\0"), attribute(2, &data)].concat();
    // An ifinfomsg: family, type and index are the kernel's choice.
    let mut body = vec![0; 8];
    body.extend([UP.to_ne_bytes(), UP.to_ne_bytes()].concat());
    // IFLA_IFNAME and IFLA_LINKINFO.
    body.extend([attribute(3, TUNNEL.to_bytes_with_nul()), attribute(18, &info)].concat());
    let mut message = u32::try_from(16 + body.len()).unwrap().to_ne_bytes().to_vec();
    message.extend([RTM_NEWLINK.to_ne_bytes(), FLAGS.to_ne_bytes()].concat());
    message.extend([0; 8]);
    message.extend(body);
    let raw = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, raw, None).unwrap();
    send(&socket, &message, SendFlags::empty()).unwrap();
    let mut reply = [0; 1024];
    let (length, _) = recv(&socket, &mut reply[..], RecvFlags::empty()).unwrap();
    // A header and the error's number, 0 for none.
    let error = i32::from_ne_bytes(reply[..length][16..20].try_into().unwrap());
    assert_eq!(error, 0, "no vxlan device");
}

/// Returns the cookie of the calling thread's namespace, which any socket in it reports.
fn own_cookie() -> Option<u64> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    let mut cookie = 0u64;
    let mut size = 8;
    // SAFETY: the option's value is a u64, and `size` says so.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut size,
        )
    };
    assert_eq!(failed == 0, kernel::is_at_least(5, 14), "SO_NETNS_COOKIE came with Linux 5.14");
    (failed == 0).then_some(cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_another_and_ports_are_free_in_it() {
        let (a, b, host) = (Netns::new(), Netns::new(), Netns::host());
        assert_ne!(a.inode, b.inode);
        assert!(a.cookie != b.cookie || a.cookie.is_none());
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_eq!(u64::from(host.inode), own);
        let address = "127.0.0.1:8080".parse().unwrap();
        let _in_a = a.listen(address);
        let _in_b = b.listen(address);
    }

    #[test]
    fn a_name_is_there_as_long_as_its_namespace() {
        let name = format!("portwatch-harness-{}", std::process::id());
        let netns = Netns::named(&name);
        let inode = fs::metadata(named_path(&name)).unwrap().ino();
        assert_eq!(inode, u64::from(netns.inode));
        drop(netns);
        assert!(!named_path(&name).exists());
    }
}
