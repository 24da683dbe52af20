use std::net::Ipv4Addr;

use portwatch::conflict::{Clause, address::End, rule::Phase};

use super::*;

fn sock(uid: u32, reuseaddr: bool, reuseport: bool) -> Sock {
    Sock {
        end: End { address: Ipv4Addr::LOCALHOST.into(), v6only: false },
        device: 0,
        reuseaddr,
        reuseport,
        uid,
        phase: Phase::Open,
    }
}

fn asker(sock: Sock) -> Asker {
    Asker { sock, group: Group::None }
}

#[test]
fn releases_are_told_apart() {
    let old = Kernel::of((5, 10, 262));
    assert!(!old.rule.searches_by_address && old.first_owner_counts && !old.groups_keep_closed);
    let mid = Kernel::of((6, 1, 192));
    assert!(mid.rule.searches_by_address && mid.first_owner_counts && !mid.uid_outlives_file);
    let new = Kernel::of((6, 12, 118));
    assert!(!new.first_owner_counts && !new.buckets_recover);
    assert_eq!(Kernel::of((6, 18, 44)), Kernel::of((7, 3, 4)));
}

/// The first socket had SO_REUSEADDR when it took the port, and cleared it.
#[test]
fn older_kernels_remember_what_the_first_owner_had() {
    let (first, second) = (asker(sock(0, true, false)), asker(sock(0, true, false)));
    let now = Sock { reuseaddr: false, ..first.sock };
    for (version, answer) in
        [((6, 1, 0), Ok(())), ((6, 12, 0), Err((1, Clause::HolderLacksReuseAddr)))]
    {
        let kernel = Kernel::of(version);
        let bucket = bucket::Bucket::first(kernel, &first);
        let got = bucket::get_port(kernel, Some(&bucket), &second, [(1, &now)], Ask::Port);
        assert_eq!(got, answer, "{version:?}");
    }
}

#[test]
fn in_udp_one_that_shares_hides_those_after_it() {
    let (shares, refuses) = (sock(0, false, true), sock(1, false, true));
    let get_port = |slot: &[_]| udp::get_port(&asker(shares), slot, slot, Ask::Port);
    assert_eq!(get_port(&[(1, shares), (2, refuses)]), Ok(()));
    let refusal = Err((2, Clause::ReusePortOfOtherUser));
    assert_eq!(get_port(&[(2, refuses), (1, shares)]), refusal);
}

/// The combination of the product's rule equals the kernel's own formula.
#[test]
fn groups_and_relaxed_asks_are_as_the_kernel_has_them() {
    let kernel = Kernel::of((6, 18, 44));
    for (sk, other) in pairs() {
        let joins = other.phase == Phase::TimeWait || sk.sock.uid == other.uid;
        let shares = sk.sock.reuseport && other.reuseport && joins;
        let reuses = sk.sock.reuseaddr && other.reuseaddr;
        let apart = sk.sock.device != 0 && other.device != 0 && sk.sock.device != other.device;

        let shared = shares && sk.group != Group::Open;
        let reused = reuses && other.phase != Phase::Listens;
        for (ask, conflict) in [
            (Ask::Port, !reused && !shared),
            (Ask::Any, true),
            (Ask::AnyRelaxed, !reused || shared),
        ] {
            let clause =
                if ask == Ask::Port { rule::clause(&sk.sock, &other) } else { Clause::InUse };
            let expected = (conflict && !apart).then_some(clause);
            assert_eq!(refuses(kernel, &sk, &other, ask), expected, "{sk:?} {other:?} {ask:?}");
        }

        let expected = if reuses || apart {
            Meeting::Apart
        } else if shares && sk.group == Group::None {
            Meeting::Shared
        } else {
            Meeting::Refuses(rule::clause(&sk.sock, &other))
        };
        assert_eq!(meet(&sk, &other), expected, "{sk:?} {other:?}");
    }
}

/// All pairs of sockets at one address.
fn pairs() -> impl Iterator<Item = (Asker, Sock)> {
    let phases = [Phase::Open, Phase::Listens, Phase::TimeWait];
    let groups = [Group::None, Group::Open, Group::HasClosed];
    let socks = move || {
        (0u8..32).flat_map(move |bits| {
            let is = |bit: u8| bits >> bit & 1 == 1;
            let sock =
                Sock { device: u32::from(bits >> 3), ..sock(u32::from(is(0)), is(1), is(2)) };
            phases.map(|phase| Sock { phase, ..sock })
        })
    };
    socks().flat_map(move |other| {
        socks().flat_map(move |sock| groups.map(|group| (Asker { sock, group }, other)))
    })
}
