//! Converts what the hooks saw of a bind and of the blocking socket into evidence.

use std::net::{IpAddr, SocketAddr};

use super::{sock_diag, sockets};
use crate::{
    decode::{RawBind, RawCulprit},
    evidence::{Device, Fact, Failure, Gap, Protocol, Socket, State},
};

/// Returns the request of the failed bind.
pub fn failure(bind: &RawBind, gaps: &mut Vec<Gap>) -> Failure {
    for (what, known) in [
        (Fact::ReuseAddr, bind.reuseaddr.is_some()),
        (Fact::SocketUid, bind.socket_uid.is_some()),
        (Fact::Device, bind.device.is_some()),
    ] {
        if !known {
            gaps.push(Gap::new(what, "the hooks cannot read it on this kernel"));
        }
    }
    // The kernel takes the device from the scope id after the tracepoint set has seen the
    // attempt, and such an address always has a device.
    if needs_device(bind.address) && bind.device == Some(0) {
        gaps.push(Gap::new(Fact::Device, "the hooks do not see the address's scope id"));
    }
    if !bind.address_seen {
        gaps.push(Gap::new(Fact::Address, "the hooks cannot read an IPv6 address on this kernel"));
    }
    Failure {
        stage: bind.stage,
        errno: "EADDRINUSE".to_owned(),
        protocol: bind.protocol,
        family: bind.family,
        address: bind.address,
        port: bind.port,
        device: bind.device.filter(|&index| index != 0).map(|index| Device { index, name: None }),
        reuseaddr: bind.reuseaddr,
        reuseport: bind.reuseport,
        v6only: bind.v6only,
        uid: bind.socket_uid,
        cookie: bind.socket_cookie,
    }
}

/// Returns whether an address needs a device (`__ipv6_addr_needs_scope_id`): link-local
/// addresses, and multicast on the own link or device.
fn needs_device(address: IpAddr) -> bool {
    let IpAddr::V6(v6) = address else { return false };
    let [first, second, ..] = v6.octets();
    v6.is_unicast_link_local() || (first == 0xff && matches!(second & 0xf, 1 | 2))
}

/// Adds to the entry of the blocking socket what only the kernel's own check could see. Adds
/// the entry itself if netlink does not list it.
pub fn point_out(culprit: &RawCulprit, bind: &RawBind, found: &mut sockets::Found) {
    let tcp = bind.protocol == Protocol::Tcp;
    let Some(state) = sock_diag::state_of(culprit.state, tcp) else { return };
    found.sockets.iter_mut().for_each(|socket| socket.refused = Some(false));
    let is_it = |socket: &Socket, state| match culprit.cookie {
        Some(cookie) => socket.cookie == Some(cookie),
        None => socket.local.ip() == culprit.address && socket.state == state,
    };
    // Where the check reports TIME-WAIT, netlink may list FIN-WAIT-2.
    let states = [Some(state), (state == State::TimeWait).then_some(State::FinWait2)];
    let listed = states
        .into_iter()
        .flatten()
        .find_map(|state| found.sockets.iter().position(|socket| is_it(socket, state)));
    let place = listed.or_else(|| {
        let local = SocketAddr::new(culprit.address, bind.port);
        found.add(Socket::bare(state, local, culprit.cookie));
        found.sockets.iter().position(|socket| is_it(socket, state))
    });
    if let Some(socket) = place.and_then(|place| found.sockets.get_mut(place)) {
        socket.refused = Some(true);
        socket.inode = socket.inode.or(culprit.inode);
        socket.reuseaddr = Some(culprit.reuseaddr);
        socket.reuseport = Some(culprit.reuseport);
        socket.v6only = socket.v6only.or(culprit.v6only);
        socket.uid = socket.uid.or(culprit.uid);
    }
}
