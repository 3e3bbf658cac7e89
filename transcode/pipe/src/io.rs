//! The same over a blocking descriptor.

use std::io::{ErrorKind, Read, Write};

use bytes::{Buf, Bytes};

use crate::decode::Header;
use crate::{HEADER_BYTES, Message, PipeError};

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Pipe(#[from] PipeError),
    #[error("the pipe: {0}")]
    Io(#[from] std::io::Error),
}

/// The next message; `None` if the other end closed the pipe between two.
///
/// # Errors
/// [`ReadError`]; also if the pipe ends within a message.
pub fn read_message<M: Message>(reader: &mut impl Read) -> Result<Option<M>, ReadError> {
    let mut header = [0; HEADER_BYTES];
    match reader.read_exact(&mut header[..1]) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    reader.read_exact(&mut header[1..])?;
    let header = Header::parse::<M>(&header)?;
    let mut payload = vec![0; header.payload_bytes];
    reader.read_exact(&mut payload)?;
    Ok(Some(M::parse(&header, Bytes::from(payload))?))
}

/// Writes `message` whole; does not flush.
///
/// # Errors
/// Those of `writer`; `InvalidInput` for a message that the other end would refuse.
pub fn write_message<M: Message>(writer: &mut impl Write, message: &M) -> std::io::Result<()> {
    let bytes = message.encode().map_err(|error| std::io::Error::new(ErrorKind::InvalidInput, error))?;
    writer.write_all(bytes.first_ref().chunk())?;
    writer.write_all(bytes.last_ref().chunk())
}
