//! Conversations of a negotiation: so many bytes go out, so many come in, all of it until one moment. Exactly the bytes that
//! are asked for are received.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::time::Instant;

use crate::error::Error;
use crate::error::ErrorKind;
use crate::error::Result;
use crate::net::stream::Patience;
use crate::net::stream::Stream;

/// Fills all of `bytes` with what comes next.
pub fn fill(stream: &dyn Stream, bytes: &mut [u8], until: Instant) -> Result<()> {
    let whole = bytes.len();
    let mut rest = bytes;
    while !rest.is_empty() {
        in_time(until)?;
        let count = stream.recv(&mut [IoSliceMut::new(rest)], Patience::Until(until))?;
        rest = match count {
            None => return Err(late("the server says nothing more")),
            Some(0) => {
                let message =
                    format!("the server closed the connection, {} of {whole} bytes missing", rest.len());
                return Err(Error::new(ErrorKind::ConnectionLost, message));
            }
            Some(count) => rest.get_mut(count..).unwrap_or_default(),
        };
    }
    Ok(())
}

/// Sends all of it.
pub fn send(stream: &dyn Stream, bytes: &[u8], until: Instant) -> Result<()> {
    let patience = Patience::Until(until);
    let mut rest = bytes;
    while !rest.is_empty() {
        in_time(until)?;
        rest = match stream.send(&[IoSlice::new(rest)], patience)? {
            None => return Err(late("the server takes nothing more")),
            Some(count) => rest.get(count..).unwrap_or_default(),
        };
    }
    if stream.push(patience)? { Ok(()) } else { Err(late("the server takes nothing more")) }
}

/// A peer that sends a byte now and then gets no more time than a silent one.
fn in_time(until: Instant) -> Result<()> {
    if Instant::now() < until { Ok(()) } else { Err(late("the negotiation takes too long")) }
}

fn late(message: &str) -> Error {
    Error::new(ErrorKind::TimedOut, message)
}
