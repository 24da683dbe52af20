//! The API of Docker and Podman, over a unix socket.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Instant,
};

use bollard::{
    API_DEFAULT_VERSION, BollardRequest, Docker,
    errors::Error,
    models::{ContainerSummary, PortSummary, PortSummaryTypeEnum},
    query_parameters::ListContainersOptionsBuilder,
};
use hyper::{
    Response, Uri,
    body::Incoming,
    client::conn::http1,
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt as _, net::UnixStream};

use crate::{
    enrich::{
        containers::{
            cut,
            proxy::MOST_NAME,
            published::{Listed, Port},
        },
        host::Host,
    },
    evidence::Protocol,
};

/// How much of an answer is read. A container's entry is 1 to 3 KB; the socket
/// may be a user's, who may write what they like.
const MOST_BYTES: u64 = 4 << 20;
/// Containers of an answer that are looked at.
const MOST_CONTAINERS: usize = 2048;
/// Ports and networks of a container that are looked at.
const MOST_OF_EACH: usize = 256;
/// An image's name may be a whole reference with its digest.
const MOST_IMAGE: usize = 255;
/// Characters of an engine's own message.
const MOST_MESSAGE: usize = 200;

/// The running containers, or the one with this id.
///
/// # Errors
/// Why they cannot be had, in words: no connection, no answer before the
/// deadline, an answer that is none.
pub fn list(
    host: &Host,
    socket: &Path,
    id: Option<&str>,
    deadline: Instant,
) -> Result<Vec<Listed>, String> {
    match host.within(deadline, ask(socket.to_owned(), id)) {
        Ok(Ok(containers)) => {
            Ok(containers.into_iter().take(MOST_CONTAINERS).filter_map(listed).collect())
        }
        Ok(Err(error)) => Err(cut(&error.to_string(), MOST_MESSAGE)),
        Err(error) => Err(error.to_string()),
    }
}

async fn ask(socket: PathBuf, id: Option<&str>) -> Result<Vec<ContainerSummary>, Error> {
    /// Never reached: the event's own deadline is in milliseconds.
    const SECONDS: u64 = 5;
    let transport = move |request| send(socket.clone(), request);
    // The client names no version in its questions, so each engine answers in
    // its own newest one: nothing has to be agreed upon first.
    let engine = Docker::connect_with_custom_transport(
        transport,
        Some("http://engine"),
        SECONDS,
        API_DEFAULT_VERSION,
    )?;
    let filters: HashMap<&str, Vec<&str>> = id.map(|id| ("id", vec![id])).into_iter().collect();
    let options = ListContainersOptionsBuilder::default().filters(&filters).build();
    engine.list_containers(Some(options)).await
}

/// One request on a connection of its own, of whose answer no more than a bound
/// is ever read.
async fn send(socket: PathBuf, mut request: BollardRequest) -> Result<Response<Incoming>, Error> {
    let (read, write) = UnixStream::connect(socket).await?.into_split();
    let stream = tokio::io::join(read.take(MOST_BYTES), write);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer or, if nobody waits for that any longer, with
    // the sender: at the latest when the runtime is next used.
    tokio::spawn(connection);
    let origin = request.uri().path_and_query().cloned();
    *request.uri_mut() = origin.map_or_else(Uri::default, Uri::from);
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    Ok(sender.send_request(request).await?)
}

/// An entry in our own words; `None` without an id.
fn listed(container: ContainerSummary) -> Option<Listed> {
    let id = container.id.filter(|id| id.len() <= 64 && is_hexadecimal(id))?;
    let name = container.names.unwrap_or_default().into_iter().next();
    let networks = container.network_settings.and_then(|settings| settings.networks);
    let addresses = networks
        .unwrap_or_default()
        .into_values()
        .take(MOST_OF_EACH)
        .flat_map(|network| [network.ip_address, network.global_ipv6_address])
        .filter_map(|address| address?.parse().ok())
        .collect();
    let ports = container.ports.unwrap_or_default().into_iter().take(MOST_OF_EACH);
    Some(Listed {
        id,
        name: name
            .map(|name| cut(name.strip_prefix('/').unwrap_or(&name), MOST_NAME))
            .filter(|name| !name.is_empty()),
        image: container
            .image
            .map(|image| cut(&image, MOST_IMAGE))
            .filter(|image| !image.is_empty()),
        ports: ports.filter_map(port).collect(),
        addresses,
    })
}

fn is_hexadecimal(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A port that is published; one that is only exposed has no end on the host.
fn port(port: PortSummary) -> Option<Port> {
    Some(Port {
        protocol: match port.typ? {
            PortSummaryTypeEnum::TCP => Protocol::Tcp,
            PortSummaryTypeEnum::UDP => Protocol::Udp,
            PortSummaryTypeEnum::SCTP => Protocol::Sctp,
            PortSummaryTypeEnum::EMPTY => return None,
        },
        address: port.ip.and_then(|address| address.parse().ok()),
        host: port.public_port.filter(|&port| port != 0)?,
        container: port.private_port,
    })
}
