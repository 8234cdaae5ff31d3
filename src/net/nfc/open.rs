//! Frames that open and close sessions and files.

use crate::error::Result;
use crate::net::nfc::aio;
use crate::net::nfc::aio::Kind;
use crate::net::nfc::broken;
use crate::net::nfc::fields::Fields;
use crate::net::nfc::fields::put32;
use crate::net::nfc::fields::put64;

/// Longest path of a file.
pub const MOST_PATH: usize = 4096;

/// Largest buffer that hosts were seen to accept; 16 MiB were refused.
pub const MOST_BUFFER: u32 = 2 << 20;

/// The size of a buffer where none is asked for.
pub const USUAL_BUFFER: u32 = 64 << 10;

/// How many buffers there are where none are asked for.
pub const USUAL_BUFFERS: u32 = 4;

/// The type of a file that is a disk.
pub const DISK: u32 = 2;

/// The flags of a file that is only read. Only the difference between the two is understood.
pub const READ_ONLY: u32 = 0x1e;

/// The flags of a file that is written too.
pub const READ_WRITE: u32 = 0x1a;

/// The bit of the flags that forbids writing.
pub const READ_ONLY_BIT: u32 = 0x04;

/// The size and number of buffers. A buffer's size is the most data that one frame may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSession {
    /// Bytes of a buffer; 0: what the server is used to.
    pub buffer: u32,
    /// Number of buffers; 0: what the server is used to.
    pub count: u32,
}

impl OpenSession {
    /// Appends the request.
    pub fn encode(&self, op: u32, into: &mut Vec<u8>) {
        let mut payload = [0; 16];
        put32(&mut payload, 4, self.buffer);
        put32(&mut payload, 8, self.count);
        aio::frame(into, Kind::OpenSession, op, &payload, &[]);
    }

    /// Reads the request.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("OPEN_SESSION", payload, 16)?;
        Ok(Self { buffer: fields.u32(4)?, count: fields.u32(8)? })
    }
}

/// The status that an answer begins with: of a session, a file, a read or write, a map of blocks. 0 is good.
pub fn status(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |status| u64::from_le_bytes(*status))
}

/// Appends an answer that says nothing but its status.
pub fn answer(kind: Kind, op: u32, size: usize, status: u64, into: &mut Vec<u8>) {
    let mut payload = vec![0; size];
    for (to, from) in payload.iter_mut().zip(status.to_le_bytes()) {
        *to = from;
    }
    aio::frame(into, kind, op, &payload, &[]);
}

/// The sizes of the server's socket buffers; a request has zeros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Bytes for sending.
    pub send: u32,
    /// Bytes for receiving.
    pub receive: u32,
    /// Not known.
    pub flag: u32,
}

impl SocketOptions {
    /// Appends the request or the answer.
    pub fn encode(&self, op: u32, into: &mut Vec<u8>) {
        let mut payload = [0; 12];
        put32(&mut payload, 0, self.send);
        put32(&mut payload, 4, self.receive);
        put32(&mut payload, 8, self.flag);
        aio::frame(into, Kind::SocketOptions, op, &payload, &[]);
    }

    /// Reads the request or the answer.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("SET_SOCK_OPTS", payload, 12)?;
        Ok(Self { send: fields.u32(0)?, receive: fields.u32(4)?, flag: fields.u32(8)? })
    }
}

/// Appends the wish for a share of the host's resources, or its answer.
pub fn resource_pool(pool: u32, op: u32, into: &mut Vec<u8>) {
    aio::frame(into, Kind::ResourcePool, op, &pool.to_le_bytes(), &[]);
}

/// The request for a file; its path follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// Bytes of the path.
    pub path: u32,
    /// What kind of file; [`DISK`] is the only one known.
    pub file_type: u32,
    /// [`READ_ONLY`] or [`READ_WRITE`].
    pub flags: u32,
}

impl OpenFile {
    /// Appends the request for a disk.
    pub fn encode(path: &str, write: bool, op: u32, into: &mut Vec<u8>) -> Result<()> {
        let length = u32::try_from(path.len()).ok().filter(|n| *n > 0 && path.len() <= MOST_PATH);
        let Some(length) = length.filter(|_| !path.contains('\0')) else {
            return Err(broken(format!(
                "a path of {} bytes cannot be asked for, at most {MOST_PATH}",
                path.len()
            )));
        };
        let mut payload = [0; 60];
        put32(&mut payload, 0, length);
        put32(&mut payload, 16, DISK);
        put32(&mut payload, 20, if write { READ_WRITE } else { READ_ONLY });
        aio::frame(into, Kind::OpenFile, op, &payload, path.as_bytes());
        Ok(())
    }

    /// Reads the request. A path that is too long is refused here, before anybody waits for it.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("OPEN_FILE", payload, 60)?;
        let request = Self { path: fields.u32(0)?, file_type: fields.u32(16)?, flags: fields.u32(20)? };
        if request.path == 0 || request.path as usize > MOST_PATH {
            return Err(broken(format!(
                "OPEN_FILE with a path of {} bytes, at most {MOST_PATH}",
                request.path
            )));
        }
        Ok(request)
    }

    /// The file is to be written too.
    pub fn writes(&self) -> bool {
        self.flags & READ_ONLY_BIT == 0
    }
}

