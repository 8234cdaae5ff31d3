//! Progress functions cannot stop anything: their answer has no meaning in this interface. Whatever they say, each
//! operation goes on to its end.

mod common;

use std::sync::atomic::Ordering;

use common::child::in_child;
use common::model::stamps;
use common::scratch;
use common::vix;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::code;
use common::vix::flags;

const SECTORS: u64 = 10_000;

#[test]
fn an_unwilling_progress_function_stops_nothing() {
    in_child(|| {
        vix::UNWILLING.store(true, Ordering::Relaxed);
        let connection = Vix::started().connect(false).expect("a connection");
        let folder = scratch::folder();
        let at = |name: &str| folder.path().join(name);
        let told = |what: &str, (result, seen): (u64, Vec<i32>)| {
            assert_eq!(result, code::OK, "{what}\n{}", vix::log_text());
            assert_eq!(seen.last(), Some(&100), "{what}: {seen:?}");
            assert!(seen.windows(2).all(|pair| pair[0] <= pair[1]), "{what}: {seen:?}");
        };
        let kinds = [
            Kind::Sparse,
            Kind::Flat,
            Kind::SplitSparse,
            Kind::SplitFlat,
            Kind::VmfsFlat,
            Kind::Stream,
            Kind::VmfsThin,
        ];
        for kind in kinds {
            told(
                "Create",
                connection.create_watched(&at(&format!("{kind:?}.vmdk")), Spec::new(kind, SECTORS)),
            );
        }
        let disk = connection.must_open(&at("Sparse.vmdk"), flags::READ_WRITE);
        disk.must_write(300, &stamps(300, 4000, 1));
        disk.must_write(300, &vec![0; 2000 * 512]);
        told("Shrink", disk.shrink());
        told("Defragment", disk.defragment());
        assert_eq!(disk.close(), code::OK);
        for kind in kinds {
            let to = at(&format!("copy-{kind:?}.vmdk"));
            let spec = Some(Spec::new(kind, 0));
            told("Clone", connection.clone_disk(&to, &connection, &at("Sparse.vmdk"), spec, false));
            told("Clone", connection.clone_disk(&to, &connection, &at("Sparse.vmdk"), spec, true));
            let disk = connection.must_open(&to, flags::READ_ONLY);
            assert!(disk.must_read(0, 2300).iter().all(|byte| *byte == 0), "{kind:?}");
            assert_eq!(disk.must_read(2300, 2000), stamps(2300, 2000, 1), "{kind:?}");
            assert_eq!(disk.close(), code::OK);
        }
        for kind in ["Sparse", "Flat", "SplitSparse", "SplitFlat", "VmfsFlat", "VmfsThin"] {
            let path = at(&format!("copy-{kind}.vmdk"));
            told("Grow", connection.grow(&path, SECTORS * 2, true));
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert_eq!(disk.info().capacity, SECTORS * 2, "{kind}");
            assert_eq!(disk.must_read(2300, 2000), stamps(2300, 2000, 1), "{kind}");
            assert_eq!(disk.close(), code::OK);
        }
        let parent = connection.must_open(&at("Sparse.vmdk"), flags::READ_ONLY);
        told("CreateChild", parent.create_child(&at("child.vmdk"), Kind::Sparse));
        let child = connection.must_open(&at("child.vmdk"), flags::READ_ONLY);
        assert_eq!(child.must_read(2300, 2000), stamps(2300, 2000, 1));
    });
}
