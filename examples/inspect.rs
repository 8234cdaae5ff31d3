//! Tells what the library knows about a disk, through its safe Rust interface instead of the C one.
//!
//! `cargo run --example inspect -- DISK.vmdk`
//!
//! Programs that use the crate this way need no C header and no shared object.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use vixDiskLib::config::Config;
use vixDiskLib::error::Result;
use vixDiskLib::logging::Level;
use vixDiskLib::logging::Log;
use vixDiskLib::logging::Sink;
use vixDiskLib::session::ConnectParams;
use vixDiskLib::session::Library;
use vixDiskLib::session::OpenDisk;
use vixDiskLib::session::OpenFlags;
use vixDiskLib::units::Sectors;

/// Puts the library's warnings and errors on the standard error output.
struct Stderr;

impl Sink for Stderr {
    fn line(&self, level: Level, text: &str) {
        eprintln!("{level:?}: {text}");
    }
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [path] = arguments.as_slice() else {
        eprintln!("usage: inspect DISK.vmdk");
        return ExitCode::from(2);
    };
    let library = Library::new(Log::new(Arc::new(Stderr), Level::Warning), Config::default());
    let outcome = inspect(&library, Path::new(path));
    library.shut_down();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("inspect: {e}");
            ExitCode::FAILURE
        }
    }
}

fn inspect(library: &Arc<Library>, path: &Path) -> Result<()> {
    let connection = library.connect(ConnectParams::default(), true, None, None)?;
    let disk = connection.open(path, OpenFlags::READ_ONLY)?;
    print_info(&disk)?;
    print_map(&disk)?;
    for key in disk.metadata_keys()? {
        println!("{:<16}{key} = {}", "metadata", disk.metadata(&key)?);
    }
    disk.close()?;
    connection.close()
}

fn print_info(disk: &OpenDisk) -> Result<()> {
    let info = disk.info()?;
    let g = &info.geometry;
    println!("{:<16}{} sectors, {:.1} MiB", "capacity", info.capacity.0, info.capacity.0 as f64 / 2048.0);
    println!(
        "{:<16}{} logical, {} physical",
        "sector sizes", info.logical_sector_size, info.physical_sector_size
    );
    println!("{:<16}{:?}", "adapter", info.adapter);
    println!("{:<16}{} cylinders, {} heads, {} sectors", "geometry", g.cylinders, g.heads, g.sectors);
    println!("{:<16}{}", "links", info.links);
    println!("{:<16}{}", "parent", info.parent_hint.as_deref().unwrap_or("none"));
    println!("{:<16}{}", "uuid", info.uuid.as_deref().unwrap_or("none"));
    println!("{:<16}{}", "transport", disk.transport_mode());
    Ok(())
}

/// The most sectors that one question may cover, and the smallest unit of its answer.
const CHUNK: u64 = 128;
const STEP: u64 = CHUNK * 524_288;

fn print_map(disk: &OpenDisk) -> Result<()> {
    let capacity = disk.info()?.capacity.0;
    let mut ranges = 0usize;
    let mut sectors = 0u64;
    for start in (0..capacity).step_by(STEP as usize) {
        let blocks = disk.allocated_blocks(Sectors(start), Sectors(STEP), Sectors(CHUNK))?;
        ranges += blocks.len();
        sectors += blocks.iter().map(|(_, length)| length).sum::<u64>();
    }
    println!("{:<16}{sectors} sectors in {ranges} ranges", "allocated");
    Ok(())
}