/// The answer: a file that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// 0 is good.
    pub status: u64,
    /// Names the file from here on.
    pub handle: u64,
    /// As asked for.
    pub file_type: u32,
    /// As asked for.
    pub flags: u32,
    /// Bytes of the disk.
    pub capacity: u64,
    /// Bytes of a sector; 0 means 512.
    pub sector_size: u32,
    /// Cylinders, heads and sectors.
    pub geometry: (u32, u32, u32),
}

impl Opened {
    /// Appends the answer.
    pub fn encode(&self, op: u32, into: &mut Vec<u8>) {
        let mut payload = [0; 60];
        put64(&mut payload, 0, self.status);
        put64(&mut payload, 8, self.handle);
        put32(&mut payload, 16, self.file_type);
        put32(&mut payload, 20, self.flags);
        put64(&mut payload, 28, self.capacity); // not aligned, as it is
        put32(&mut payload, 36, self.sector_size);
        put32(&mut payload, 40, self.geometry.0);
        put32(&mut payload, 44, self.geometry.1);
        put32(&mut payload, 48, self.geometry.2);
        aio::frame(into, Kind::OpenFile, op, &payload, &[]);
    }

    /// Reads the answer; of one with a bad status only that is meant.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let fields = Fields::exactly("the answer to OPEN_FILE", payload, 60)?;
        Ok(Self {
            status: fields.u64(0)?,
            handle: fields.u64(8)?,
            file_type: fields.u32(16)?,
            flags: fields.u32(20)?,
            capacity: fields.u64(28)?,
            sector_size: fields.u32(36)?,
            geometry: (fields.u32(40)?, fields.u32(44)?, fields.u32(48)?),
        })
    }
}

/// Appends the request to close a file, or its answer.
pub fn close_file(handle: u64, op: u32, into: &mut Vec<u8>) {
    aio::frame(into, Kind::CloseFile, op, &handle.to_le_bytes(), &[]);
}

/// The file to close; some clients send zeros after it.
pub fn file_to_close(payload: &[u8]) -> Result<u64> {
    match payload.first_chunk() {
        Some(handle) => Ok(u64::from_le_bytes(*handle)),
        None => Err(broken("CLOSE_FILE without a file")),
    }
}

/// Appends the request to close the session, or its answer.
pub fn close_session(op: u32, into: &mut Vec<u8>) {
    aio::frame(into, Kind::CloseSession, op, &[0; 4], &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_read_as_they_were_made() {
        let mut bytes = Vec::new();
        OpenSession { buffer: 1 << 20, count: 8 }.encode(0, &mut bytes);
        assert_eq!(OpenSession::parse(&bytes[16..]).unwrap(), OpenSession { buffer: 1 << 20, count: 8 });
        bytes.clear();
        let options = SocketOptions { send: 1, receive: 2, flag: 3 };
        options.encode(1, &mut bytes);
        assert_eq!(SocketOptions::parse(&bytes[16..]).unwrap(), options);
        bytes.clear();
        let opened = Opened {
            status: 0,
            handle: 7 << 40,
            file_type: DISK,
            flags: READ_WRITE,
            capacity: 5 << 40,
            sector_size: 4096,
            geometry: (3, 2, 1),
        };
        opened.encode(2, &mut bytes);
        assert_eq!(Opened::parse(&bytes[16..]).unwrap(), opened);
        bytes.clear();
        answer(Kind::CloseFile, 3, 8, 0x0b, &mut bytes);
        assert_eq!(
            (status(&bytes[16..]), status(&[1, 2]), file_to_close(&bytes[16..]).unwrap()),
            (11, 0, 11)
        );
    }

    #[test]
    fn paths_are_bounded_both_ways() {
        let mut bytes = Vec::new();
        for path in ["", "a\0b", &"x".repeat(MOST_PATH + 1)] {
            assert!(OpenFile::encode(path, false, 0, &mut bytes).is_err());
        }
        OpenFile::encode("[ds] ä.vmdk", true, 0, &mut bytes).unwrap();
        let request = OpenFile::parse(&bytes[16..76]).unwrap();
        assert!(request.writes() && request.path == 12 && request.file_type == DISK);
        for length in [0, MOST_PATH as u32 + 1, u32::MAX] {
            bytes[16..20].copy_from_slice(&length.to_le_bytes());
            assert!(OpenFile::parse(&bytes[16..76]).is_err());
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        assert!(OpenSession::parse(&[0; 15]).is_err() && SocketOptions::parse(&[0; 13]).is_err());
        assert!(OpenFile::parse(&[0; 59]).is_err() && Opened::parse(&[0; 61]).is_err());
        assert!(file_to_close(&[0; 7]).is_err());
    }
}
