//! Decodes bytes of the ring buffer into a typed failed bind. Total: any bytes result in a
//! value or an error, never in a panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portwatch_common::{
    Attempt, BindFailure, Crowd, Culprit, Followed, Source, Task, Tenant, flag, stage, task_flag,
};

use crate::{
    evidence::{Family, Protocol, Stage},
    redact::Unredacted,
};

mod followed;
mod ring;

use followed::watch_of;
pub use followed::{Bound, Did, RawFollowed, Watch};
pub use ring::{RawRecord, record};

/// One failed bind or listen as the kernel side saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFailure {
    /// The request.
    pub bind: RawBind,
    /// The blocking socket, if the kernel's own check named it.
    pub culprit: Option<RawCulprit>,
    /// The failing task.
    pub task: RawTask,
    /// The source, by which the kernel side counts.
    pub source: Source,
    /// The process, if it is followed from now on.
    pub watch: Option<Watch>,
}

/// A bind or listen, attempted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBind {
    /// The time, in nanoseconds of `CLOCK_BOOTTIME`.
    pub at_ns: u64,
    /// The call.
    pub stage: Stage,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The socket's family.
    pub family: Family,
    /// The requested address; unspecified if the hooks did not see it.
    pub address: IpAddr,
    /// Whether the hooks saw the address.
    pub address_seen: bool,
    /// The requested port.
    pub port: u16,
    /// `SO_BINDTODEVICE` as an interface index; `Some(0)` means none.
    pub device: Option<u32>,
    /// `SO_REUSEADDR`.
    pub reuseaddr: Option<bool>,
    /// `SO_REUSEPORT`.
    pub reuseport: Option<bool>,
    /// `IPV6_V6ONLY`; `None` for IPv4.
    pub v6only: Option<bool>,
    /// The socket's owner.
    pub socket_uid: Option<u32>,
    /// The socket's cookie.
    pub socket_cookie: Option<u64>,
    /// The namespace's inode.
    pub netns_inode: Option<u32>,
    /// The namespace's cookie.
    pub netns_cookie: Option<u64>,
}

impl RawFailure {
    /// Returns the tenant of the failing process.
    pub fn tenant(&self) -> Tenant {
        Tenant { cgroup_id: self.task.cgroup_id, user: self.task.user, reserved: 0 }
    }

    /// Returns its crowd: other processes of its tenant at the same address.
    pub fn crowd(&self) -> Crowd {
        Crowd::of(self.tenant(), &self.source)
    }
}

/// The blocking socket, as the kernel's conflict check matched it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawCulprit {
    /// Its cookie.
    pub cookie: Option<u64>,
    /// Its inode in sockfs; `None` if no process has it open.
    pub inode: Option<u64>,
    /// Whether it is a socket of the kernel's own, which no process can have open.
    pub kernels_own: bool,
    /// Its state, `TCP_*` of include/net/tcp_states.h.
    pub state: u8,
    /// Its own address.
    pub address: IpAddr,
    /// `SO_REUSEADDR`.
    pub reuseaddr: bool,
    /// `SO_REUSEPORT`.
    pub reuseport: bool,
    /// `IPV6_V6ONLY`; `None` for IPv4.
    pub v6only: Option<bool>,
    /// Its owner; `None` in TIME-WAIT, which has no owner.
    pub uid: Option<u32>,
    /// `SO_BINDTODEVICE` as an interface index; 0 means none.
    pub device: u32,
}

/// The failing task as the kernel side saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawTask {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The parent process.
    pub ppid: Option<u32>,
    /// The real user id.
    pub uid: u32,
    /// The user to whose share of the agent it counts, see [`Tenant::user`].
    pub user: u32,
    /// Start of the process, nanoseconds of `CLOCK_BOOTTIME`.
    pub started_ns: Option<u64>,
    /// The cgroup2 id.
    pub cgroup_id: u64,
    /// The thread's name.
    pub comm: String,
    /// The arguments; empty if they could not be read.
    pub cmdline: Unredacted,
    /// Whether it is a kernel thread.
    pub kernel_thread: bool,
}

