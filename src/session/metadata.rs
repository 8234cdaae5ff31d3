//! The disk database as key and value strings.
