//! One JSON object per line.

use std::io::{self, Write};

use crate::{event::Record, sinks::Sink};

/// Writes JSON Lines.
pub struct Json<W> {
    out: W,
    line: Vec<u8>,
    /// Whether the last line was only partly written, for example because the disk is full.
    torn: bool,
}

impl<W: Write + Send> Json<W> {
    /// Creates a sink that writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, line: Vec::with_capacity(4096), torn: false }
    }
}

impl<W: Write + Send> Sink for Json<W> {
    /// Writes the line with one write to a file, and in pieces of a page to a pipe. A torn line does not affect others: the next one begins on a new line.
    fn write(&mut self, record: &Record) -> io::Result<()> {
        self.line.clear();
        if self.torn {
            self.line.push(b'\n');
        }
        serde_json::to_writer(&mut self.line, record)?;
        self.line.push(b'\n');
        let mut rest = &*self.line;
        while !rest.is_empty() {
            match self.out.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.torn = !rest.is_empty();
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Loss;

    /// A disk of limited size, which grows when it was full.
    struct Disk {
        written: Vec<u8>,
        room: usize,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room - self.written.len());
            if taken == 0 {
                self.room += 1000;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.written.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn half_a_line_spoils_no_other() {
        // Space for one and a half; for one; and for one and its line feed.
        for room in [150, 101, 100] {
            let mut disk = Disk { written: Vec::new(), room };
            let mut sink = Json::new(&mut disk);
            let results: Vec<_> = (1..=4)
                .map(|number| sink.write(&Record::Loss(Loss::now("test", number))).is_ok())
                .collect();
            let written = String::from_utf8(disk.written).unwrap();
            let whole: Vec<_> = written
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .map(|record| record["count"].as_u64().unwrap())
                .collect();
            let said: Vec<u64> = (1..=4).filter(|number| results[*number as usize - 1]).collect();
            assert_eq!(whole, said, "{written}");
            assert!(results.contains(&false), "{written}");
        }
    }
}
