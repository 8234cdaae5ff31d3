//! The disk data base.

use std::ffi::CStr;
use std::ffi::CString;
use std::ffi::c_char;
use std::ptr::null_mut;

use super::code;
use super::disk::Disk;
use super::types::Handle;

impl Disk<'_> {
    /// `ReadMetadata` into a buffer of `len` bytes (none when 0): the code, the length asked for, the buffer.
    pub fn metadata_raw(&self, key: &str, len: usize) -> (u64, usize, Vec<u8>) {
        let key = CString::new(key).expect("a key");
        let mut buf = vec![0xEEu8; len];
        let mut required = usize::MAX;
        let result = call!(
            self.vix,
            "ReadMetadata",
            fn(Handle, *const c_char, *mut c_char, usize, *mut usize) -> u64,
            self.handle,
            key.as_ptr(),
            if len == 0 { null_mut() } else { buf.as_mut_ptr().cast() },
            len,
            &raw mut required
        );
        (result, required, buf)
    }

    /// The value of a key, asked for as Bareos does: the size, then the value without asking for the size again.
    pub fn metadata(&self, key: &str) -> Result<String, u64> {
        let (result, required, _) = self.metadata_raw(key, 0);
        if result != code::OK && result != code::BUFFER_TOO_SMALL {
            return Err(result);
        }
        let c_key = CString::new(key).expect("a key");
        let mut buf = vec![0u8; required];
        let result = call!(
            self.vix,
            "ReadMetadata",
            fn(Handle, *const c_char, *mut c_char, usize, *mut usize) -> u64,
            self.handle,
            c_key.as_ptr(),
            buf.as_mut_ptr().cast(),
            buf.len(),
            null_mut()
        );
        if result != code::OK {
            return Err(result);
        }
        let text = CStr::from_bytes_with_nul(&buf).expect("the size counts the closing NUL");
        Ok(text.to_string_lossy().into_owned())
    }

    /// `WriteMetadata`.
    pub fn set_metadata(&self, key: &str, value: &str) -> u64 {
        let (key, value) = (CString::new(key).expect("a key"), CString::new(value).expect("a value"));
        call!(
            self.vix,
            "WriteMetadata",
            fn(Handle, *const c_char, *const c_char) -> u64,
            self.handle,
            key.as_ptr(),
            value.as_ptr()
        )
    }

    /// `GetMetadataKeys` into a buffer of `len` bytes: the code, the length asked for, the buffer.
    pub fn metadata_keys_raw(&self, len: usize) -> (u64, usize, Vec<u8>) {
        let mut buf = vec![0xEEu8; len];
        let mut required = usize::MAX;
        let result = call!(
            self.vix,
            "GetMetadataKeys",
            fn(Handle, *mut c_char, usize, *mut usize) -> u64,
            self.handle,
            if len == 0 { null_mut() } else { buf.as_mut_ptr().cast() },
            len,
            &raw mut required
        );
        (result, required, buf)
    }

    /// Every key.
    #[track_caller]
    pub fn metadata_keys(&self) -> Vec<String> {
        let (result, required, _) = self.metadata_keys_raw(0);
        assert!(result == code::OK || result == code::BUFFER_TOO_SMALL, "GetMetadataKeys = {result}");
        let (result, again, buf) = self.metadata_keys_raw(required);
        assert_eq!((result, again), (code::OK, required), "GetMetadataKeys with the length it asked for");
        assert_eq!(buf.last(), Some(&0), "the list ends with a NUL");
        let mut keys = Vec::new();
        let mut rest = &buf[..];
        while let Some(end) = rest.iter().position(|b| *b == 0) {
            if end == 0 {
                assert_eq!(rest.len(), 1, "the length counts both closing NULs and nothing more");
                break;
            }
            keys.push(String::from_utf8(rest[..end].to_vec()).expect("keys are text"));
            rest = &rest[end + 1..];
        }
        keys
    }
}
