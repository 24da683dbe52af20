//! Finds a network namespace again by its identifiers.

use std::{
    io::{self, ErrorKind},
    time::Instant,
};

use super::{any_process, cookie, differ, inode, named, open};
use crate::{
    enrich::host::{DiagSocket, Host, NetnsRef},
    kernel::nsfs::Hidden,
};

/// The identifiers of a namespace. An inode may be reused after the namespace was removed, a
/// cookie is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its inode.
    pub inode: Option<u32>,
    /// Its cookie, if the kernel reports it.
    pub cookie: Option<u64>,
}

/// The result of the search.
pub enum Again {
    /// It exists. This is a socket in it.
    There(Box<dyn DiagSocket>),
    /// It was removed, and all its sockets with it.
    Gone,
}

/// Why it is unknown whether the namespace still exists.
#[derive(Debug, thiserror::Error)]
pub enum NotEntered {
    /// Neither its inode nor its cookie is known.
    #[error("its network namespace is not known")]
    Unnamed,
    /// No namespace that was found has the cookie. A socket can keep its namespace alive
    /// without any process in it.
    #[error("its network namespace was not found")]
    NoCookie,
    /// Processes that may be in it are not visible.
    #[error("{}", .0.why())]
    Hidden(Hidden),
    /// It may not be entered, or nothing was found before the deadline.
    #[error("its network namespace was not found: {0}")]
    NotFound(io::Error),
    /// It was entered, but its sockets could not be listed.
    #[error("the sockets there cannot be listed: {0}")]
    NotListed(io::Error),
}

/// Finds a namespace and enters it.
///
/// # Errors
/// It is unknown whether the namespace still exists.
pub fn enter_again(host: &Host, known: Known, deadline: Instant) -> Result<Again, NotEntered> {
    let own = host.proc_root.join("self/ns/net");
    let wanted = match (known.inode, known.cookie) {
        (Some(wanted), _) => wanted,
        (None, Some(cookie)) => {
            cookie::find(host, cookie, &own, deadline).map_err(|_| NotEntered::NoCookie)?
        }
        (None, None) => return Err(NotEntered::Unnamed),
    };
    let way = match inode(&own) == Some(wanted) {
        true => Ok(NetnsRef::Own),
        false => way_into(host, wanted, deadline).map(NetnsRef::Other),
    };
    let way = match way {
        Ok(way) => way,
        Err(why) if why.kind() == ErrorKind::NotFound => match host.hidden() {
            None => return Ok(Again::Gone),
            Some(hidden) => return Err(NotEntered::Hidden(hidden)),
        },
        Err(why) => return Err(NotEntered::NotFound(why)),
    };
    let diag = host.sock_diag(&way).map_err(NotEntered::NotListed)?;
    Ok(match differ(known.cookie, diag.netns_cookie()) {
        true => Again::Gone,
        false => Again::There(diag),
    })
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
            Ok(Again::There(_)) => "there",
            Ok(Again::Gone) => "gone",
            Err(_) => "unknown",
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
