//! Differences between kernels, as one value.

/// How a kernel behaves where kernels differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Whether TCP compares a specific address only with its own owners and those of the
    /// wildcard addresses (`bhash2`, 6.1), and not with all owners of the port by
    /// `inet_rcv_saddr_equal`.
    pub searches_by_address: bool,
}

impl Kernel {
    /// The newest known behaviour.
    pub const NEWEST: Self = Self { searches_by_address: true };

    /// Returns the behaviour of a release, as `uname -r` prints it, or the newest behaviour for
    /// a release that cannot be parsed.
    pub fn of(release: &str) -> Self {
        version(release)
            .map_or(Self::NEWEST, |version| Self { searches_by_address: version >= (6, 1) })
    }
}

/// Returns the major and the minor version. The patch level is not used, because distributions
/// hide it (`6.1.0-56-cloud-amd64` is 6.1.192).
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    let mut next = || parts.next()?.ok();
    Some((next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_apart() {
        assert!(!Kernel::of("5.10.0-46-cloud-amd64").searches_by_address);
        assert!(!Kernel::of("6.0.19").searches_by_address);
        for release in ["6.1.192", "6.12.118+deb13-cloud-amd64", "7.3.4", "unknown"] {
            assert_eq!(Kernel::of(release), Kernel::NEWEST, "{release}");
        }
    }
}
