//! A connection to one service manager.

use std::{fmt, future::poll_fn, io, pin::Pin, sync::Arc};

use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, task::yield_now};
use zbus::{
    Connection, DynamicType, MatchRule, Message, MessageStream, OwnedObjectPath,
    connection::Builder,
    export::futures_core::Stream as _,
    fdo, message,
    wire::{Type, as_variant},
};

use super::{Failure, bounded::Bounded};
use crate::enrich::{host::Host, run, supervisors::cut};

const NAME: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A connection to systemd, of the system or of a user.
pub struct Manager {
    connection: Connection,
    /// The receiver of the messages: on a bus systemd's name, on its own socket whatever
    /// process answers.
    destination: Option<&'static str>,
    /// The manager's process, where it created the socket itself.
    pub pid: Option<u32>,
}

/// Why a socket cannot be used to ask.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// No process answers there.
    #[error("{0}")]
    Io(#[source] Arc<io::Error>),
    /// A process of another user answers.
    #[error("it belongs to user {uid}")]
    Anothers {
        /// The user.
        uid: u32,
    },
    /// The process that answers does not speak D-Bus.
    #[error("{why}")]
    Handshake {
        /// The error of the D-Bus library.
        why: String,
    },
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.into())
    }
}

/// An entry of `ListUnitsByPatterns`: name, description, load, active and sub state, followed
/// unit, object path, job id, job type, job path.
type Row =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

impl Manager {
    /// Connects over the bus, otherwise to the manager's own socket, which needs no bus but
    /// requires root. On its own socket systemd uses its well-known name as the sender, which
    /// zbus rejects. So that socket helps only where the manager does not do this. `owner` is
    /// the user of a user's manager.
    ///
    /// # Errors
    /// Neither of the two works.
    pub async fn connect(host: &Host, owner: Option<u32>) -> Result<Self, Failure> {
        let bus = if owner.is_some() { "bus" } else { "dbus/system_bus_socket" };
        let service = |name| run::Service { user: owner, name };
        let bus = match Self::open(host, service(bus), Some(NAME)).await {
            Ok(manager) => return Ok(manager),
            Err(error) => error,
        };
        let own = Self::open(host, service("systemd/private"), None).await;
        own.map_err(|own| Failure::Unreachable { own, bus })
    }

    async fn open(
        host: &Host,
        service: run::Service<'_>,
        destination: Option<&'static str>,
    ) -> Result<Self, OpenError> {
        let stream = service.connect(host).and_then(UnixStream::from_std)?;
        let peer = stream.peer_cred()?;
        // Whichever user created the socket, another user's process may listen on it.
        if service.user.is_some_and(|uid| uid != peer.uid()) {
            return Err(OpenError::Anothers { uid: peer.uid() });
        }
        let builder = Builder::socket(Bounded(stream));
        let builder = if destination.is_none() { builder.p2p() } else { builder };
        let connection = builder.build().await;
        let connection = connection.map_err(|error| OpenError::Handshake { why: short(error) })?;
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
        Ok(Self { connection, destination, pid: pid.filter(|_| destination.is_none()) })
    }

    /// Returns one property of an object.
    ///
    /// # Errors
    /// There is no such object or property, it has another type, or the connection was closed.
    pub async fn property<T>(&self, path: &str, interface: &str, name: &str) -> Result<T, Failure>
    where
        T: DeserializeOwned + Type,
    {
        let reply = self.call(path, PROPERTIES, "Get", &(interface, name)).await?;
        let body = reply.body();
        let value: as_variant::Deserialize<'_, T> = body.deserialize().map_err(failure)?;
        Ok(value.0)
    }

    /// Returns the `.socket` units in one of these states, with their objects.
    ///
    /// # Errors
    /// The connection was closed, or systemd is older than 230.
    pub async fn sockets(&self, states: &[&str]) -> Result<Vec<(String, String)>, Failure> {
        let wanted = (states, ["*.socket"].as_slice());
        let reply = self.call(OBJECT, MANAGER, "ListUnitsByPatterns", &wanted).await?;
        let rows: Vec<Row> = reply.body().deserialize().map_err(failure)?;
        Ok(rows.into_iter().map(|row| (row.0, row.6.to_string())).collect())
    }

    /// Has the manager report the ends of jobs on this connection, once before the first
    /// [`stop`](Self::stop).
    ///
    /// # Errors
    /// The manager refuses.
    pub async fn subscribe(&self) -> Result<(), Failure> {
        self.call(OBJECT, MANAGER, "Subscribe", &()).await.map(drop)
    }

    /// Stops a unit, and returns the result of the job when that has ended: `done`, `canceled`,
    /// `timeout`, `failed`, `dependency` or `skipped`.
    ///
    /// # Errors
    /// The manager refuses, there is no such unit, or the connection is at its end.
    pub async fn stop(&self, unit: &str) -> Result<String, Failure> {
        let rule = MatchRule::builder().msg_type(message::Type::Signal).interface(MANAGER);
        let rule = rule.member("JobRemoved").build().map_err(failure)?;
        // Before the job begins, so that its end is not missed.
        let mut removed =
            MessageStream::for_match_rule(rule, &self.connection, None).await.map_err(failure)?;
        let reply = self.call(OBJECT, MANAGER, "StopUnit", &(unit, "replace")).await?;
        let job: OwnedObjectPath = reply.body().deserialize().map_err(failure)?;
        while let Some(message) = poll_fn(|task| Pin::new(&mut removed).poll_next(task)).await {
            let message = message.map_err(failure)?;
            let body = message.body();
            let ended = body.deserialize::<(u32, OwnedObjectPath, String, String)>();
            if let Ok((_, path, _, result)) = ended
                && path == job
            {
                return Ok(cut(&result));
            }
        }
        Err(Failure::Broken { why: "the connection was closed before the job ended".to_owned() })
    }

    async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, Failure>
    where
        B: serde::Serialize + DynamicType,
    {
        self.connection
            .call_method(self.destination, path, Some(interface), method, body)
            .await
            .map_err(failure)
    }

    /// Closes the connection. The task that reads can finish, so that no descriptor is left
    /// open until the next connection.
    pub async fn leave(self) {
        // The other end may have closed first.
        let _ = self.connection.close().await;
        yield_now().await;
    }
}

/// Converts an error. An error reply is about the request, any other error is about the
/// manager.
fn failure(error: zbus::Error) -> Failure {
    let why = short(&error);
    match error {
        zbus::Error::FDO(error)
            if matches!(
                *error,
                fdo::Error::AccessDenied(_) | fdo::Error::InteractiveAuthorizationRequired(_)
            ) =>
        {
            Failure::Denied { answer: why }
        }
        zbus::Error::MethodError(..)
        | zbus::Error::FDO(_)
        | zbus::Error::SignatureMismatch(..)
        | zbus::Error::IncorrectType => Failure::Refused { answer: why },
        _ => Failure::Broken { why },
    }
}

/// Shortens an error text, which comes from outside.
fn short(error: impl fmt::Display) -> String {
    cut(&error.to_string())
}
