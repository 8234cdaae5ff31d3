//! The disk data base as programs use it, what disks say about themselves, and content ids.

#[macro_use]
mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::child::in_child;
use common::images::Images;
use common::model::stamps;
use common::scratch;
use common::tools;
use common::tools::check;
use common::tools::qemu_img;
use common::vix;
use common::vix::Disk;
use common::vix::Geometry;
use common::vix::Kind;
use common::vix::Spec;
use common::vix::Vix;
use common::vix::adapter;
use common::vix::code;
use common::vix::flags;

fn all_metadata(disk: &Disk<'_>) -> BTreeMap<String, String> {
    let keys = disk.metadata_keys();
    let mut all = BTreeMap::new();
    for key in keys {
        let value =
            disk.metadata(&key).unwrap_or_else(|e| panic!("the listed key {key} is not readable: {e}"));
        assert!(all.insert(key.clone(), value).is_none(), "{key} is listed twice");
    }
    all
}

/// What the images' descriptors say: path, adapter, geometry, links, parent, uuid.
type Said = (&'static str, u32, (u32, u32, u32), i32, Option<&'static str>, Option<&'static str>);

const SYNTHETIC: (u32, u32, u32) = (5, 64, 32);
const OLD: (u32, u32, u32) = (301, 4, 17);

const INFO: &[Said] = &[
    (
        "vmdk/ws-monolithicSparse/monolithicSparse.vmdk",
        adapter::BUSLOGIC,
        OLD,
        1,
        None,
        Some("60 00 C2 9f 48 66 ae a5-2f 18 d3 03 0b a9 14 ff"),
    ),
    (
        "vmdk/ws-monolithicFlat/monolithicFlat.vmdk",
        adapter::BUSLOGIC,
        OLD,
        1,
        None,
        Some("60 00 C2 9a 1d 7b 49 44-dc 53 e6 d3 e5 89 7b 0d"),
    ),
    (
        "vmdk/ws-twoGbMaxExtentSparse/twoGbMaxExtentSparse.vmdk",
        adapter::BUSLOGIC,
        OLD,
        1,
        None,
        Some("60 00 C2 9a dc 4a 12 0f-2a cb 5c 02 7e cf 6d 0e"),
    ),
    (
        "vmdk/ws-streamOptimized/streamOptimized.vmdk",
        adapter::BUSLOGIC,
        OLD,
        1,
        None,
        Some("60 00 C2 9f e4 0c 87 33-ea 3e c3 1b 2b 43 52 e9"),
    ),
    ("vmdk/stream-converter/streamOptimizedWithMarkers.vmdk", adapter::LSILOGIC, (1, 255, 63), 1, None, None),
    (
        "vmdk/esxi-vmfs-thick/vmfs_thick.vmdk",
        adapter::LSILOGIC,
        (2, 64, 32),
        1,
        None,
        Some("60 00 C2 98 5d 08 de f2-a0 14 2e 05 94 9d d8 38"),
    ),
    // No geometry in the descriptor: computed for 512 MiB.
    ("vmdk/esxi-sesparse/sesparse-desc.vmdk", adapter::LSILOGIC, (512, 64, 32), 1, None, None),
    ("vmdk/synthetic/cowd/cowd-base.vmdk", adapter::LSILOGIC, SYNTHETIC, 1, None, None),
    // Children have no geometry of their own: that of the base counts.
    ("vmdk/synthetic/cowd/cowd-000001.vmdk", adapter::LSILOGIC, SYNTHETIC, 2, Some("cowd-base.vmdk"), None),
    ("vmdk/synthetic/cowd/cowd-000002.vmdk", adapter::LSILOGIC, SYNTHETIC, 3, Some("cowd-000001.vmdk"), None),
    ("vmdk/synthetic/sesparse/se-000001.vmdk", adapter::LSILOGIC, SYNTHETIC, 2, Some("se-base.vmdk"), None),
    ("vmdk/synthetic/zerograin/zg-base.vmdk", adapter::LSILOGIC, SYNTHETIC, 1, None, None),
    ("vmdk/synthetic/zerograin/zg-000001.vmdk", adapter::LSILOGIC, SYNTHETIC, 2, Some("zg-base.vmdk"), None),
    ("vmdk/synthetic/sparse/unclean.vmdk", adapter::LSILOGIC, SYNTHETIC, 1, None, None),
    ("vmdk/synthetic/sparse/grain16.vmdk", adapter::LSILOGIC, SYNTHETIC, 1, None, None),
    ("vmdk/synthetic/stream/so-ooo-incompressible.vmdk", adapter::LSILOGIC, SYNTHETIC, 1, None, None),
    ("vmdk/synthetic/descriptor/crlf-case.vmdk", adapter::LSILOGIC, SYNTHETIC, 1, None, None),
    ("vmdk/synthetic/custom/custom.vmdk", adapter::LSILOGIC, SYNTHETIC, 1, None, None),
];

#[test]
fn images_say_what_their_descriptors_say() {
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let images = Images::find();
        let mut seen = 0;
        for (path, adapter, (cylinders, heads, sectors), links, parent, uuid) in INFO {
            if !images.has(path) {
                continue;
            }
            let unpacked = images.unpack(path);
            let info = connection.must_open(&unpacked.path(), flags::READ_ONLY).info();
            let geometry = Geometry { cylinders: *cylinders, heads: *heads, sectors: *sectors };
            assert_eq!(info.physical, geometry, "{path}");
            assert_eq!(info.adapter, *adapter, "{path}");
            assert_eq!(info.links, *links, "{path}");
            assert_eq!(info.parent.as_deref(), *parent, "{path}");
            assert_eq!(info.uuid.as_deref(), *uuid, "{path}");
            assert_eq!(info.sector_sizes, (512, 512), "{path}");
            assert_eq!(info.bios, Geometry::default(), "{path}: none of them says a BIOS geometry");
            seen += 1;
        }
        assert!(seen > 0, "the set has at least one of them");
    });
}

