//! Reports when a socket starts to listen, in any network namespace: an instance of the object
//! in which only that hook is loaded.

use std::{io, path::Path};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use tokio::io::unix::AsyncFd;

use super::{
    KernelError, attach,
    features::{self, KernelTypes},
    sets::{Hook, Probe},
    take_ring,
};

const PROBE: Probe =
    Probe { program: "pw_listens", hook: Hook::TpBtf("inet_sock_set_state"), optional: None };

/// The loaded hook. Dropping it detaches the hook.
pub struct Hooked(Ebpf);

/// The ports on which sockets start to listen.
pub struct Listens {
    _hooked: Hooked,
    ports: AsyncFd<RingBuf<MapData>>,
}

impl Hooked {
    /// Loads and attaches the hook, which takes some tenths of a second.
    ///
    /// # Errors
    /// Capabilities are missing, or the kernel rejects it.
    pub fn attach() -> Result<Self, KernelError> {
        let missing = features::missing_capabilities();
        if !missing.is_empty() {
            return Err(KernelError::NotPermitted { missing });
        }
        let types = KernelTypes::read(Path::new(features::VMLINUX))?;
        attach::attach_alone(&types, &PROBE).map(Self)
    }
}

impl Listens {
    /// Takes the ring out of the loaded object. Needs a tokio runtime.
    ///
    /// # Errors
    /// The object does not contain it, or it cannot be polled.
    pub fn open(mut hooked: Hooked) -> Result<Self, KernelError> {
        let ports = take_ring(&mut hooked.0)?;
        Ok(Self { _hooked: hooked, ports })
    }

    /// Waits until a socket listens on one of `wanted`. May be dropped at any time.
    ///
    /// # Errors
    /// The ring cannot be polled.
    pub async fn any_of(&mut self, wanted: &[u16]) -> io::Result<()> {
        loop {
            let mut found = false;
            while let Some(record) = self.ports.get_mut().next() {
                let port = <[u8; 8]>::try_from(&*record).map(u64::from_ne_bytes);
                found |= port.is_ok_and(|port| wanted.iter().any(|&own| u64::from(own) == port));
            }
            if found {
                return Ok(());
            }
            self.ports.readable_mut().await?.clear_ready();
        }
    }
}
