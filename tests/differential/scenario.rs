//! A scenario: some sockets on one port, and what happens to them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use portwatch::evidence::Family;
use proptest::prelude::*;
use strum::VariantArray;

/// A scenario, before it is known which of its steps are possible.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub settings: Settings,
    pub ops: Vec<Op>,
}

/// Settings of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// net.ipv4.tcp_migrate_req: groups keep those that have stopped listening.
    pub migrates: bool,
    /// net.ipv4.ip_autobind_reuse: port 0 searches twice.
    pub autobind_reuses: bool,
}

/// An event. A `Pick` selects the socket among those to which it can happen, so that few steps
/// have no effect.
#[derive(Clone, Debug)]
pub enum Op {
    /// A new socket requests a port.
    Bind { new: New, to: To },
    /// A socket whose bind failed tries again.
    Again { pick: Pick, to: To },
    /// listen(2), on a socket without a port too.
    Listen(Pick),
    /// An option is changed.
    Set(Pick, Setting),
    /// shutdown(2) of a listener.
    Shutdown(Pick),
    /// close(2).
    Close(Pick),
    /// A connection to the port's only listener, and its fate.
    Child { v4: bool, uid: u32, fate: Fate },
    /// connect(2) to another port, with the port as the source.
    Client(New),
    /// connect(2) on a UDP socket.
    Narrow { pick: Pick, v4: bool },
    /// The same with AF_UNSPEC.
    Widen(Pick),
}

pub type Pick = u8;

/// A socket to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct New {
    pub transport: Transport,
    pub family: Family,
    pub uid: u32,
    pub reuseaddr: bool,
    pub reuseport: bool,
    pub v6only: bool,
    pub device: Device,
    /// SO_ATTACH_REUSEPORT_CBPF, which gives it a group before it has a port.
    pub program: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// SO_BINDTODEVICE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    None,
    Loopback,
    Other,
}

/// What is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct To {
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
    /// Port 0, while the port is the only free one.
    pub any_port: bool,
}

impl To {
    /// Returns the address, for a socket of `family`.
    pub fn address(self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.v4.into(),
            Family::Ipv6 => self.v6.into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    ReuseAddr(bool),
    ReusePort(bool),
    Device(Device),
    /// Gives it a group, if it has SO_REUSEPORT.
    Program,
}

/// The fate of a connection to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, VariantArray)]
pub enum Fate {
    /// It waits to be accepted.
    Unaccepted,
    /// It is accepted.
    Accepted,
    /// The other side has closed.
    CloseWait,
    /// Both have closed, this side first.
    TimeWait,
    /// This side has closed.
    FinWait2,
    /// This side has closed with data that the other does not read.
    FinWait1,
}

/// Addresses that overlap in every way. 127.0.0.6 is the kernel's substitute for an IPv6
/// address without an equivalent. Most of these are not local: the namespace allows that.
const V4: [Ipv4Addr; 5] = [
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 6),
    Ipv4Addr::new(192, 0, 2, 1),
];

const V6: [Ipv6Addr; 7] = [
    Ipv6Addr::UNSPECIFIED,
    Ipv6Addr::LOCALHOST,
    V4[0].to_ipv6_mapped(),
    V4[1].to_ipv6_mapped(),
    V4[2].to_ipv6_mapped(),
    V4[4].to_ipv6_mapped(),
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
];

/// Scenarios of TCP, of UDP, and of both, with options rare, common, or on nearly all sockets;
/// some begin with many UDP sockets, with which UDP's check differs.
pub fn scenarios() -> impl Strategy<Value = Scenario> {
    let transports = prop_oneof![6 => Just(0.0), 3 => Just(1.0), 1 => Just(0.3)];
    let chances = || prop_oneof![1 => Just(0.2), 2 => Just(0.6), 1 => Just(0.95)];
    let ordinary = (transports, chances(), chances())
        .prop_flat_map(|(udp, reuseaddr, reuseport)| some_ops(udp, reuseaddr, reuseport));
    let crowded = (prop::collection::vec(shared_binds(), 9..13), some_ops(1.0, 0.6, 0.6))
        .prop_map(|(crowd, ops)| [crowd, ops].concat());
    let settings = any::<(bool, bool)>()
        .prop_map(|(migrates, autobind_reuses)| Settings { migrates, autobind_reuses });
    (settings, prop_oneof![9 => ordinary.boxed(), 1 => crowded.boxed()])
        .prop_map(|(settings, ops)| Scenario { settings, ops })
}