/// Why some bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The record has another size.
    #[error(
        "record of {got} bytes, expected {} or {}", size_of::<BindFailure>(), size_of::<Followed>()
    )]
    Size {
        /// Bytes received.
        got: usize,
    },
    /// An unknown stage.
    #[error("unknown stage {0}")]
    Stage(u8),
    /// An unknown address family.
    #[error("unknown address family {0}")]
    Family(u16),
    /// An unknown action of a followed process.
    #[error("unknown act {0}")]
    Act(u8),
}

/// Decodes a failed bind.
///
/// # Errors
/// The bytes have another size than [`BindFailure`], or a stage or family that
/// the kernel side never writes.
pub fn decode(bytes: &[u8]) -> Result<RawFailure, DecodeError> {
    let record: BindFailure = bytemuck::try_pod_read_unaligned(bytes)
        .map_err(|_| DecodeError::Size { got: bytes.len() })?;
    let BindFailure { at_ns, watch_ns, attempt, culprit, task } = record;
    let Attempt {
        socket_cookie,
        netns_cookie,
        address,
        netns_inode,
        device,
        uid,
        port,
        family,
        protocol,
        flags,
        stage,
        ended: _,
        reserved: _,
    } = attempt;
    let known = |bit: u16| flags & bit != 0;
    let (family, address) = address_of(family, address)?;
    let bind = RawBind {
        at_ns,
        stage: stage_of(stage)?,
        protocol: protocol_of(protocol),
        family,
        address,
        address_seen: !known(flag::ADDRESS_UNSEEN),
        port,
        device: known(flag::DEVICE_KNOWN).then_some(device),
        reuseaddr: known(flag::REUSE_KNOWN).then(|| known(flag::REUSEADDR)),
        reuseport: known(flag::REUSE_KNOWN).then(|| known(flag::REUSEPORT)),
        v6only: (family == Family::Ipv6 && known(flag::V6ONLY_KNOWN)).then(|| known(flag::V6ONLY)),
        socket_uid: known(flag::UID_KNOWN).then_some(uid),
        socket_cookie: nonzero(socket_cookie),
        netns_inode: nonzero(netns_inode),
        netns_cookie: nonzero(netns_cookie),
    };
    Ok(RawFailure {
        bind,
        culprit: culprit_of(&culprit)?,
        task: task_of(&task),
        source: Source::of(&attempt, task.pid),
        watch: watch_of(task.pid, watch_ns),
    })
}

/// Returns a call as the kernel side writes it.
///
/// # Errors
/// The kernel side never writes this value.
pub(crate) fn stage_of(stage: u8) -> Result<Stage, DecodeError> {
    match stage {
        stage::BIND => Ok(Stage::Bind),
        stage::LISTEN => Ok(Stage::Listen),
        other => Err(DecodeError::Stage(other)),
    }
}

fn culprit_of(culprit: &Culprit) -> Result<Option<RawCulprit>, DecodeError> {
    let Culprit { socket_cookie, inode, address, uid, device, family, flags, state, reserved: _ } =
        *culprit;
    if family == 0 {
        return Ok(None);
    }
    let (family, address) = address_of(family, address)?;
    Ok(Some(RawCulprit {
        cookie: nonzero(socket_cookie),
        inode: nonzero(inode),
        kernels_own: flags & flag::KERNELS_OWN != 0,
        state,
        address,
        reuseaddr: flags & flag::REUSEADDR != 0,
        reuseport: flags & flag::REUSEPORT != 0,
        v6only: (family == Family::Ipv6).then_some(flags & flag::V6ONLY != 0),
        uid: (flags & flag::UID_KNOWN != 0).then_some(uid),
        device,
    }))
}

fn task_of(task: &Task) -> RawTask {
    let Task {
        started_ns,
        cgroup_id,
        pid,
        tid,
        ppid,
        uid,
        flags,
        cmdline_len,
        user,
        comm,
        cmdline,
    } = task;
    let cmdline = cmdline.get(..usize::from(*cmdline_len)).unwrap_or(cmdline);
    RawTask {
        pid: *pid,
        tid: *tid,
        ppid: nonzero(*ppid),
        uid: *uid,
        user: *user,
        started_ns: nonzero(*started_ns),
        cgroup_id: *cgroup_id,
        comm: name_of(comm),
        cmdline: Unredacted::new(cmdline, flags & task_flag::CMDLINE_CUT != 0),
        kernel_thread: flags & task_flag::KERNEL_THREAD != 0,
    }
}

