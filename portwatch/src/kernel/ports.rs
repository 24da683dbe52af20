//! The ports whose failed binds the kernel side ignores. It counts these before any limit, so
//! they neither fill the ring nor use a share of it, and are not lost.

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
};
use portwatch_common::{PORT_WORDS, port_bit};

use super::{KernelError, take_map};

/// The kernel side's set of ignored ports, and what was last written there.
pub struct IgnoredPorts {
    map: Array<MapData, u64>,
    written: Vec<u64>,
}

impl IgnoredPorts {
    /// Takes the map out of the loaded object. No port is ignored yet.
    ///
    /// # Errors
    /// The object does not contain it.
    pub fn open(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let map = take_map(ebpf, "IGNORED_PORTS")?;
        Ok(Self { map, written: vec![0; PORT_WORDS as usize] })
    }

    /// Ignores from now on all ports except those for which `wants` returns true.
    ///
    /// # Errors
    /// The map cannot be written. Some of the ports are unchanged.
    pub fn set(&mut self, wants: impl Fn(u16) -> bool) -> Result<(), MapError> {
        for (index, word) in (0..).zip(ignored(wants)) {
            let Some(written) = self.written.get_mut(index as usize) else { break };
            if *written != word {
                self.map.set(index, word, 0)?;
                *written = word;
            }
        }
        Ok(())
    }
}

/// Returns the words of the set.
fn ignored(wants: impl Fn(u16) -> bool) -> Vec<u64> {
    let mut words: Vec<u64> = vec![0; PORT_WORDS as usize];
    for port in (0..=u16::MAX).filter(|&port| !wants(port)) {
        let (index, bit) = port_bit(port);
        if let Some(word) = words.get_mut(index as usize) {
            *word |= bit;
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_a_bit_of_its_own() {
        let words = ignored(|port| ![0, 63, 64, 8080, u16::MAX].contains(&port));
        let set: u32 = words.iter().map(|word| word.count_ones()).sum();
        assert_eq!((set, words[0], words[1]), (5, 1 | 1 << 63, 1));
        assert_eq!((words[8080 / 64], words[1023]), (1 << (8080 % 64), 1 << 63));
        assert!(ignored(|_| true).iter().all(|&word| word == 0));
    }
}
