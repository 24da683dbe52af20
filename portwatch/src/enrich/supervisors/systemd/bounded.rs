//! A stream that limits the length of messages. A user's manager is under the user's control,
//! and the library allocates the length that a message claims before the message has arrived
//! (up to 128 MiB, by the D-Bus specification).

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};
use zbus::{
    Message,
    connection::socket::{ReadHalf, Socket, Split, WriteHalf},
    export::async_trait::async_trait,
};

/// The longest message that is accepted, in bytes. The list of a host's `.socket` units has
/// some ten thousand bytes.
const LONGEST_MESSAGE: u64 = 1 << 20;
/// The most bytes that are read on one connection.
const MOST_BYTES: usize = 4 << 20;
/// The part of the header that every message has, in bytes.
const PRIMARY_HEADER: usize = 16;

/// The stream. It does not pass descriptors either.
pub struct Bounded(pub UnixStream);

impl Socket for Bounded {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        let (read, write) = self.0.into_split();
        Split::new(Reader(Bytes { stream: read, left: MOST_BYTES }), Writer(write))
    }
}

/// Checks the length of each message before it is read.
#[derive(Debug)]
pub struct Reader(Bytes);

#[async_trait]
impl ReadHalf for Reader {
    async fn receive_message(
        &mut self,
        sequence: u64,
        already: &mut Vec<u8>,
        descriptors: &mut Vec<OwnedFd>,
    ) -> zbus::Result<Message> {
        while already.len() < PRIMARY_HEADER {
            let mut rest = [0; PRIMARY_HEADER];
            let rest = rest.get_mut(already.len()..).unwrap_or_default();
            let (read, _) = self.0.recvmsg(rest).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            already.extend_from_slice(rest.get(..read).unwrap_or_default());
        }
        if claimed_length(already).is_none_or(|length| length > LONGEST_MESSAGE) {
            return Err(zbus::Error::ExcessData);
        }
        self.0.receive_message(sequence, already, descriptors).await
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.0.recvmsg(buffer).await
    }
}

/// Returns the length that a message's primary header claims: of the body, and of the header
/// fields, without padding (D-Bus specification, "Message Format").
fn claimed_length(header: &[u8]) -> Option<u64> {
    let number = |place: usize| {
        let bytes = header.get(place..)?.first_chunk::<4>()?;
        Some(match header.first()? {
            b'B' => u32::from_be_bytes(*bytes),
            _ => u32::from_le_bytes(*bytes),
        })
    };
    Some(u64::from(number(4)?) + u64::from(number(12)?))
}

/// The bytes of the stream, up to the limit.
#[derive(Debug)]
pub struct Bytes {
    stream: OwnedReadHalf,
    left: usize,
}

#[async_trait]
impl ReadHalf for Bytes {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let read = self.stream.read(buffer).await?;
        self.left = self
            .left
            .checked_sub(read)
            .ok_or_else(|| io::Error::other("more was sent than an answer can have"))?;
        Ok((read, Vec::new()))
    }
}

/// What is sent.
#[derive(Debug)]
pub struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.0.write(buffer).await
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_length_is_read_in_the_order_that_the_header_names() {
        let little = b"l\x01\0\x01\x05\0\0\0\x01\0\0\0\x07\0\0\0";
        let big = b"B\x01\0\x01\0\0\0\x05\0\0\0\x01\0\0\0\x07";
        assert_eq!(claimed_length(little), Some(12));
        assert_eq!(claimed_length(big), Some(12));
        assert_eq!(claimed_length(&little[..15]), None);
    }

    proptest! {
        #[test]
        fn any_header_has_a_length_or_none(header: Vec<u8>) {
            prop_assert_eq!(claimed_length(&header).is_some(), header.len() >= PRIMARY_HEADER);
        }
    }
}
