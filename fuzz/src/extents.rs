//! Targets for the formats that are only read: a file of the given bytes, read through the format and through its oracle.

use std::sync::Arc;

use vixDiskLib::error::Result;
use vixDiskLib::format::Image;
use vixDiskLib::format::cowd::Cowd;
use vixDiskLib::format::sesparse::SeSparse;
use vixDiskLib::format::stream::Stream;
use vixDiskLib::format::stream::StreamOptions;
use vixDiskLib::logging::Log;

use super::check;
use super::check::Tally;
use super::oracle;
use super::oracle::Oracle;
use super::store::Holey;

/// Room for tables and grains: small, so that eviction happens.
pub const CACHE: usize = 64 * 1024;

/// Opens a stream-optimised file.
pub fn open_stream(file: &Arc<Holey>) -> Result<Stream> {
    let options = StreamOptions { cache_bytes: CACHE, log: Log::none(), name: "d.vmdk".to_owned() };
    Stream::open(file.clone(), &options)
}

/// Opens a COWD extent.
pub fn open_cowd(file: &Arc<Holey>) -> Result<Cowd> {
    Cowd::open(file.clone(), Log::none(), "d.vmdk")
}

/// Opens a SESparse extent.
pub fn open_sesparse(file: &Arc<Holey>) -> Result<SeSparse> {
    SeSparse::open(file.clone(), Log::none(), "d.vmdk")
}

/// Holds what opened against its oracle; what the oracle refuses must not have opened.
pub fn compare(opened: Result<impl Image>, oracle: Result<impl Oracle, &'static str>) -> Option<Tally> {
    match (opened, oracle) {
        (Err(_), _) => None,
        (Ok(image), Ok(oracle)) => Some(check::image(&image, &oracle)),
        (Ok(_), Err(reason)) => panic!("opened, although it has {reason}"),
    }
}

/// A stream-optimised file.
pub fn stream(data: &[u8]) {
    let file = Holey::decode(data);
    compare(open_stream(&file), oracle::Stream::open(file.clone()));
}

/// A COWD extent.
pub fn cowd(data: &[u8]) {
    let file = Holey::decode(data);
    compare(open_cowd(&file), oracle::Cowd::open(file.clone()));
}

/// A SESparse extent.
pub fn sesparse(data: &[u8]) {
    let file = Holey::decode(data);
    compare(open_sesparse(&file), oracle::SeSparse::open(file.clone()));
}
