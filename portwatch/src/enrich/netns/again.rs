//! Finds a network namespace again by what is known of it.

use std::{
    io::{self, ErrorKind},
    time::Instant,
};

use super::{any_process, cookie, differ, inode, named, open};
use crate::enrich::host::{DiagSocket, Host, NetnsRef};

/// The identifiers of a namespace. An inode may be reused after the namespace was removed, a
/// cookie never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its inode.
    pub inode: Option<u32>,
    /// Its cookie, if the kernel reports it.
    pub cookie: Option<u64>,
}

/// What became of it.
pub enum Again {
    /// It exists; a socket in it.
    There(Box<dyn DiagSocket>),
    /// It was removed, and all its sockets with it.
    Gone,
    /// It is not known; the reason.
    Unknown(String),
}

/// Searches a namespace and enters it.
pub fn enter_again(host: &Host, known: Known, deadline: Instant) -> Again {
    let own = host.proc_root.join("self/ns/net");
    let wanted = match (known.inode, known.cookie) {
        (Some(wanted), _) => wanted,
        (None, Some(cookie)) => match cookie::find(host, cookie, &own, deadline) {
            Ok(wanted) => wanted,
            // A socket keeps its namespace without any process there.
            Err(_) => return Again::Unknown("its network namespace was not found".to_owned()),
        },
        (None, None) => return Again::Unknown("its network namespace is not known".to_owned()),
    };
    let way = match inode(&own) == Some(wanted) {
        true => Ok(NetnsRef::Own),
        false => way_into(host, wanted, deadline).map(NetnsRef::Other),
    };
    let way = match way {
        Ok(way) => way,
        Err(why) if why.kind() == ErrorKind::NotFound => match host.hidden() {
            None => return Again::Gone,
            Some(hidden) => return Again::Unknown(hidden.why().to_owned()),
        },
        Err(why) => return Again::Unknown(format!("its network namespace was not found: {why}")),
    };
    match host.sock_diag(&way) {
        Ok(diag) if differ(known.cookie, diag.netns_cookie()) => Again::Gone,
        Ok(diag) => Again::There(diag),
        Err(why) => Again::Unknown(format!("the sockets there cannot be listed: {why}")),
    }
}

fn way_into(host: &Host, wanted: u32, deadline: Instant) -> io::Result<std::fs::File> {
    match named(host, wanted).and_then(|(_, path)| open(&path, wanted).ok()) {
        Some(file) => Ok(file),
        None => any_process(host, wanted, deadline),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::enrich::tests::fake::{host, own_netns};

    fn again(known: impl FnOnce(u32) -> Known) -> &'static str {
        let root = TempDir::new().unwrap();
        let host = host(&root, &[]);
        let own = own_netns(&root);
        match enter_again(&host, known(own), Instant::now() + Duration::from_secs(5)) {
            Again::There(_) => "there",
            Again::Gone => "gone",
            Again::Unknown(_) => "unknown",
        }
    }

    /// The fake one has the cookie 1.
    #[test]
    fn a_namespace_is_the_same_only_with_its_cookie() {
        let known = |inode, cookie| Known { inode, cookie };
        assert_eq!(again(|own| known(Some(own), Some(1))), "there");
        assert_eq!(again(|own| known(Some(own), None)), "there", "before Linux 5.14");
        assert_eq!(again(|own| known(Some(own), Some(2))), "gone", "its inode is another's");
        assert_eq!(again(|_| known(None, Some(1))), "there");
        assert_eq!(again(|_| known(None, Some(2))), "unknown");
        assert_eq!(again(|_| known(None, None)), "unknown");
    }
}
