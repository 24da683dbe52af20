//! The targets of `explain` and `wait`: a port, with or without an address. Parsing is pure
//! and total.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    net::{IpAddr, Ipv6Addr},
};

use crate::{
    advice::{Advised, USAGE},
    enrich::host::DiagSocket,
    evidence::{Device, Protocol},
};

/// The file with the names of services (services(5)).
const SERVICES: &str = "/etc/services";

/// An interface as the user named it. Its index depends on the network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// By its index.
    Index(u32),
    /// By its name.
    Name(String),
}

impl Interface {
    /// Finds the interface in the namespace of `socket`.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn find(&self, socket: &dyn DiagSocket) -> Result<Device, TargetError> {
        let index = match self {
            Self::Index(index) => Some(*index),
            Self::Name(name) => socket.device_index(name),
        };
        let found = index.and_then(|index| Some((index, socket.device_name(index)?)));
        let (index, name) = found.ok_or_else(|| TargetError::NoInterface(self.clone()))?;
        Ok(Device { index, name: Some(name) })
    }
}

impl Display for Interface {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => index.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// A port, with or without an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The address; `None` if only a port was named.
    pub address: Option<IpAddr>,
    /// The interface to which the bind is limited: that of a link-local address, or that of
    /// SO_BINDTODEVICE.
    pub interface: Option<Interface>,
    /// The port, never 0.
    pub port: u16,
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { address, interface, port } = self;
        let interface = interface.as_ref().map(|of| format!("%{of}")).unwrap_or_default();
        match address {
            Some(IpAddr::V4(address)) => write!(f, "{address}{interface}:{port}"),
            Some(IpAddr::V6(address)) => write!(f, "[{address}{interface}]:{port}"),
            None => write!(f, "*{interface}:{port}"),
        }
    }
}

/// Why a text is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Port 0 requests any free port.
    #[error("port 0 in `{0}` is not a port: it asks the kernel for any free port")]
    PortZero(String),
    /// The highest port is 65535.
    #[error("`{0}` is not a port: the highest is 65535")]
    PortTooHigh(String),
    /// services(5) has no such name for the protocol.
    #[error("`{name}` is not a port, and {SERVICES} has no {protocol} service of that name")]
    NoService {
        /// The name.
        name: String,
        /// The protocol.
        protocol: &'static str,
    },
    /// An address has no port.
    #[error("no port in `{0}`")]
    NoPort(String),
    /// An IPv6 address has no brackets, so its end is ambiguous.
    #[error("the IPv6 address in `{0}` has no brackets")]
    NoBrackets(String),
    /// The text cannot be the name or the index of an interface.
    #[error("no valid interface after the % in `{0}`")]
    BadInterface(String),
    /// No interface has that name or index.
    #[error("no network interface `{0}` in this network namespace")]
    NoInterface(Interface),
    /// The text is a host name, or not an address at all.
    #[error("`{0}` is not an IP address")]
    NoAddress(String),
}