fn some_ops(udp: f64, reuseaddr: f64, reuseport: f64) -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(ops(news(udp, reuseaddr, reuseport).boxed()), 2..30)
}

/// A UDP socket that does not block others with SO_REUSEADDR.
fn shared_binds() -> impl Strategy<Value = Op> {
    (news(1.0, 1.0, 0.3), tos()).prop_map(|(new, to)| Op::Bind { new, to })
}

fn ops(new: BoxedStrategy<New>) -> impl Strategy<Value = Op> {
    let pick = any::<Pick>;
    prop_oneof![
        10 => (new.clone(), tos()).prop_map(|(new, to)| Op::Bind { new, to }),
        1 => (pick(), tos()).prop_map(|(pick, to)| Op::Again { pick, to }),
        5 => pick().prop_map(Op::Listen),
        3 => (pick(), settings()).prop_map(|(pick, setting)| Op::Set(pick, setting)),
        1 => pick().prop_map(Op::Shutdown),
        2 => pick().prop_map(Op::Close),
        6 => (any::<bool>(), uids(), fates())
            .prop_map(|(v4, uid, fate)| Op::Child { v4, uid, fate }),
        2 => new.prop_map(Op::Client),
        2 => (pick(), any::<bool>()).prop_map(|(pick, v4)| Op::Narrow { pick, v4 }),
        1 => pick().prop_map(Op::Widen),
    ]
}

fn news(udp: f64, reuseaddr: f64, reuseport: f64) -> impl Strategy<Value = New> {
    let chance = prop::bool::weighted;
    let bits = (chance(udp), chance(0.5), chance(reuseaddr), chance(reuseport), chance(0.25));
    (bits, uids(), devices(), chance(0.05)).prop_map(
        |((udp, v6, reuseaddr, reuseport, v6only), uid, device, program)| New {
            transport: if udp { Transport::Udp } else { Transport::Tcp },
            family: if v6 { Family::Ipv6 } else { Family::Ipv4 },
            uid,
            reuseaddr,
            reuseport,
            v6only: v6 && v6only,
            device,
            program: reuseport && program,
        },
    )
}

/// Where a socket may be bound.
pub fn tos() -> impl Strategy<Value = To> {
    let addresses = (mostly_first_two(&V4), mostly_first_two(&V6));
    (addresses, prop::bool::weighted(0.1)).prop_map(|((v4, v6), any_port)| To { v4, v6, any_port })
}

fn mostly_first_two<T: Copy + fmt::Debug>(values: &'static [T]) -> impl Strategy<Value = T> {
    prop_oneof![prop::sample::select(&values[..2]), prop::sample::select(values)]
}

fn uids() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0), 1 => Just(1000)]
}

fn devices() -> impl Strategy<Value = Device> {
    prop_oneof![5 => Just(Device::None), 1 => Just(Device::Loopback), 1 => Just(Device::Other)]
}

fn settings() -> impl Strategy<Value = Setting> {
    prop_oneof![
        any::<bool>().prop_map(Setting::ReuseAddr),
        any::<bool>().prop_map(Setting::ReusePort),
        devices().prop_map(Setting::Device),
        Just(Setting::Program),
    ]
}

fn fates() -> impl Strategy<Value = Fate> {
    prop_oneof![1 => Just(Fate::TimeWait), 5 => prop::sample::select(Fate::VARIANTS)]
}
