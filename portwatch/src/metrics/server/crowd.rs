//! Decides which connection is closed when there are too many: one that had enough time to send
//! a request and did not send it. Otherwise one of the client with the most connections, among
//! those that had no time yet.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// The most connections at a time.
pub const MOST: usize = 128;
/// A client that has not sent a whole request within this time is assumed to send none.
const TIME_TO_ASK: Duration = Duration::from_secs(1);
/// On a busy machine a request may arrive this long after its connection.
const TIME_TO_BEGIN: Duration = Duration::from_millis(10);

/// The client of a connection. Connections of one client are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address, or the network of addresses that one machine can assign to itself.
    Network(IpAddr),
    /// A user of this machine.
    User(u32),
    /// Unknown.
    Unknown,
}

impl Peer {
    /// Returns the client at this address.
    pub fn at(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            // All of 127/8 is this machine.
            IpAddr::V4(address) if address.is_loopback() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(Ipv6Addr::LOCALHOST) => IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V6(address) => {
                let network = address.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
        })
    }
}

/// The properties of a connection that matter here.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The client.
    pub peer: Peer,
    /// Its age.
    pub age: Duration,
    /// Whether a whole request has arrived.
    pub has_asked: bool,
}

/// Returns which of `places`, oldest first, is closed for another connection of `peer`.
pub fn who_goes(places: &[Place], peer: Peer) -> Option<usize> {
    let of = |peer: Peer| places.iter().filter(|place| place.peer == peer).count();
    // The new connection counts too.
    let crowd = |place: &Place| of(place.peer) + usize::from(place.peer == peer);
    let late = |place: &Place| !place.has_asked && place.age >= TIME_TO_ASK;
    let all = || places.iter().enumerate();
    // Of equal connections the oldest is chosen: `max_by_key` returns the last.
    let latest = all().rev().filter(|(_, place)| late(place)).max_by_key(|(_, place)| crowd(place));
    // Older connections keep their time. The newest one whose request could have arrived by now
    // is closed.
    let begun = |place: &Place| place.age >= TIME_TO_BEGIN;
    let newest = || all().max_by_key(|(_, place)| (crowd(place), begun(place), !place.has_asked));
    latest.or_else(newest).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Peer = Peer::User(1);
    const B: Peer = Peer::User(2);
    const EARLY: Duration = Duration::from_millis(1);

    fn silent(peer: Peer, age: Duration) -> Place {
        Place { peer, age, has_asked: false }
    }

    #[test]
    fn whoever_had_time_and_did_not_ask_goes_first() {
        let asked = Place { peer: A, age: TIME_TO_ASK * 3, has_asked: true };
        let late = silent(B, TIME_TO_ASK);
        let places = [asked, silent(A, TIME_TO_ASK * 2), late, silent(A, EARLY), silent(A, EARLY)];
        assert_eq!(who_goes(&places, B), Some(1));
        assert_eq!(who_goes(&[asked, late, silent(A, EARLY)], A), Some(1));
    }

    #[test]
    fn a_crowd_makes_room_for_others_and_others_not_for_a_crowd() {
        let places = [silent(B, EARLY), silent(A, EARLY), silent(A, EARLY)];
        assert_eq!(who_goes(&places, B), Some(2));
        assert_eq!(who_goes(&places, A), Some(2), "its newest, so that others have their time");
        let asked = Place { has_asked: true, ..silent(A, EARLY) };
        assert_eq!(who_goes(&[silent(B, EARLY), silent(A, EARLY), asked], A), Some(1));
        assert_eq!(who_goes(&[], A), None);
    }

    #[test]
    fn the_newest_has_a_moment_to_ask() {
        let places = [silent(A, TIME_TO_BEGIN * 3), silent(A, TIME_TO_BEGIN), silent(A, EARLY)];
        assert_eq!(who_goes(&places, A), Some(1));
        assert_eq!(who_goes(&places[2..], A), Some(0), "there is nobody else");
    }

    #[test]
    fn a_machine_s_own_addresses_are_one() {
        let at = |text: &str| Peer::at(text.parse().unwrap());
        assert_eq!(at("127.0.0.1"), at("127.9.8.7"));
        assert_eq!(at("127.0.0.1"), at("::1"));
        assert_eq!(at("::ffff:127.0.0.1"), at("127.0.0.1"));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
