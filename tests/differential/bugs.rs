//! Kernel bugs: cases in which a kernel deviates from its own rules. Each has a name, known
//! kernels, and the deviating answer; no other deviation is accepted.

use rustix::system::uname;

/// A full version.
pub type Version = (u32, u32, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray)]
pub enum Bug {
    /// With more than 10 sockets in a port's slot UDP searched the owners of the bind's
    /// address and of the wildcards: for a wildcard bind these are only the wildcards. Fixed
    /// by "udp: Fix wildcard bind conflict check when using hash2". Measured in 5.10.262,
    /// 6.16.12 and 6.18.15.
    UdpWildcardAboveTen,
    /// A bind to a specific v4-mapped address does not find a socket at `::ffff:0.0.0.0`, nor
    /// a later one at `0.0.0.0` that is stored with it: 6.1.168 searches by address for mapped
    /// ones too, but still matches wildcards as before (`inet_bind2_bucket_match_addr_any`).
    /// Measured in 6.1.192.
    MappedWildcardUnseen,
    /// The same search for the owners of an address and of the wildcards, if both happen to be
    /// in one slot of the second hash: the first socket of either that shares hides one of the
    /// other that would block. The hash differs for each namespace, so the chance is one in
    /// the number of slots: measured in 6.18.44 in 5 of 600 namespaces with 128 slots, and
    /// seen in 6.12.118.
    UdpSlotsMeet,
    /// A TCP socket that has stopped listening (shutdown(2)) gets no program: the kernel answers as
    /// for one that was bound without SO_REUSEPORT (`reuseport_attach_prog`), until it listens
    /// again. Of two builds of 6.18.44 one does so, and one does not.
    StoppedListenerTakesNoProgram,
}

impl Bug {
    pub fn is_in(self, (major, minor, patch): Version) -> bool {
        match self {
            Self::UdpWildcardAboveTen => match (major, minor) {
                (6, 1) => patch < 168,
                (6, 12) => patch < 80,
                (6, 18) => patch < 16,
                version => version < (6, 18),
            },
            Self::MappedWildcardUnseen => (major, minor) == (6, 1) && patch >= 168,
            Self::UdpSlotsMeet => true,
            Self::StoppedListenerTakesNoProgram => (major, minor, patch) >= (6, 18, 44),
        }
    }
}

/// Returns the running kernel's version. Debian's releases hide the patch level, and have it
/// in the text about the build.
pub fn version() -> Version {
    let names = uname();
    let (release, build) = (names.release().to_string_lossy(), names.version().to_string_lossy());
    let version = build.split_once("Debian ").map_or(&*release, |(_, version)| version);
    let mut numbers = version.split(|char: char| !char.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().unwrap().unwrap();
    (next(), next(), next())
}
