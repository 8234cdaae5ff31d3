//! A chain of links and the one loop that reads, writes and lists them.
#![forbid(unsafe_code)]
