//! A line on stderr's terminal that is redrawn. It does not wait for a terminal that accepts
//! nothing (Ctrl-S, a dead connection): what cannot be written at once is not shown.

use std::{io, time::Duration};

use indicatif::{ProgressDrawTarget, TermLike};
use rustix::termios::tcgetwinsize;

use super::{Stream, put, talked_to};
use crate::shared::Shared;

/// The number of redraws per second.
const TIMES: u8 = 20;
/// The width of a terminal that does not report its width, in columns.
const COLUMNS: u16 = 80;

/// Returns the draw target that shows a wait on stderr.
#[expect(clippy::disallowed_methods, reason = "this is the layer")]
pub fn progress() -> ProgressDrawTarget {
    ProgressDrawTarget::term_like_with_hz(Box::new(Drawn::default()), TIMES)
}

/// The text that was drawn and is not written yet.
#[derive(Debug, Default)]
struct Drawn(Shared<Vec<String>>);

impl Drawn {
    fn add(&self, piece: impl Into<String>) -> io::Result<()> {
        self.0.push(piece.into());
        Ok(())
    }

    fn moved(&self, by: usize, direction: char) -> io::Result<()> {
        if by == 0 { Ok(()) } else { self.add(format!("\x1b[{by}{direction}")) }
    }

    fn taken(&self) -> String {
        self.0.replace(Vec::new()).concat()
    }
}

impl TermLike for Drawn {
    fn width(&self) -> u16 {
        let size = tcgetwinsize(Stream::Stderr).map_or(0, |size| size.ws_col);
        if size == 0 { COLUMNS } else { size }
    }

    fn move_cursor_up(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'A')
    }

    fn move_cursor_down(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'B')
    }

    fn move_cursor_right(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'C')
    }

    fn move_cursor_left(&self, by: usize) -> io::Result<()> {
        self.moved(by, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(format!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        put(talked_to(), self.taken().as_bytes(), Duration::ZERO);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_before_all_of_it_is_there() {
        let drawn = Drawn::default();
        drawn.clear_line().unwrap();
        drawn.move_cursor_up(0).unwrap();
        drawn.move_cursor_up(2).unwrap();
        drawn.write_line("waiting").unwrap();
        drawn.write_str("left").unwrap();
        assert_eq!(drawn.taken(), "\r\x1b[2K\x1b[2Awaiting\nleft");
        assert_eq!(drawn.taken(), "");
        assert!(drawn.width() > 0);
    }
}
