//! What differs between kernels, as one value.

/// How a kernel behaves where kernels differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Whether TCP compares a specific address with its own owners and the
    /// wildcards' only (`bhash2`, 6.1), and not with all owners of the port by
    /// `inet_rcv_saddr_equal`.
    pub searches_by_address: bool,
    /// Whether the first owner of a port may open its fast path
    /// (`inet_csk_update_fastreuse`). From 6.8 on the second bucket is linked
    /// before the owners are counted, so that there is never a first.
    pub first_owner_counts: bool,
    /// Whether a SO_REUSEPORT group can keep those that have stopped listening
    /// (`num_closed_socks`, 5.14). 5.10.262 has the setting for it,
    /// net.ipv4.tcp_migrate_req, without the effect.
    pub groups_keep_closed: bool,
    /// Whether a port's memory is reset when only the sockets of connect(2) are
    /// left on it (`inet_bind_bucket_destroy`, 6.18).
    pub buckets_recover: bool,
    /// Whether a socket without a file keeps its user: `sk_uid` (6.16), where
    /// older kernels ask the file and take root if there is none (`sock_i_uid`).
    pub uid_outlives_file: bool,
}

impl Kernel {
    /// The newest behaviour that is known.
    pub const NEWEST: Self = Self {
        searches_by_address: true,
        first_owner_counts: false,
        groups_keep_closed: true,
        buckets_recover: true,
        uid_outlives_file: true,
    };

    /// The kernel of a release as `uname -r` gives it. The newest behaviour is
    /// taken for what cannot be read.
    pub fn of(release: &str) -> Self {
        let Some(version) = version(release) else { return Self::NEWEST };
        Self {
            searches_by_address: version >= (6, 1),
            first_owner_counts: version < (6, 8),
            groups_keep_closed: version >= (5, 14),
            buckets_recover: version >= (6, 18),
            uid_outlives_file: version >= (6, 16),
        }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self::NEWEST
    }
}

/// Major and minor. The patch level is not asked for: distributions hide it
/// (`6.1.0-56-cloud-amd64` is 6.1.192).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    let mut next = || parts.next()?.ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_apart() {
        let old = Kernel::of("5.10.0-46-cloud-amd64");
        assert!(!old.searches_by_address && old.first_owner_counts && !old.groups_keep_closed);
        let mid = Kernel::of("6.1.192");
        assert!(mid.searches_by_address && mid.first_owner_counts && !mid.uid_outlives_file);
        let new = Kernel::of("6.12.118+deb13-cloud-amd64");
        assert!(!new.first_owner_counts && !new.buckets_recover);
        assert_eq!(Kernel::of("6.18.44-generic"), Kernel::NEWEST);
        assert_eq!(Kernel::of("7.3.4"), Kernel::NEWEST);
        assert_eq!(Kernel::of("unknown"), Kernel::NEWEST);
    }
}
