//! The n-th change of the file fails, for every n: errors come back, reads go on, and the disk is whole when opened again.
#![allow(clippy::unwrap_used)]

mod sparse_images;

use std::sync::Arc;

use vixDiskLib::format::Image;
use vixDiskLib::format::sparse::Sparse;

use crate::sparse_images::Layout;
use crate::sparse_images::options;
use crate::sparse_images::read_all;
use crate::sparse_images::scan_agrees_with_map;
use crate::sparse_images::trace::Trace;
use crate::sparse_images::write;

/// Runs writes until the end, noting in `model` what was acknowledged and in `doubt` what may or may not be there.
fn run(image: &Sparse, layout: Layout, deferred: bool, model: &mut [u8], doubt: &mut [bool]) -> u32 {
    let mut errors = 0;
    for round in 0..12u64 {
        let sector = round * 37 % (layout.capacity - 20);
        let range = sector as usize * 512..(sector as usize + 18) * 512;
        let data = vec![round as u8 + 1; range.len()];
        match write(image, None, range.start as u64, &data, deferred) {
            Ok(()) => {
                model[range.clone()].copy_from_slice(&data);
                doubt[range].fill(deferred);
            }
            Err(_) => {
                errors += 1;
                doubt[range].fill(true);
            }
        }
        if round % 5 == 4 {
            match image.flush() {
                Ok(()) if errors == 0 => doubt.fill(false),
                Ok(()) => {}
                Err(_) => errors += 1,
            }
        }
    }
    errors
}

#[test]
fn any_failing_change_is_reported_and_does_no_harm() {
    let plain = Layout::new(16 * 40 + 3, 16);
    for layout in [plain, Layout { tables: false, ..plain }] {
        for deferred in [false, true] {
            for partly in [false, true] {
                let mut failures = 0;
                for n in 0.. {
                    let storage = Arc::new(Trace::new(layout.blank()));
                    let image = Sparse::open(storage.clone(), &options(true)).unwrap();
                    storage.fail_in(n, partly);
                    let bytes = layout.capacity as usize * 512;
                    let (mut model, mut doubt) = (vec![0; bytes], vec![false; bytes]);
                    let mut errors = run(&image, layout, deferred, &mut model, &mut doubt);
                    let during = read_all(&image, None).unwrap();
                    scan_agrees_with_map(&image);
                    errors += u32::from(image.finish().is_err());
                    let what = format!("deferred {deferred}, partly {partly}, change {n}");
                    for i in (0..bytes).step_by(512).filter(|&i| !doubt[i]) {
                        assert_eq!(during[i], model[i], "{what}, byte {i:#x}");
                    }
                    drop(image);
                    let again = Sparse::open(storage.clone(), &options(true)).unwrap();
                    let after = read_all(&again, None).unwrap();
                    for i in (0..bytes).step_by(512).filter(|&i| !doubt[i]) {
                        assert_eq!(after[i], model[i], "{what}, reopened, byte {i:#x}");
                    }
                    if !storage.has_failed() {
                        assert_eq!(errors, 0, "{what}");
                        break;
                    }
                    failures += usize::from(errors > 0);
                }
                assert!(failures > 15, "{failures} failures were told, deferred {deferred}");
            }
        }
    }
}
