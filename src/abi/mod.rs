//! The C interface.
#![allow(unsafe_code)]
