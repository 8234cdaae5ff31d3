//! Asynchronous requests: workers, the wait barrier and the ticker.
#![forbid(unsafe_code)]