impl Advised for TargetError {
    fn hint(&self) -> &'static str {
        match self {
            Self::PortZero(_) | Self::PortTooHigh(_) | Self::NoPort(_) => {
                "name a port from 1 to 65535: 8080, 127.0.0.1:8080, [::1]:8080"
            }
            Self::NoService { .. } => "use the port number; if it is a UDP service, add --udp",
            Self::NoBrackets(_) => "write [::1]:8080",
            Self::BadInterface(_) => {
                "use an interface name or number from ip link: [fe80::1%eth0]:8080"
            }
            Self::NoInterface(_) => {
                "run ip link for the interfaces of this network namespace, ip netns exec NAME ip \
                 link for those of another"
            }
            Self::NoAddress(_) => {
                "a host name may have several addresses; use the bound address: 127.0.0.1:8080, \
                 [::1]:8080, or the port alone for all addresses"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}

/// Parses each of `texts`. Names of services are looked up for `protocol` in services(5).
///
/// # Errors
/// The error of the first text that is invalid.
pub fn targets(texts: &[String], protocol: Protocol) -> Result<Vec<Target>, TargetError> {
    // Read only if a target is not a number.
    let services = std::cell::OnceCell::new();
    let port_of = |name: &str| {
        let known = services.get_or_init(|| {
            String::from_utf8_lossy(&fs::read(SERVICES).unwrap_or_default()).into_owned()
        });
        service(known, name, protocol.into())
    };
    texts.iter().map(|text| parse(text, protocol, port_of)).collect()
}

/// Parses `8080`, `:8080`, `*:8080`, `127.0.0.1:8080`, `[::1]:8080`, and an interface after an
/// address as in ss(8) and other tools: `[fe80::1]%lo:8080`, `[fe80::1%lo]:8080`,
/// `127.0.0.53%lo:53`, `*%eth0:80`. `service` returns the port of a name.
fn parse(
    text: &str,
    protocol: Protocol,
    service: impl Fn(&str) -> Option<u16>,
) -> Result<Target, TargetError> {
    let (address, interface, port) = split(text)?;
    let port = if port.is_empty() {
        return Err(TargetError::NoPort(text.to_owned()));
    } else if port.bytes().all(|byte| byte.is_ascii_digit()) {
        port.parse().map_err(|_| TargetError::PortTooHigh(port.to_owned()))?
    } else {
        service(port).ok_or_else(|| TargetError::NoService {
            name: port.to_owned(),
            protocol: protocol.into(),
        })?
    };
    match port {
        0 => Err(TargetError::PortZero(text.to_owned())),
        port => Ok(Target { address, interface, port }),
    }
}

/// Splits the address and the interface from the port's text.
fn split(text: &str) -> Result<(Option<IpAddr>, Option<Interface>, &str), TargetError> {
    let no_address = || TargetError::NoAddress(text.to_owned());
    let no_port = || TargetError::NoPort(text.to_owned());
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, rest) = rest.split_once(']').ok_or_else(no_address)?;
        let (address, inner) = scoped(inside, text)?;
        let address: Ipv6Addr = address.parse().map_err(|_| no_address())?;
        let (between, port) = rest.split_once(':').ok_or_else(no_port)?;
        let (nothing, outer) = scoped(between, text)?;
        if !nothing.is_empty() {
            return Err(no_port());
        }
        if inner.is_some() && outer.is_some() {
            return Err(TargetError::BadInterface(text.to_owned()));
        }
        return Ok((Some(address.into()), inner.or(outer), port));
    }
    match text.rsplit_once(':') {
        // For example `:::8080`, which netstat prints.
        Some((address, _)) if address.contains(':') => {
            Err(TargetError::NoBrackets(text.to_owned()))
        }
        Some((place, port)) => {
            let (address, interface) = scoped(place, text)?;
            if matches!(address, "" | "*") {
                return Ok((None, interface, port));
            }
            let address: IpAddr =
                address.parse().map_err(|_| TargetError::NoAddress(address.to_owned()))?;
            Ok((Some(address), interface, port))
        }
        None if text.parse::<IpAddr>().is_ok() => Err(no_port()),
        None => Ok((None, None, text)),
    }
}

/// Splits `fe80::1%lo`. A name must be valid for the kernel (`dev_valid_name`).
fn scoped<'a>(place: &'a str, text: &str) -> Result<(&'a str, Option<Interface>), TargetError> {
    const LONGEST: usize = 15;
    let Some((address, name)) = place.split_once('%') else { return Ok((place, None)) };
    let is_number = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let interface = if is_number {
        name.parse().ok().filter(|&index| index != 0).map(Interface::Index)
    } else {
        let parts = |char: char| char.is_whitespace() || "/:%[]".contains(char);
        let is_name = (1..=LONGEST).contains(&name.len()) && !name.contains(parts);
        is_name.then(|| Interface::Name(name.to_owned()))
    };
    let interface = interface.ok_or_else(|| TargetError::BadInterface(text.to_owned()))?;
    Ok((address, Some(interface)))
}