/// qemu writes IDE disks with no cylinder when they are tiny.
#[test]
fn an_odd_geometry_is_no_obstacle() {
    in_child(|| {
        let connection = Vix::started().connect(true).expect("a connection");
        let images = Images::find();
        for path in ["vmdk/qemu-200-sectors/image.vmdk", "vmdk/qemu-64k/vmdk-monolith.img"] {
            if !images.has(path) {
                continue;
            }
            let info = connection.must_open(&images.unpack(path).path(), flags::READ_ONLY).info();
            assert_eq!(info.adapter, adapter::IDE, "{path}");
            assert_eq!((info.physical.heads, info.physical.sectors), (16, 63), "{path}");
            assert!(info.physical.cylinders <= 1, "{path}: {:?}", info.physical);
        }
    });
}

#[test]
fn the_keys_of_an_image_are_the_lines_of_its_data_base() {
    in_child(|| {
        let path = "vmdk/ws-monolithicSparse/monolithicSparse.vmdk";
        let images = Images::find();
        if !images.has(path) {
            return scratch::skip("the image is not in this set");
        }
        let connection = Vix::started().connect(true).expect("a connection");
        let unpacked = images.unpack(path);
        let all = all_metadata(&connection.must_open(&unpacked.path(), flags::READ_ONLY));
        for (key, value) in [
            ("adapterType", "buslogic"),
            ("geometry.sectors", "17"),
            ("geometry.heads", "4"),
            ("geometry.cylinders", "301"),
            ("uuid", "60 00 C2 9f 48 66 ae a5-2f 18 d3 03 0b a9 14 ff"),
            ("longContentID", "6e3d2a3fb9f03cc89dfc119febc44fce"),
            ("encoding", "UTF-8"),
            ("toolsVersion", "1"),
            ("virtualHWVersion", "7"),
            ("deletable", "true"),
        ] {
            assert_eq!(all.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(all.len() <= 12, "few keys beyond those of the file: {all:?}");
    });
}

#[test]
fn sizes_are_told_and_short_buffers_stay_untouched() {
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = folder.path().join("d.vmdk");
        connection.must_create(&path, Spec::new(Kind::Sparse, 4096));
        let disk = connection.must_open(&path, flags::READ_WRITE);
        assert_eq!(disk.set_metadata("vixtest.key", "four"), code::OK);
        let (result, required, _) = disk.metadata_raw("vixtest.key", 0);
        assert!(result == code::OK || result == code::BUFFER_TOO_SMALL, "{result}");
        assert_eq!(required, 5, "with the closing NUL");
        for len in 1..5 {
            let (result, required, buf) = disk.metadata_raw("vixtest.key", len);
            assert_eq!((result, required), (code::BUFFER_TOO_SMALL, 5), "a buffer of {len}");
            assert!(buf.iter().all(|b| *b == 0xEE), "a buffer of {len} stays untouched");
        }
        for len in [5, 6, 4096] {
            let (result, required, buf) = disk.metadata_raw("vixtest.key", len);
            assert_eq!((result, required), (code::OK, 5), "a buffer of {len}");
            assert_eq!(&buf[..5], b"four\0");
        }
        let (result, _, _) = disk.metadata_raw("vixtest.none", 100);
        assert_eq!(result, code::KEY_NOT_FOUND);
        assert_eq!(disk.metadata("vixtest.none"), Err(code::KEY_NOT_FOUND), "also when asked for the size");
        let (result, required, _) = disk.metadata_keys_raw(0);
        assert!(result == code::OK || result == code::BUFFER_TOO_SMALL, "{result}");
        let (result, again, buf) = disk.metadata_keys_raw(required - 1);
        assert_eq!((result, again), (code::BUFFER_TOO_SMALL, required));
        assert!(buf.iter().all(|b| *b == 0xEE), "a short key buffer stays untouched");
        assert!(required < 1024, "one program reads all keys into 1024 bytes: {required}");
        assert_eq!(disk.close(), code::OK);
    });
}

