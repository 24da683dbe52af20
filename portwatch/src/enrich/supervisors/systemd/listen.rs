//! Determines which unit listens on an address, by the `Listen` property.

use std::net::SocketAddr;

use crate::evidence::Protocol;

/// The most addresses that are examined in one unit.
const MOST_ADDRESSES: usize = 256;

/// An address that a `.socket` unit listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The unit's name.
    pub unit: String,
    kind: Kind,
    address: SocketAddr,
}

/// `ListenStream=`, `ListenDatagram=`, `ListenSequentialPacket=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Stream,
    Datagram,
    SequentialPacket,
}

/// Returns the addresses of a unit that have a port. The input consists of pairs of a type and
/// an address, `("Stream", "[::]:22")`. Files, netlink and vsock are left out.
pub fn parse<'a>(
    unit: &'a str,
    listen: &'a [(String, String)],
) -> impl Iterator<Item = Listener> + 'a {
    listen.iter().take(MOST_ADDRESSES).filter_map(|(kind, address)| {
        let kind = match kind.as_str() {
            "Stream" => Kind::Stream,
            "Datagram" => Kind::Datagram,
            "SequentialPacket" => Kind::SequentialPacket,
            _ => return None,
        };
        Some(Listener { unit: unit.to_owned(), kind, address: parse_address(address)? })
    })
}

/// Parses an address as systemd writes it: `127.0.0.1:80`, `[::]:22`, `[fe80::1]:80%eth0`, or a
/// bare port, which means all addresses.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let text = text.split('%').next().unwrap_or(text);
    match text.parse::<u16>() {
        Ok(port) => Some(SocketAddr::from(([0u16; 8], port))),
        Err(_) => text.parse().ok(),
    }
}

/// Returns the unit that listens on `local`: on exactly that address, otherwise on the wildcard
/// address of its family (`[::]` covers IPv4 as well).
pub fn listening_unit(
    listeners: &[Listener],
    local: SocketAddr,
    protocol: Protocol,
) -> Option<&str> {
    let ip = local.ip().to_canonical();
    let likely = listeners
        .iter()
        .filter(|listener| listener.address.port() == local.port() && serves(listener, protocol));
    let exact = likely.clone().find(|listener| listener.address.ip().to_canonical() == ip);
    exact
        .or_else(|| {
            likely.clone().find(|listener| {
                let on = listener.address.ip();
                on.is_unspecified() && (on.is_ipv6() || ip.is_ipv4())
            })
        })
        .map(|listener| listener.unit.as_str())
}

fn serves(listener: &Listener, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Tcp => listener.kind == Kind::Stream,
        Protocol::Udp | Protocol::Udplite => listener.kind == Kind::Datagram,
        Protocol::Sctp => listener.kind != Kind::Datagram,
        Protocol::Icmp | Protocol::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn units() -> Vec<Listener> {
        [
            ("ssh.socket", "Stream", "[::]:22"),
            ("ssh-admin.socket", "Stream", "10.0.0.1:22"),
            ("dns.socket", "Datagram", "127.0.0.53:53"),
            ("web.socket", "Stream", "8080"),
            ("v4.socket", "Stream", "0.0.0.0:81"),
            ("local.socket", "Stream", "[fe80::1]:82%eth0"),
            ("file.socket", "Stream", "/run/app.sock"),
            ("fifo.socket", "FIFO", "22"),
        ]
        .iter()
        .flat_map(|&(unit, kind, address)| {
            parse(unit, &[(kind.to_owned(), address.to_owned())]).collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn the_exact_address_comes_before_all_addresses() {
        let units = units();
        assert_eq!(units.len(), 6);
        for (local, protocol, expected) in [
            ("[::]:22", Protocol::Tcp, Some("ssh.socket")),
            ("0.0.0.0:22", Protocol::Tcp, Some("ssh.socket")),
            ("10.0.0.1:22", Protocol::Tcp, Some("ssh-admin.socket")),
            ("[::ffff:10.0.0.1]:22", Protocol::Tcp, Some("ssh-admin.socket")),
            ("[::]:22", Protocol::Udp, None),
            ("127.0.0.53:53", Protocol::Udp, Some("dns.socket")),
            ("127.0.0.53:53", Protocol::Tcp, None),
            ("127.0.0.1:53", Protocol::Udp, None),
            ("[::]:8080", Protocol::Tcp, Some("web.socket")),
            ("[::1]:81", Protocol::Tcp, None),
            ("127.0.0.1:81", Protocol::Tcp, Some("v4.socket")),
            ("[fe80::1]:82", Protocol::Tcp, Some("local.socket")),
            ("[::]:443", Protocol::Tcp, None),
            ("[::]:22", Protocol::Icmp, None),
        ] {
            let local = local.parse().unwrap();
            assert_eq!(listening_unit(&units, local, protocol), expected, "{local} {protocol:?}");
        }
    }

    proptest! {
        #[test]
        fn any_address_is_read(text: String) {
            let _ = parse_address(&text);
        }
    }
}
