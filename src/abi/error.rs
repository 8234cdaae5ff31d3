//! From the kind of a fault to the code that C gets, and from a code to words.

use crate::abi::codes::CODES;
use crate::abi::types::VixError;
use crate::error::ErrorKind;

/// Success.
pub const VIX_OK: VixError = code("VIX_OK");
/// Unspecified failure.
pub const VIX_E_FAIL: VixError = code("VIX_E_FAIL");
/// An asynchronous request was accepted.
pub const VIX_ASYNC: VixError = code("VIX_ASYNC");

/// The number of a name in the table; a name that is not there does not compile in a constant.
const fn code(name: &str) -> VixError {
    let mut i = 0;
    while i < CODES.len() {
        if same(CODES[i].1.as_bytes(), name.as_bytes()) {
            return CODES[i].0 as VixError;
        }
        i += 1;
    }
    panic!("no such name in the table of codes");
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// Looks a name up while compiling.
macro_rules! number {
    ($name:literal) => {
        const { code($name) }
    };
}

/// The code of a kind. Plain codes only: callers compare whole 64-bit values.
pub fn code_of(kind: ErrorKind) -> VixError {
    match kind {
        ErrorKind::Internal => number!("VIX_E_FAIL"),
        ErrorKind::OutOfMemory => number!("VIX_E_OUT_OF_MEMORY"),
        ErrorKind::InvalidArgument => number!("VIX_E_INVALID_ARG"),
        ErrorKind::InvalidHandle => number!("VIX_E_INVALID_HANDLE"),
        ErrorKind::InvalidConnection => number!("VIX_E_DISK_INVALID_CONNECTION"),
        ErrorKind::NotInitialised => number!("VIX_E_DISK_NOINIT"),
        ErrorKind::NotSupported => number!("VIX_E_NOT_SUPPORTED"),
        ErrorKind::NotSupportedRemote => number!("VIX_E_NOT_SUPPORTED_ON_REMOTE_OBJECT"),
        ErrorKind::NotFound => number!("VIX_E_FILE_NOT_FOUND"),
        ErrorKind::AlreadyExists => number!("VIX_E_FILE_ALREADY_EXISTS"),
        ErrorKind::AccessDenied => number!("VIX_E_FILE_ACCESS_ERROR"),
        ErrorKind::ReadOnly => number!("VIX_E_FILE_READ_ONLY"),
        ErrorKind::Locked => number!("VIX_E_FILE_ALREADY_LOCKED"),
        ErrorKind::Busy => number!("VIX_E_OBJECT_IS_BUSY"),
        ErrorKind::Cancelled => number!("VIX_E_CANCELLED"),
        ErrorKind::DiskFull => number!("VIX_E_DISK_FULL"),
        ErrorKind::FileTooBig => number!("VIX_E_FILE_TOO_BIG"),
        ErrorKind::Io => number!("VIX_E_FILE_ERROR"),
        ErrorKind::EndOfFile => number!("VIX_E_HOST_FILE_ERROR_EOF"),
        ErrorKind::NameInvalid => number!("VIX_E_FILE_NAME_INVALID"),
        ErrorKind::NameTooLong => number!("VIX_E_FILE_NAME_TOO_LONG"),
        ErrorKind::NotAFile => number!("VIX_E_NOT_A_FILE"),
        ErrorKind::TooManyFiles => number!("VIX_E_DISK_TOOMANYOPENFILES"),
        ErrorKind::OutOfRange => number!("VIX_E_DISK_OUTOFRANGE"),
        ErrorKind::BufferTooSmall => number!("VIX_E_BUFFER_TOOSMALL"),
        ErrorKind::KeyNotFound => number!("VIX_E_DISK_KEY_NOTFOUND"),
        ErrorKind::NotADisk => number!("VIX_E_DISK_INVALIDDISK"),
        ErrorKind::UnsupportedVersion => number!("VIX_E_DISK_UNSUPPORTEDDISKVERSION"),
        ErrorKind::UnsupportedFeature => number!("VIX_E_DISK_NOTSUPPORTED"),
        ErrorKind::Corrupt => number!("VIX_E_DISK_CANTREPAIR"),
        ErrorKind::NeedsRepair => number!("VIX_E_DISK_NEEDSREPAIR"),
        ErrorKind::CantRepair => number!("VIX_E_DISK_CANTREPAIR"),
        ErrorKind::ParentMissing => number!("VIX_E_DISK_OPENPARENT"),
        ErrorKind::CidMismatch => number!("VIX_E_DISK_CID_MISMATCH"),
        // The text of the code speaks of parents; what it is about is a content id that is another one.
        ErrorKind::DiskReplaced => number!("VIX_E_DISK_CID_MISMATCH"),
        ErrorKind::CapacityMismatch => number!("VIX_E_DISK_CAPACITY_MISMATCH"),
        ErrorKind::InvalidChain => number!("VIX_E_DISK_INVALIDCHAIN"),
        ErrorKind::TooManyLinks => number!("VIX_E_DISK_TOOMANYREDO"),
        ErrorKind::PartialChain => number!("VIX_E_DISK_PARTIALCHAIN"),
        ErrorKind::RootLinks => number!("VIX_E_DISK_ATTACH_ROOTLINK"),
        ErrorKind::ParentNotAllowed => number!("VIX_E_DISK_PARENT_NOTALLOWED"),
        ErrorKind::Encrypted => number!("VIX_E_DISK_NEEDKEY"),
        ErrorKind::Encoding => number!("VIX_E_DISK_ENCODING"),
        ErrorKind::NoDevice => number!("VIX_E_DISK_NODEVICE"),
        ErrorKind::ServerNotFound => number!("VIX_E_HOST_SERVER_NOT_FOUND"),
        ErrorKind::ConnectionRefused => number!("VIX_E_HOST_NETWORK_CONN_REFUSED"),
        ErrorKind::HostFull => number!("VIX_E_HOST_NETWORK_CONN_REFUSED"),
        ErrorKind::ConnectionLost => number!("VIX_E_HOST_TCP_CONN_LOST"),
        ErrorKind::Unauthorised => number!("VIX_E_HOST_USER_PERMISSIONS"),
        ErrorKind::TimedOut => number!("VIX_E_HOST_TCP_SOCKET_ERROR"),
        ErrorKind::TicketRefused => number!("VIX_E_HOST_NETBLKDEV_HANDSHAKE"),
        ErrorKind::Protocol => number!("VIX_E_HOST_NETBLKDEV_HANDSHAKE"),
        // What programs expect of a wrong thumbprint: this code, and the line in the log.
        ErrorKind::CertificateRefused => number!("VIX_E_FAIL"),
        ErrorKind::MachineNotFound => number!("VIX_E_VM_NOT_FOUND"),
        ErrorKind::ObjectNotFound => number!("VIX_E_NOT_FOUND"),
        ErrorKind::SessionInvalid => number!("VIX_E_INVALID_AUTHENTICATION_SESSION"),
        ErrorKind::OperationDisabled => number!("VIX_E_OPERATION_DISABLED"),
        ErrorKind::HostUnavailable => number!("VIX_E_HOST_SERVER_NOT_AVAILABLE"),
        ErrorKind::ServerFault => number!("VIX_E_FAIL"),
    }
}

/// Name and text of the code in the low 16 bits, `None` for one that no table lists.
pub fn entry(error: VixError) -> Option<(&'static str, &'static str)> {
    let wanted = (error & 0xffff) as u16;
    let at = CODES.binary_search_by_key(&wanted, |entry| entry.0).ok()?;
    CODES.get(at).map(|&(_, name, text)| (name, text))
}

/// What people read for a code that no table lists.
pub const UNLISTED: &str = "Unknown error code";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ascends_and_its_texts_end_without_a_full_stop() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (code, name, text) in CODES {
            assert!(name.starts_with("VIX_") && !text.is_empty() && !text.ends_with('.'), "{code}");
            assert!(text.is_ascii() && !text.contains('"') && !text.contains("*/"), "{code}");
        }
    }

    #[test]
    fn codes_that_clients_compare_have_their_numbers() {
        let expected = [
            (ErrorKind::Internal, 1),
            (ErrorKind::InvalidArgument, 3),
            (ErrorKind::NotSupported, 6),
            (ErrorKind::AlreadyExists, 12),
            (ErrorKind::AccessDenied, 13),
            (ErrorKind::BufferTooSmall, 24),
            (ErrorKind::InvalidHandle, 1000),
            (ErrorKind::EndOfFile, 14005),
            (ErrorKind::NotInitialised, 16001),
            (ErrorKind::OutOfRange, 16007),
            (ErrorKind::KeyNotFound, 16052),
            (ErrorKind::InvalidConnection, 16054),
            (ErrorKind::NotADisk, 16063),
        ];
        for (kind, code) in expected {
            assert_eq!(code_of(kind), code, "{kind:?}");
        }
        assert_eq!((VIX_OK, VIX_E_FAIL, VIX_ASYNC), (0, 1, 25000));
    }

    #[test]
    fn phrases_that_programs_look_for_are_there() {
        assert_eq!(entry(1), Some(("VIX_E_FAIL", "Unknown error")));
        assert!(entry(13).unwrap().1.contains("You do not have access rights to this file"));
        assert!(entry(14009).unwrap().1.contains("The server refused connection"));
        assert_eq!(entry(0x0002_0000_0001_3e87), entry(0x3e87), "upper fields do not matter");
        assert_eq!(entry(65535), None);
    }
}