#[test]
fn written_values_persist_and_replace_each_other() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            connection.must_create(&path, Spec::new(kind, 4096));
            let disk = connection.must_open(&path, flags::READ_WRITE);
            disk.must_write(0, &stamps(0, 200, 1));
            let before = all_metadata(&disk);
            let umlaut = "grün und 漢字";
            for (key, value) in [
                ("vixtest.a", "1"),
                ("vixtest.b", ""),
                ("vixtest.a", "2"),
                ("toolsVersion", "10240"),
                ("comment", umlaut),
            ] {
                assert_eq!(disk.set_metadata(key, value), code::OK, "{key}: {}", vix::log_text());
                assert_eq!(disk.metadata(key).as_deref(), Ok(value), "{key}");
            }
            assert_eq!(disk.close(), code::OK);
            let disk = connection.must_open(&path, flags::READ_ONLY);
            let after = all_metadata(&disk);
            let mut expected = before.clone();
            for (key, value) in
                [("vixtest.a", "2"), ("vixtest.b", ""), ("toolsVersion", "10240"), ("comment", umlaut)]
            {
                expected.insert(key.to_owned(), value.to_owned());
            }
            assert_eq!(without_content_id(after), without_content_id(expected), "{kind:?}");
            assert_eq!(disk.must_read(0, 200), stamps(0, 200, 1));
            assert_eq!(disk.close(), code::OK);
            check(qemu_img(["info", "-f", "vmdk"]).arg(&path));
            tools::qemu_check(&path);
            // Case does not matter when looking for a key.
            let disk = connection.must_open(&path, flags::READ_WRITE);
            assert_eq!(disk.set_metadata("VIXTEST.A", "3"), code::OK);
            assert_eq!(disk.metadata("vixtest.a").as_deref(), Ok("3"));
            assert_eq!(disk.close(), code::OK);
        }
    });
}

/// The content id changes with the first write of content, so it is left out of comparisons.
fn without_content_id(mut all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    all.remove("longContentID");
    all
}

