//! The simulator's disks: children and merges keep the content, maps of changes are those of a model.
#![allow(clippy::unwrap_used)] // a test may end where it stands

mod common;

use std::path::Path;
use std::path::PathBuf;

use common::model::Rng;
use common::scratch;
use common::tools;
use vixDiskLib::logging::Log;
use vixDiskLib::sim::disks::areas::Areas;
use vixDiskLib::sim::disks::areas::UNIT;
use vixDiskLib::sim::disks::child;
use vixDiskLib::sim::disks::merge;
use vixDiskLib::sim::disks::open::How;
use vixDiskLib::sim::disks::open::OpenFile;

/// Bytes of the disks: not a whole number of units.
const CAPACITY: u64 = 4 << 20 | 1536;

/// A base disk of a kind that `qemu-img` makes.
fn base(folder: &Path, subformat: &str) -> PathBuf {
    let path = folder.join("disk.vmdk");
    let option = format!("subformat={subformat}");
    let size = CAPACITY.to_string();
    tools::check(tools::qemu_img(["create", "-q", "-f", "vmdk", "-o", &option]).arg(&path).arg(size));
    path.canonicalize().unwrap()
}

/// Writes pieces at random places of a disk and of the model; says which units they touch.
fn scribble(path: &Path, model: &mut [u8], rng: &mut Rng, pieces: u64) -> Areas {
    let open = OpenFile::open(path, How::Write, &Log::none()).unwrap();
    let mut areas = Areas::default();
    for _ in 0..pieces {
        let start = rng.below(CAPACITY / 512) * 512;
        let len = (rng.between(1, 400) * 512).min(CAPACITY - start);
        let bytes = match rng.below(4) {
            0 => vec![0; len as usize],
            _ => rng.bytes(len as usize),
        };
        open.disk.write(&bytes, start).unwrap();
        model[start as usize..(start + len) as usize].copy_from_slice(&bytes);
        areas.add(start..start + len);
    }
    open.finish().unwrap();
    areas
}

fn content(path: &Path) -> Vec<u8> {
    let open = OpenFile::open(path, How::Read, &Log::none()).unwrap();
    let mut all = vec![0; open.disk.capacity() as usize];
    open.disk.read(&mut all, 0).unwrap();
    all
}

fn list(areas: &Areas) -> Vec<std::ops::Range<u64>> {
    areas.iter().collect()
}

#[test]
fn a_child_holds_exactly_the_units_written_to_it() {
    requires!("qemu-img");
    let folder = scratch::folder();
    let base = base(folder.path(), "monolithicSparse");
    let mut rng = Rng::new(3);
    let mut model = vec![0; CAPACITY as usize];
    scribble(&base, &mut model, &mut rng, 20);
    let child = child::make(&base, &base, &Log::none()).unwrap();
    assert_eq!(child.file_name().unwrap(), "disk-000001.vmdk");
    assert_eq!(content(&child), model);
    let written = scribble(&child, &mut model, &mut rng, 9);
    let own = OpenFile::open(&child, How::Read, &Log::none()).unwrap().own_areas().unwrap();
    assert_eq!(list(&own), list(&written));
    assert_eq!(content(&child), model);
}

#[test]
fn merging_any_link_keeps_what_the_leaf_shows() {
    requires!("qemu-img");
    for (seed, subformat) in
        ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"]
            .iter()
            .enumerate()
    {
        let folder = scratch::folder();
        let mut rng = Rng::new(seed as u64 + 11);
        let mut model = vec![0; CAPACITY as usize];
        let mut chain = vec![base(folder.path(), subformat)];
        let mut views = vec![model.clone()];
        for _ in 0..4 {
            let top = chain.last().unwrap().clone();
            scribble(&top, &mut model, &mut rng, 12);
            *views.last_mut().unwrap() = model.clone();
            chain.push(child::make(&top, &top, &Log::none()).unwrap());
            views.push(model.clone());
        }
        scribble(chain.last().unwrap(), &mut model, &mut rng, 12);
        *views.last_mut().unwrap() = model.clone();
        while chain.len() > 1 {
            let at = 1 + rng.below(chain.len() as u64 - 1) as usize;
            let above: Vec<PathBuf> = chain.get(at + 1).cloned().into_iter().collect();
            merge::merge(&chain[at], &chain[at - 1], &above, &Log::none()).unwrap();
            let gone = chain.remove(at);
            assert!(!gone.exists());
            views.remove(at - 1);
            for (link, view) in chain.iter().zip(&views) {
                assert!(
                    content(link) == *view,
                    "{subformat}: {} after merging {}",
                    link.display(),
                    gone.display()
                );
            }
        }
        if subformat.ends_with("Sparse") {
            tools::qemu_check(&chain[0]);
        }
        let raw = tools::qemu_raw(&chain[0], folder.path());
        assert!(std::fs::read(raw).unwrap() == model, "{subformat}: qemu-img reads something else");
        let left: Vec<String> = scratch::names(folder.path());
        assert!(left.iter().all(|name| !name.contains("-0000")), "{subformat}: {left:?}");
    }
}

#[test]
fn a_merge_into_a_disk_that_cannot_be_written_changes_nothing() {
    requires!("qemu-img");
    let folder = scratch::folder();
    let base = base(folder.path(), "monolithicSparse");
    let mut rng = Rng::new(5);
    let mut model = vec![0; CAPACITY as usize];
    let child = child::make(&base, &base, &Log::none()).unwrap();
    scribble(&child, &mut model, &mut rng, 5);
    let writer = OpenFile::open(&base, How::Write, &Log::none()).unwrap();
    merge::merge(&child, &base, &[], &Log::none()).unwrap_err();
    writer.finish().unwrap();
    assert_eq!(content(&child), model);
    assert!(common::model::is_zero(&content(&base)));
}

#[test]
fn allocated_units_of_a_chain_are_those_of_all_its_links() {
    requires!("qemu-img");
    let folder = scratch::folder();
    let base = base(folder.path(), "monolithicSparse");
    let mut rng = Rng::new(8);
    let mut model = vec![0; CAPACITY as usize];
    let mut all = Areas::default();
    let put = |path: &Path, model: &mut Vec<u8>, all: &mut Areas, rng: &mut Rng| {
        let open = OpenFile::open(path, How::Write, &Log::none()).unwrap();
        for _ in 0..4 {
            let start = rng.below(CAPACITY / UNIT) * UNIT + 512;
            let bytes = rng.bytes(512);
            open.disk.write(&bytes, start).unwrap();
            model[start as usize..start as usize + 512].copy_from_slice(&bytes);
            all.add(start..start + 512);
        }
        open.finish().unwrap();
    };
    put(&base, &mut model, &mut all, &mut rng);
    let child = child::make(&base, &base, &Log::none()).unwrap();
    put(&child, &mut model, &mut all, &mut rng);
    let open = OpenFile::open(&child, How::Read, &Log::none()).unwrap();
    assert_eq!(list(&open.allocated().unwrap()), list(&all));
    assert_eq!(content(&child), model);
}
