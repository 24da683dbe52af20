//! What `explain` and `wait` are asked about: a port, and an address or any.
//! Parsing is pure and total.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::{
    advice::{Advised, USAGE},
    diagnose::words,
    evidence::Protocol,
};

/// Where services have their names (services(5)).
const SERVICES: &str = "/etc/services";

/// A port, at an address or at any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The address; `None` where only a port was named.
    pub address: Option<IpAddr>,
    /// The port, never 0.
    pub port: u16,
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => SocketAddr::new(address, self.port).fmt(f),
            None => write!(f, "*:{}", self.port),
        }
    }
}

/// Why a text names no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It asks for a free one.
    #[error("port 0 in `{0}` is no port: it asks the kernel for any free one")]
    PortZero(String),
    /// There are 65535.
    #[error("`{0}` is no port: the highest is 65535")]
    PortTooHigh(String),
    /// No such name for the protocol.
    #[error("`{name}` is no port, and {SERVICES} has no {protocol} service of that name")]
    NoService {
        /// The name.
        name: String,
        /// The protocol that was looked for.
        protocol: &'static str,
    },
    /// There is an address, and nothing behind it.
    #[error("`{0}` names no port")]
    NoPort(String),
    /// Where such an address ends cannot be seen.
    #[error("the IPv6 address in `{0}` has no brackets")]
    NoBrackets(String),
    /// A name of a host, or nonsense.
    #[error("`{0}` is no IP address")]
    NoAddress(String),
}

impl Advised for TargetError {
    fn hint(&self) -> &'static str {
        match self {
            Self::PortZero(_) | Self::PortTooHigh(_) | Self::NoPort(_) => {
                "name a port from 1 to 65535: 8080, 127.0.0.1:8080, [::1]:8080"
            }
            Self::NoService { .. } => {
                "name the port by its number; a service's protocol counts too (--udp)"
            }
            Self::NoBrackets(_) => "write [::1]:8080",
            Self::NoAddress(_) => {
                "a host's name may stand for several addresses; write the one that is bound: \
                 127.0.0.1:8080, [::1]:8080, or the port alone for any"
            }
        }
    }

    fn exit_code(&self) -> u8 {
        USAGE
    }
}

/// Reads each of `texts`; services are looked up by `protocol` in services(5).
///
/// # Errors
/// The first that names no port.
pub fn targets(texts: &[String], protocol: Protocol) -> Result<Vec<Target>, TargetError> {
    // Most people write numbers, and then nothing is read.
    let services = std::cell::OnceCell::new();
    let port_of = |name: &str| {
        let known = services.get_or_init(|| {
            String::from_utf8_lossy(&fs::read(SERVICES).unwrap_or_default()).into_owned()
        });
        service(known, name, words::protocol(protocol))
    };
    texts.iter().map(|text| parse(text, protocol, port_of)).collect()
}

/// Reads `8080`, `:8080`, `*:8080`, `127.0.0.1:8080`, `[::1]:8080`; `service` gives
/// the port of a name.
fn parse(
    text: &str,
    protocol: Protocol,
    service: impl Fn(&str) -> Option<u16>,
) -> Result<Target, TargetError> {
    let (address, port) = split(text)?;
    let port = if port.is_empty() {
        return Err(TargetError::NoPort(text.to_owned()));
    } else if port.bytes().all(|byte| byte.is_ascii_digit()) {
        port.parse().map_err(|_| TargetError::PortTooHigh(port.to_owned()))?
    } else {
        service(port).ok_or_else(|| TargetError::NoService {
            name: port.to_owned(),
            protocol: words::protocol(protocol),
        })?
    };
    match port {
        0 => Err(TargetError::PortZero(text.to_owned())),
        port => Ok(Target { address, port }),
    }
}

/// Parts the address from the port's text.
fn split(text: &str) -> Result<(Option<IpAddr>, &str), TargetError> {
    let no_address = || TargetError::NoAddress(text.to_owned());
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(no_address)?;
        let address: Ipv6Addr = address.parse().map_err(|_| no_address())?;
        let port = rest.strip_prefix(':').ok_or_else(|| TargetError::NoPort(text.to_owned()))?;
        return Ok((Some(address.into()), port));
    }
    match text.rsplit_once(':') {
        // As `:::8080`, which netstat prints.
        Some((address, _)) if address.contains(':') => {
            Err(TargetError::NoBrackets(text.to_owned()))
        }
        Some(("" | "*", port)) => Ok((None, port)),
        Some((address, port)) => {
            let address: IpAddr =
                address.parse().map_err(|_| TargetError::NoAddress(address.to_owned()))?;
            Ok((Some(address), port))
        }
        None if text.parse::<IpAddr>().is_ok() => Err(TargetError::NoPort(text.to_owned())),
        None => Ok((None, text)),
    }
}

/// The port of a service by its name or an alias, in services(5)' form:
/// `http 80/tcp www # WorldWideWeb`.
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
        ] {
            assert_eq!(read(text).as_deref(), Ok(target), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        use TargetError::{NoAddress, NoBrackets, NoPort, NoService, PortTooHigh, PortZero};
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