/// Bareos saves every key of one disk and writes them all to a new one.
#[test]
fn all_keys_of_one_disk_can_be_written_to_another() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        let images = Images::find();
        for golden in images.golden() {
            if golden.size > 64 << 20 {
                continue;
            }
            let source = images.unpack(&golden.path);
            let folder = scratch::folder();
            let path = folder.path().join("restored.vmdk");
            let disk = connection.must_open(&source.path(), flags::READ_ONLY);
            let (saved, info) = (all_metadata(&disk), disk.info());
            drop(disk);
            let spec = Spec { hw_version: 7, ..Spec::new(Kind::Sparse, golden.size / 512) };
            connection.must_create(&path, spec);
            let disk = connection.must_open(&path, flags::READ_WRITE);
            for (key, value) in &saved {
                assert_eq!(
                    disk.set_metadata(key, value),
                    code::OK,
                    "{}: {key}={value}\n{}",
                    golden.path,
                    vix::log_text()
                );
            }
            assert_eq!(disk.close(), code::OK);
            let disk = connection.must_open(&path, flags::READ_ONLY);
            let restored = all_metadata(&disk);
            for (key, value) in &saved {
                assert_eq!(restored.get(key), Some(value), "{}: {key}", golden.path);
            }
            let again = disk.info();
            assert_eq!(again.adapter, info.adapter, "{}", golden.path);
            if info.physical.cylinders > 1 {
                assert_eq!(again.physical, info.physical, "{}", golden.path);
            }
            if saved.contains_key("uuid") {
                assert_eq!(again.uuid, info.uuid, "{}", golden.path);
            }
            drop(disk);
            check(qemu_img(["info", "-f", "vmdk"]).arg(&path));
        }
    });
}

#[test]
fn keys_and_values_that_would_break_the_descriptor_are_refused() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            connection.must_create(&path, Spec::new(kind, 4096));
            let before = std::fs::read(&path).expect("the descriptor");
            let disk = connection.must_open(&path, flags::READ_WRITE);
            let wrong = [
                ("a\nCID", "00000000"),
                ("a", "1\"\nparentCID=00000001\nddb.b = \""),
                ("a", "say \"x\""),
                ("a", "line\rline"),
                ("", "x"),
                ("a = \"1\"\nddb.b", "x"),
                ("a=b", "x"),
            ];
            for (key, value) in wrong {
                let result = disk.set_metadata(key, value);
                assert_ne!(result, code::OK, "{key:?} = {value:?} must be refused");
            }
            assert_eq!(disk.close(), code::OK);
            if kind == Kind::Flat {
                assert_eq!(std::fs::read(&path).expect("the descriptor"), before, "nothing was changed");
            }
            let info = check(qemu_img(["info", "-f", "vmdk", "--output=json"]).arg(&path)).out();
            assert!(info.contains("\"parent-cid\": 4294967295"), "{info}");
        }
    });
}

/// The embedded descriptor has a fixed room; what does not fit is refused and nothing is lost.
#[test]
fn values_that_do_not_fit_are_refused_and_nothing_is_lost() {
    requires!("qemu-img");
    in_child(|| {
        let folder = scratch::folder();
        let connection = Vix::started().connect(false).expect("a connection");
        let path = folder.path().join("d.vmdk");
        connection.must_create(&path, Spec::new(Kind::Sparse, 4096));
        let disk = connection.must_open(&path, flags::READ_WRITE);
        disk.must_write(0, &stamps(0, 300, 1));
        let mut kept = 0;
        let refused = (0..100).find(|n| {
            let stored = disk.set_metadata(&format!("vixtest.k{n}"), &"v".repeat(500)) == code::OK;
            kept += usize::from(stored);
            !stored
        });
        assert!(refused.is_some() && kept >= 5, "room for {kept} values of 500 bytes");
        let all = all_metadata(&disk);
        assert_eq!(all.keys().filter(|key| key.starts_with("vixtest.k")).count(), kept);
        assert_eq!(disk.close(), code::OK);
        let disk = connection.must_open(&path, flags::READ_WRITE);
        assert_eq!(without_content_id(all_metadata(&disk)), without_content_id(all));
        assert_eq!(disk.must_read(0, 300), stamps(0, 300, 1), "no data was overwritten");
        assert_eq!(disk.close(), code::OK);
        tools::qemu_check(&path);
    });
}

// -------------------------------------------------------------------------------------------------- content ids

fn content_id(path: &Path) -> u64 {
    // Shared: the disk may be open for writing by us.
    let said = check(qemu_img(["info", "-U", "-f", "vmdk", "--output=json"]).arg(path)).out();
    let at = said.find("\"cid\": ").expect("a content id") + 7;
    said[at..].split([',', '\n', '}']).next().expect("a value").trim().parse().expect("a number")
}

