//! An engine's list of containers (`GET /containers/json` of the Docker Engine API). Pure,
//! total, and no larger in memory than as text: only a limited number of elements of each
//! array and map is kept, and only the fields that are used.

use std::{fmt, marker::PhantomData, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use crate::enrich::containers::{
    cut,
    proxy::MOST_NAME,
    published::{Listed, Port},
};

/// The most ports and networks of a container that are kept.
const MOST_OF_EACH: usize = 256;
/// An image's name may be a whole reference with its digest, so it has this limit.
const MOST_IMAGE: usize = 255;

/// Returns the containers of a list that have an id.
///
/// # Errors
/// The text is not such a list.
pub fn containers(body: &[u8]) -> serde_json::Result<Vec<Listed>> {
    serde_json::from_slice::<First<Container>>(body).map(|found| found.0)
}

/// Returns whether the id is safe in a request's path.
pub fn is_hexadecimal(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An element of an array or map in an answer.
trait Element: DeserializeOwned {
    /// How many are kept at most.
    const MOST: usize;
    /// What is kept of it.
    type Kept;

    /// `None` skips it.
    fn keep(self) -> Option<Self::Kept>;
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Container {
    id: Option<String>,
    names: Option<First<String>>,
    image: Option<String>,
    ports: Option<First<Published>>,
    network_settings: Option<Networks>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Networks {
    networks: Option<First<Network>>,
}

#[derive(Deserialize)]
struct Network {
    #[serde(rename = "IPAddress")]
    v4: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    v6: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Published {
    #[serde(rename = "IP")]
    address: Option<String>,
    private_port: u16,
    public_port: Option<u16>,
    r#type: Option<String>,
}

impl Element for Container {
    const MOST: usize = 2048;
    type Kept = Listed;

    fn keep(self) -> Option<Listed> {
        let id = self.id.filter(|id| id.len() <= 64 && is_hexadecimal(id))?;
        let name = self.names.and_then(|names| names.0.into_iter().next());
        let networks = self.network_settings.and_then(|settings| settings.networks);
        Some(Listed {
            id,
            name: name
                .map(|name| cut(name.strip_prefix('/').unwrap_or(&name), MOST_NAME))
                .filter(|name| !name.is_empty()),
            image: self
                .image
                .map(|image| cut(&image, MOST_IMAGE))
                .filter(|image| !image.is_empty()),
            ports: self.ports.map(|ports| ports.0).unwrap_or_default(),
            addresses: networks.into_iter().flat_map(|networks| networks.0).flatten().collect(),
        })
    }
}

impl Element for String {
    const MOST: usize = 1;
    type Kept = Self;

    fn keep(self) -> Option<Self> {
        Some(self)
    }
}

impl Element for Network {
    const MOST: usize = MOST_OF_EACH;
    type Kept = Vec<IpAddr>;

    fn keep(self) -> Option<Vec<IpAddr>> {
        let both = [self.v4, self.v6].into_iter().flatten();
        let addresses: Vec<_> = both.filter_map(|address| address.parse().ok()).collect();
        (!addresses.is_empty()).then_some(addresses)
    }
}

impl Element for Published {
    const MOST: usize = MOST_OF_EACH;
    type Kept = Port;

    /// A port that is only exposed has no host port.
    fn keep(self) -> Option<Port> {
        Some(Port {
            protocol: self.r#type?.parse().ok()?,
            address: self.address.and_then(|address| address.parse().ok()),
            host: self.public_port.filter(|&port| port != 0)?,
            container: self.private_port,
        })
    }
}

/// The first elements of an array, or values of a map; the others are skipped.
struct First<E: Element>(Vec<E::Kept>);

impl<'de, E: Element> Deserialize<'de> for First<E> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Elements(PhantomData))
    }
}

struct Elements<E>(PhantomData<E>);

impl<'de, E: Element> Visitor<'de> for Elements<E> {
    type Value = First<E>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array or a map")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<First<E>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < E::MOST
            && let Some(element) = elements.next_element::<E>()?
        {
            kept.extend(element.keep());
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(kept))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<First<E>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < E::MOST
            && let Some((IgnoredAny, element)) = entries.next_entry::<IgnoredAny, E>()?
        {
            kept.extend(element.keep());
        }
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(First(kept))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    #[test]
    fn of_many_the_first_are_kept() {
        let entry = |number| format!("{{\"Id\":\"{}\"}}", id(number));
        let many: Vec<_> = (0..Container::MOST + 5).map(entry).collect();
        let found = containers(format!("[{}]", many.join(",")).as_bytes()).unwrap();
        assert_eq!(found.len(), Container::MOST);
        assert_eq!(found[7].id, id(7));
        let port = "{\"PrivatePort\":80,\"PublicPort\":8080,\"Type\":\"tcp\"}";
        let ports = vec![port; MOST_OF_EACH + 5].join(",");
        let networks: Vec<_> = (0..MOST_OF_EACH + 5)
            .map(|n| format!("\"n{n}\":{{\"IPAddress\":\"10.0.0.1\"}}"))
            .collect();
        let one = format!(
            "[{{\"Id\":\"{}\",\"Ports\":[{ports}],\"NetworkSettings\":{{\"Networks\":{{{}}}}},\
             \"Names\":[\"/web\",\"/x\"],\"Labels\":{{\"a\":[1]}}}}]",
            id(1),
            networks.join(",")
        );
        let found = containers(one.as_bytes()).unwrap().pop().unwrap();
        assert_eq!((found.ports.len(), found.addresses.len()), (MOST_OF_EACH, MOST_OF_EACH));
        assert_eq!(found.name.as_deref(), Some("web"));
    }

    /// Three bytes each, and 4 MiB of them.
    #[test]
    fn what_says_nothing_is_not_kept() {
        let body = format!("[{}{{}}]", "{},".repeat(1_400_000));
        let found = containers(body.as_bytes()).unwrap();
        assert_eq!(found.capacity(), 0);
        let ports = format!("[{{\"Id\":\"{}\",\"Ports\":null,\"Names\":null}}]", id(1));
        assert_eq!(containers(ports.as_bytes()).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn any_answer_is_read(body: Vec<u8>) {
            let _ = containers(&body);
        }
    }
}
