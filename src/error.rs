//! The one error type: what kind of fault, the story of where it happened, and the cause below it.
//!
//! `kind` is chosen where the fact is known, `context` is added where the intention is known, and `source` is never
//! thrown away. Decisions look at [`Error::kind`], never at text; the text goes to the host's log once, at the C border.
#![forbid(unsafe_code)]

use std::error::Error as StdError;
use std::fmt;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of fault it is. Each kind maps to exactly one code of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A defect of this library (a caught panic, a broken invariant).
    Internal,
    /// Memory could not be had.
    OutOfMemory,
    /// The caller passed something that cannot be meant.
    InvalidArgument,
    /// A disk handle that is closed, foreign or garbage.
    InvalidHandle,
    /// A connection handle that is closed, foreign or garbage.
    InvalidConnection,
    /// The library is not initialised.
    NotInitialised,
    /// The operation does not exist for this kind of disk, transport or build.
    NotSupported,
    /// The operation exists for local disks only.
    NotSupportedRemote,
    /// The file does not exist.
    NotFound,
    /// The target exists already.
    AlreadyExists,
    /// The operating system denied access.
    AccessDenied,
    /// The disk, file or connection is read-only.
    ReadOnly,
    /// Somebody else holds the lock.
    Locked,
    /// Another call on the same object excludes this one.
    Busy,
    /// Cancelled before it was done.
    Cancelled,
    /// No space left on the device.
    DiskFull,
    /// The file would grow past what its file system can hold.
    FileTooBig,
    /// The operating system reported an I/O fault.
    Io,
    /// A file ends before the data that its tables promise.
    EndOfFile,
    /// A file name that cannot be used.
    NameInvalid,
    /// A file name that is too long.
    NameTooLong,
    /// The name is that of something that is not a file.
    NotAFile,
    /// The process or host is out of file descriptors.
    TooManyFiles,
    /// Sectors outside the disk.
    OutOfRange,
    /// The caller's buffer is too small.
    BufferTooSmall,
    /// The disk database has no such key.
    KeyNotFound,
    /// The file is not a virtual disk, or a header that no reader should trust.
    NotADisk,
    /// A version of the format that is newer than this library.
    UnsupportedVersion,
    /// A feature of the format that this library does not read.
    UnsupportedFeature,
    /// Tables or data that contradict themselves; the bytes asked for cannot be had.
    Corrupt,
    /// Damage that repair can mend; writing is refused until then.
    NeedsRepair,
    /// Damage that repair cannot mend, or not without guessing.
    CantRepair,
    /// The parent of a link could not be opened.
    ParentMissing,
    /// The parent changed since the child was made.
    CidMismatch,
    /// Another disk, or another state of it, is where the one was that is open.
    DiskReplaced,
    /// Links of one chain differ in capacity.
    CapacityMismatch,
    /// The chain is impossible: a loop, or links that cannot stand on each other.
    InvalidChain,
    /// More links than the library follows.
    TooManyLinks,
    /// The operation needs the whole chain but the disk was opened as a single link.
    PartialChain,
    /// Two chains to be joined stand on no parent, both of them.
    RootLinks,
    /// The disk type cannot be a parent.
    ParentNotAllowed,
    /// The disk is encrypted.
    Encrypted,
    /// Text in an encoding that cannot be read.
    Encoding,
    /// A device that does not exist.
    NoDevice,
    /// A server could not be found.
    ServerNotFound,
    /// A server refused the connection.
    ConnectionRefused,
    /// A host takes no further connection for the time being.
    HostFull,
    /// The connection was lost.
    ConnectionLost,
    /// A host did not take the ticket that its server gave.
    TicketRefused,
    /// The credentials were refused.
    Unauthorised,
    /// A peer did not answer in time.
    TimedOut,
    /// A peer said something that its protocol does not allow, or refused what is needed.
    Protocol,
    /// The peer's certificate is not the one expected, or nobody vouches for it.
    CertificateRefused,
    /// The server has no such virtual machine.
    MachineNotFound,
    /// The server has no such object.
    ObjectNotFound,
    /// The session that was to be used is not one, or not one any more.
    SessionInvalid,
    /// Somebody disabled the operation on the server.
    OperationDisabled,
    /// The host is not reachable for its server, or is in maintenance.
    HostUnavailable,
    /// The server reported a fault that has no kind of its own.
    ServerFault,
}

/// A fault: its kind, the story of where it happened (innermost first), and the cause below it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    context: Vec<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A fault of this kind with one sentence: what was expected, what came, where.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, context: vec![message.into()], source: None }))
    }

    /// A fault the operating system reported; the kind follows from the error number.
    pub fn from_io(source: std::io::Error, message: impl Into<String>) -> Self {
        let kind = kind_of_io(&source);
        Self(Box::new(Inner { kind, context: vec![message.into()], source: Some(Box::new(source)) }))
    }

    /// What kind of fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The same fault seen as another kind, its story kept.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same fault with one more sentence of story around it.
    #[must_use]
    pub fn context(mut self, message: impl Into<String>) -> Self {
        self.0.context.push(message.into());
        self
    }
}

/// Adds story to the error of a result; the closure runs only on failure.
pub trait Context<T> {
    /// Wraps the error with one more sentence.
    fn context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.context(message()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<S: Into<String>>(self, message: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::from_io(e, message()))
    }
}

/// The whole story on one line, outermost intention first, ending in the cause.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, message) in self.0.context.iter().rev().enumerate() {
            if i > 0 {
                f.write_str(": ")?;
            }
            f.write_str(message)?;
        }
        let mut source = self.0.source.as_deref().map(|s| s as &dyn StdError);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// errno to kind: the cases a caller can act on, the rest is a plain I/O fault.
fn kind_of_io(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as Io;
    match error.raw_os_error() {
        Some(23 | 24) => return ErrorKind::TooManyFiles, // ENFILE, EMFILE
        Some(6 | 19) => return ErrorKind::NoDevice,      // ENXIO, ENODEV
        Some(36) => return ErrorKind::NameTooLong,       // ENAMETOOLONG
        Some(122) => return ErrorKind::DiskFull,         // EDQUOT
        _ => {}
    }
    match error.kind() {
        Io::NotFound | Io::NotADirectory => ErrorKind::NotFound,
        Io::PermissionDenied => ErrorKind::AccessDenied,
        Io::AlreadyExists => ErrorKind::AlreadyExists,
        Io::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        Io::StorageFull => ErrorKind::DiskFull,
        Io::FileTooLarge => ErrorKind::FileTooBig,
        Io::OutOfMemory => ErrorKind::OutOfMemory,
        Io::UnexpectedEof => ErrorKind::EndOfFile,
        Io::IsADirectory => ErrorKind::NotAFile,
        Io::Unsupported => ErrorKind::NotSupported,
        _ => ErrorKind::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_reads_from_intention_to_cause() {
        let e = Error::from_io(std::io::Error::from_raw_os_error(28), "write of 8 bytes at 0x10")
            .context("grain 3 of d.vmdk");
        assert_eq!(e.kind(), ErrorKind::DiskFull);
        assert!(e.to_string().starts_with("grain 3 of d.vmdk: write of 8 bytes at 0x10: No space left"));
    }
}