#[test]
fn the_content_id_changes_with_content_and_with_nothing_else() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for kind in [Kind::Sparse, Kind::Flat] {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            connection.must_create(&path, Spec::new(kind, 4096));
            let first = content_id(&path);
            let disk = connection.must_open(&path, flags::READ_WRITE);
            disk.must_read(0, 100);
            assert_eq!(disk.set_metadata("vixtest.a", "1"), code::OK);
            assert_eq!(disk.flush(), code::OK);
            assert_eq!(disk.close(), code::OK);
            assert_eq!(content_id(&path), first, "{kind:?}: reading and metadata change no content");
            let disk = connection.must_open(&path, flags::READ_WRITE);
            disk.must_write(7, &stamps(7, 1, 1));
            let second = content_id(&path);
            assert_ne!(second, first, "{kind:?}: changed with the first write, before Close");
            disk.must_write(70, &stamps(70, 1, 1));
            assert_eq!(disk.close(), code::OK);
            assert_eq!(content_id(&path), second, "{kind:?}: once per open");
            let disk = connection.must_open(&path, flags::READ_WRITE);
            disk.must_write(7, &stamps(7, 1, 2));
            assert_eq!(disk.close(), code::OK);
            let third = content_id(&path);
            assert!(third != second && third != 0xffff_ffff, "{kind:?}: {third:x}");
            let disk = connection.must_open(&path, flags::READ_ONLY);
            if let Ok(long) = disk.metadata("longContentID") {
                assert_eq!(long.len(), 32, "{long}");
                assert!(long.ends_with(&format!("{third:08x}")), "{kind:?}: {long} and {third:x}");
            }
            assert_eq!(disk.close(), code::OK);
        }
    });
}

/// qemu writes the number without leading zeros, so one disk in sixteen has fewer than eight digits.
#[test]
fn a_content_id_of_few_digits_is_read_and_replaced() {
    requires!("qemu-img");
    in_child(|| {
        let connection = Vix::started().connect(false).expect("a connection");
        for (kind, id) in
            [(Kind::Sparse, "abcdef1"), (Kind::Sparse, "7"), (Kind::Flat, "abcdef1"), (Kind::Flat, "0")]
        {
            let folder = scratch::folder();
            let path = folder.path().join("d.vmdk");
            connection.must_create(&path, Spec::new(kind, 4096));
            set_content_id(&path, id);
            assert_eq!(content_id(&path), u64::from_str_radix(id, 16).expect("hex"));
            let disk = connection.must_open(&path, flags::READ_WRITE);
            let before = all_metadata(&disk);
            disk.must_write(9, &stamps(9, 3, 1));
            assert_eq!(disk.close(), code::OK, "{kind:?}, {id}");
            assert_ne!(content_id(&path), u64::from_str_radix(id, 16).expect("hex"), "{kind:?}, {id}");
            let disk = connection.must_open(&path, flags::READ_ONLY);
            assert_eq!(disk.must_read(9, 3), stamps(9, 3, 1));
            assert_eq!(without_content_id(all_metadata(&disk)), without_content_id(before));
            assert_eq!(disk.close(), code::OK);
            tools::qemu_check(&path);
        }
    });
}

/// Puts another content id into a descriptor, text or embedded, keeping the length of an embedded one.
fn set_content_id(path: &Path, id: &str) {
    let mut bytes = std::fs::read(path).expect("the disk");
    let at = bytes.windows(5).position(|part| part == b"\nCID=").expect("a content id") + 5;
    let embedded = bytes.starts_with(b"KDMV");
    let end = at + bytes[at..].iter().position(|b| *b == b'\n').expect("the end of the line");
    let removed = end - at - id.len();
    bytes.splice(at..end, id.bytes());
    if embedded {
        // The descriptor's area is padded with NUL up to sector 21.
        bytes.splice(21 * 512 - removed..21 * 512 - removed, std::iter::repeat_n(0, removed));
    }
    std::fs::write(path, bytes).expect("the disk");
}
