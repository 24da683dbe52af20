//! Finds the container that has published a port. Pure, over an engine's list.

use std::net::{IpAddr, SocketAddr};

use crate::{
    enrich::containers::{Unknown, proxy::Proxy},
    evidence::{Protocol, Workload},
};

/// A running container in an engine's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Its full id.
    pub id: String,
    /// Its name, without the slash that the API puts before it.
    pub name: Option<String>,
    /// Its image's name.
    pub image: Option<String>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its addresses on all of its networks.
    pub addresses: Vec<IpAddr>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's address; `None` if the engine does not say, which means all.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub host: u16,
    /// The container's port.
    pub container: u16,
}

/// Returns the one container for which `proxy` has its port open.
///
/// # Errors
/// No container matches, or more than one does.
pub fn by(listed: &[Listed], proxy: &Proxy) -> Result<Workload, Unknown> {
    let engine = proxy.engine;
    let mut fitting = listed.iter().filter_map(|container| match &proxy.id {
        Some(id) => (container.id == *id).then(|| (container, port(container, proxy))),
        None => port(container, proxy)
            .filter(|_| has_address(container, proxy))
            .map(|port| (container, Some(port))),
    });
    let (container, port) = match (fitting.next(), fitting.next()) {
        (Some(one), None) => one,
        (None, _) if proxy.id.is_some() => return Err(Unknown::NotListed { engine }),
        (None, _) => return Err(Unknown::NotPublished { engine, port: proxy.host.port }),
        _ => return Err(Unknown::Ambiguous { engine, port: proxy.host.port }),
    };
    let as_listed = port.map(|port| {
        let address = port.address.unwrap_or(proxy.host.address);
        text(address, port.host, port.container, port.protocol)
    });
    Ok(Workload {
        engine,
        id: Some(container.id.clone()),
        name: container.name.clone().or_else(|| proxy.name.clone()),
        image: container.image.clone(),
        pod: None,
        published: proxy.workload().and_then(|workload| workload.published).or(as_listed),
    })
}

/// Returns the container's port that the proxy may have open.
fn port<'a>(container: &'a Listed, proxy: &Proxy) -> Option<&'a Port> {
    let wanted = &proxy.host;
    container.ports.iter().find(|port| {
        // An address that is bound as the wildcard address may be listed as any.
        let same_address = wanted.address.is_unspecified()
            || port.address.is_none_or(|address| address == wanted.address);
        port.protocol == wanted.protocol
            && port.host == wanted.port
            && same_address
            && proxy.container.is_none_or(|(_, inner)| inner == port.container)
    })
}

/// Returns whether the container has the address that the proxy forwards to, on any of its
/// networks, if both are known.
fn has_address(container: &Listed, proxy: &Proxy) -> bool {
    let Some((wanted, _)) = proxy.container else { return true };
    container.addresses.is_empty() || container.addresses.contains(&wanted)
}

/// Returns a text like `127.0.0.1:8080->80/tcp`.
pub fn text(address: IpAddr, host: u16, container: u16, protocol: Protocol) -> String {
    format!("{}->{container}/{protocol}", SocketAddr::new(address, host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{enrich::containers::Endpoint, evidence::Engine};

    fn listed(name: &str, address: &str, host: u16, networks: &[&str]) -> Listed {
        Listed {
            id: name.repeat(64),
            name: Some(name.to_owned()),
            image: None,
            ports: vec![Port {
                protocol: Protocol::Tcp,
                address: address.parse().ok(),
                host,
                container: 80,
            }],
            addresses: networks.iter().map(|address| address.parse().unwrap()).collect(),
        }
    }

    fn proxy(address: &str, port: u16, container: Option<&str>) -> Proxy {
        Proxy {
            engine: Engine::Docker,
            uid: Some(0),
            id: None,
            name: None,
            host: Endpoint { protocol: Protocol::Tcp, address: address.parse().unwrap(), port },
            container: container.map(|address| (address.parse().unwrap(), 80)),
            dedicated: true,
        }
    }

    #[test]
    fn a_container_is_found_on_any_of_its_networks() {
        let list = [
            listed("a", "127.0.0.1", 8080, &["172.17.0.2"]),
            listed("b", "127.0.0.2", 8080, &["172.18.0.2", "172.19.0.7"]),
        ];
        let found = by(&list, &proxy("127.0.0.2", 8080, Some("172.19.0.7"))).unwrap();
        assert_eq!(found.name.as_deref(), Some("b"));
        assert_eq!(found.published.as_deref(), Some("127.0.0.2:8080->80/tcp"));
        let found = by(&list, &proxy("127.0.0.1", 8080, None)).unwrap();
        assert_eq!(found.published.as_deref(), Some("127.0.0.1:8080->80/tcp"));
    }

    #[test]
    fn what_fits_two_or_none_is_not_guessed() {
        let list = [
            listed("a", "127.0.0.1", 8080, &["172.17.0.2"]),
            listed("b", "127.0.0.2", 8080, &["172.18.0.2"]),
        ];
        let why = by(&list, &proxy("0.0.0.0", 8080, None)).unwrap_err();
        assert!(matches!(why, Unknown::Ambiguous { port: 8080, .. }), "{why}");
        for other in [
            proxy("127.0.0.1", 8081, None),
            proxy("127.0.0.3", 8080, None),
            proxy("127.0.0.1", 8080, Some("172.18.0.2")),
        ] {
            let why = by(&list, &other).unwrap_err();
            assert!(matches!(why, Unknown::NotPublished { .. }), "{other:?}: {why}");
        }
    }

    #[test]
    fn an_id_is_enough() {
        let list = [listed("a", "", 8080, &[])];
        let with_id = |id: &str, port| Proxy { id: Some(id.repeat(64)), ..proxy("::", port, None) };
        let found = by(&list, &with_id("a", 9)).unwrap();
        assert_eq!((found.name.as_deref(), found.published), (Some("a"), None));
        assert_eq!(
            by(&list, &with_id("a", 8080)).unwrap().published.as_deref(),
            Some("[::]:8080->80/tcp")
        );
        assert!(by(&list, &with_id("b", 8080)).is_err());
    }
}