/// Returns the port of a service, by its name or an alias, from a text in the format of
/// services(5): `http 80/tcp www # WorldWideWeb`.
fn service(services: &str, wanted: &str, protocol: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let line = line.split('#').next()?;
        let mut fields = line.split_ascii_whitespace();
        let (name, port) = (fields.next()?, fields.next()?);
        let (port, its) = port.split_once('/')?;
        let named = its == protocol && (name == wanted || fields.any(|alias| alias == wanted));
        named.then(|| port.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVICES: &str = "# Network services\n\
        domain\t53/tcp\ndomain\t53/udp\n\
        http\t80/tcp\twww # WorldWideWeb HTTP\nntp 123/udp\nodd 70000/tcp\nzero 0/tcp\n";

    fn read(text: &str) -> Result<String, TargetError> {
        let parsed = parse(text, Protocol::Tcp, |name| service(SERVICES, name, "tcp"))?;
        Ok(parsed.to_string())
    }

    #[test]
    fn every_form() {
        for (text, target) in [
            ("8080", "*:8080"),
            (":8080", "*:8080"),
            ("*:8080", "*:8080"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:http", "0.0.0.0:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("[::]:www", "[::]:80"),
            ("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.1]:1"),
            ("http", "*:80"),
            ("65535", "*:65535"),
            ("0080", "*:80"),
            ("[fe80::1%lo]:80", "[fe80::1%lo]:80"),
            ("[fe80::1]%lo:80", "[fe80::1%lo]:80"),
            ("[fe80::1%12]:http", "[fe80::1%12]:80"),
            ("127.0.0.53%lo:53", "127.0.0.53%lo:53"),
            ("*%eth0.7:80", "*%eth0.7:80"),
            ("%eth0:80", "*%eth0:80"),
            ("0.0.0.0%br-1a2b3c:80", "0.0.0.0%br-1a2b3c:80"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(target), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        use TargetError::{
            BadInterface, NoAddress, NoBrackets, NoPort, NoService, PortTooHigh, PortZero,
        };
        let no_service = |name: &str| NoService { name: name.to_owned(), protocol: "tcp" };
        for (text, error) in [
            ("0", PortZero("0".to_owned())),
            ("127.0.0.1:0", PortZero("127.0.0.1:0".to_owned())),
            ("zero", PortZero("zero".to_owned())),
            ("65536", PortTooHigh("65536".to_owned())),
            ("99999999999999999999", PortTooHigh("99999999999999999999".to_owned())),
            ("", NoPort(String::new())),
            (":", NoPort(":".to_owned())),
            ("127.0.0.1", NoPort("127.0.0.1".to_owned())),
            ("127.0.0.1:", NoPort("127.0.0.1:".to_owned())),
            ("[::1]", NoPort("[::1]".to_owned())),
            ("::1:8080", NoBrackets("::1:8080".to_owned())),
            (":::8080", NoBrackets(":::8080".to_owned())),
            ("[::1", NoAddress("[::1".to_owned())),
            ("[127.0.0.1]:80", NoAddress("[127.0.0.1]:80".to_owned())),
            ("localhost:80", NoAddress("localhost".to_owned())),
            ("[fe80::1%]:80", BadInterface("[fe80::1%]:80".to_owned())),
            ("[fe80::1%0]:80", BadInterface("[fe80::1%0]:80".to_owned())),
            ("[fe80::1%a/b]:80", BadInterface("[fe80::1%a/b]:80".to_owned())),
            ("[fe80::1%lo]%lo:80", BadInterface("[fe80::1%lo]%lo:80".to_owned())),
            ("[fe80::1%99999999999]:80", BadInterface("[fe80::1%99999999999]:80".to_owned())),
            ("[fe80::1]x:80", NoPort("[fe80::1]x:80".to_owned())),
            ("fe80::1%lo:80", NoBrackets("fe80::1%lo:80".to_owned())),
            ("-1", no_service("-1")),
            ("+80", no_service("+80")),
            ("80/tcp", no_service("80/tcp")),
            ("odd", no_service("odd")),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_service_has_a_protocol() {
        assert_eq!(service(SERVICES, "ntp", "udp"), Some(123));
        assert_eq!(service(SERVICES, "ntp", "tcp"), None);
        assert_eq!(service(SERVICES, "domain", "udp"), Some(53));
        assert_eq!(service(SERVICES, "HTTP", "tcp"), None);
        assert_eq!(service(SERVICES, "WorldWideWeb", "tcp"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_target_or_an_error(text in r"[\[\]:*.0-9a-f%\PC]{0,24}") {
            if let Ok(target) = parse(&text, Protocol::Udp, |_| None) {
                prop_assert_ne!(target.port, 0);
                let again = parse(&target.to_string(), Protocol::Udp, |_| None);
                prop_assert_eq!(again, Ok(target));
            }
        }

        #[test]
        fn any_services_are_read(services: String, name in "[a-z]{1,3}") {
            let _ = service(&services, &name, "tcp");
        }
    }
}