/// `AF_INET`.
pub(crate) const AF_INET: u16 = 2;
/// `AF_INET6`.
pub(crate) const AF_INET6: u16 = 10;

/// Returns an address that the kernel side has written.
///
/// # Errors
/// It belongs to another family.
pub(crate) fn address_of(family: u16, bytes: [u8; 16]) -> Result<(Family, IpAddr), DecodeError> {
    let [a, b, c, d, ..] = bytes;
    match family {
        AF_INET => Ok((Family::Ipv4, Ipv4Addr::new(a, b, c, d).into())),
        AF_INET6 => Ok((Family::Ipv6, Ipv6Addr::from(bytes).into())),
        other => Err(DecodeError::Family(other)),
    }
}

/// Returns the protocol for an `IPPROTO_*` number. MPTCP is reported as its TCP subflow.
pub(crate) fn protocol_of(number: u16) -> Protocol {
    match number {
        6 | 262 => Protocol::Tcp,
        17 => Protocol::Udp,
        136 => Protocol::Udplite,
        132 => Protocol::Sctp,
        1 | 58 => Protocol::Icmp,
        _ => Protocol::Other,
    }
}

/// Returns a name, up to its NUL.
fn name_of(comm: &[u8]) -> String {
    let name = comm.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

fn nonzero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use proptest::prelude::*;

    use super::*;
    use crate::redact::{MOST_BYTES, Redaction};

    fn record() -> BindFailure {
        let mut record = BindFailure::zeroed();
        record.at_ns = 5;
        record.attempt.family = 2;
        record.attempt.stage = stage::BIND;
        record.attempt.protocol = 6;
        record.attempt.port = 8080;
        record.attempt.address[..4].copy_from_slice(&[10, 0, 4, 12]);
        record.attempt.flags = flag::REUSE_KNOWN | flag::REUSEADDR;
        record.task.comm[..4].copy_from_slice(b"java");
        record.task.cmdline[..10].copy_from_slice(b"java\0-jar\0");
        record.task.cmdline_len = 10;
        record
    }

    #[test]
    fn a_record_becomes_what_it_says() {
        let raw = decode(bytemuck::bytes_of(&record())).unwrap();
        assert_eq!(raw.bind.address, IpAddr::from([10, 0, 4, 12]));
        assert_eq!(
            (raw.bind.port, raw.bind.protocol, raw.bind.stage),
            (8080, Protocol::Tcp, Stage::Bind)
        );
        assert_eq!(
            (raw.bind.reuseaddr, raw.bind.reuseport, raw.bind.v6only),
            (Some(true), Some(false), None)
        );
        assert_eq!(
            (raw.bind.socket_cookie, raw.bind.socket_uid, raw.bind.device),
            (None, None, None)
        );
        assert_eq!(raw.task.comm, "java");
        assert_eq!(Redaction::default().cmdline(&raw.task.cmdline), ["java", "-jar"]);
    }

    #[test]
    fn what_is_no_record_is_an_error() {
        let bytes = bytemuck::bytes_of(&record()).to_vec();
        assert_eq!(decode(&bytes[1..]), Err(DecodeError::Size { got: bytes.len() - 1 }));
        let mut other = record();
        other.attempt.stage = 9;
        assert_eq!(decode(bytemuck::bytes_of(&other)), Err(DecodeError::Stage(9)));
        let mut other = record();
        other.attempt.family = 1;
        assert_eq!(decode(bytemuck::bytes_of(&other)), Err(DecodeError::Family(1)));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_value_or_an_error(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = super::record(&bytes);
        }

        #[test]
        fn any_record_of_the_right_size_too(
            bytes in proptest::collection::vec(any::<u8>(), size_of::<BindFailure>()),
            family in prop_oneof![Just(2u16), Just(10u16), any::<u16>()],
            stage in 0u8..4,
        ) {
            let mut record: BindFailure = bytemuck::pod_read_unaligned(&bytes);
            record.attempt.family = family;
            record.attempt.stage = stage;
            if let Ok(raw) = decode(bytemuck::bytes_of(&record)) {
                let cmdline = Redaction::default().cmdline(&raw.task.cmdline);
                prop_assert!(cmdline.iter().map(str::len).sum::<usize>() <= MOST_BYTES);
            }
        }
    }
}
