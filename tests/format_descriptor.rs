//! Descriptors: grammar, refusals, changes, round trips, and every descriptor of the image set.
//!
//! `VIX_IMAGES` names the folder of the image set (default `../shared/images`, then `tests/data`).
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use proptest::prelude::*;

use vixDiskLib::error::ErrorKind;
use vixDiskLib::format::descriptor::Descriptor;
use vixDiskLib::format::descriptor::ExtentAccess;
use vixDiskLib::format::descriptor::ExtentKind;
use vixDiskLib::format::descriptor::ExtentLine;
use vixDiskLib::format::descriptor::MAX_LEN;
use vixDiskLib::units::Sectors;

const PLAIN: &str = r#"# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=fffffffe
parentCID=11223344
isNativeSnapshot="no"
createType="custom"
parentFileNameHint="base disk.vmdk"

# Extent description
RW 100 FLAT "d-flat.vmdk" 37
RDONLY 300 SPARSE "d-s002.vmdk"
NOACCESS 5 ZERO

# Change Tracking File
changeTrackPath="d-ctk.vmdk"

# The Disk Data Base 
#DDB

ddb.adapterType = "lsilogic"
# a remark
ddb.longContentID = "bd746094172e7bea0b3805d8fffffffe"
ddb.uuid.image="00000000-0000-0000-0000-000000000000"
"#;

fn parse(text: &str) -> Descriptor {
    Descriptor::parse(text.as_bytes()).unwrap()
}

fn text(descriptor: &Descriptor) -> String {
    String::from_utf8(descriptor.to_bytes().unwrap()).unwrap()
}

/// `PLAIN` with one piece replaced.
fn with(from: &str, to: &str) -> String {
    assert_eq!(PLAIN.matches(from).count(), 1, "{from:?} must stand in the sample once");
    PLAIN.replace(from, to)
}

#[test]
fn everything_in_a_descriptor_is_found() {
    let d = parse(PLAIN);
    assert_eq!((d.version(), d.cid(), d.parent_cid()), (1, Some(0xffff_fffe), Some(0x1122_3344)));
    assert_eq!((d.create_type(), d.parent_hint()), (Some("custom"), Some("base disk.vmdk")));
    assert_eq!((d.change_track_path(), d.capacity().unwrap()), (Some("d-ctk.vmdk"), Sectors(405)));
    let extent = |access, sectors, kind, name: Option<&str>, offset| ExtentLine {
        access,
        sectors: Sectors(sectors),
        kind,
        name: name.map(str::to_owned),
        offset: Sectors(offset),
    };
    let expected = [
        extent(ExtentAccess::ReadWrite, 100, ExtentKind::Flat, Some("d-flat.vmdk"), 37),
        extent(ExtentAccess::ReadOnly, 300, ExtentKind::Sparse, Some("d-s002.vmdk"), 0),
        extent(ExtentAccess::NoAccess, 5, ExtentKind::Zero, None, 0),
    ];
    assert_eq!(d.extents(), expected);
    assert_eq!(d.ddb_keys().collect::<Vec<_>>(), ["adapterType", "longContentID", "uuid.image"]);
    assert_eq!((d.ddb("ADAPTERTYPE"), d.ddb("none")), (Some("lsilogic"), None));
}

#[test]
fn words_and_keys_count_in_any_case_and_with_blanks() {
    let d = parse(
        "VERSION = 1 \r\nParentCid=FFFFFFFF\t\r\ncid = a454774a \r\nCreateTYPE =\"x\"\r\n  rw\t10  flat  \"a b\"  7 \r\nDDB.X= y \r\n",
    );
    assert_eq!((d.cid(), d.parent_cid(), d.create_type()), (Some(0xa454_774a), None, Some("x")));
    assert_eq!((d.extents()[0].name.as_deref(), d.extents()[0].offset), (Some("a b"), Sectors(7)));
    assert_eq!(d.ddb("x"), Some("y"));
}

#[test]
fn a_nul_ends_the_text() {
    let mut bytes = PLAIN.as_bytes().to_vec();
    bytes.extend_from_slice(b"\0\0RW 1 ZERO\n");
    let d = Descriptor::parse(&bytes).unwrap();
    assert_eq!((d.extents().len(), text(&d).as_str()), (3, PLAIN));
}

#[test]
fn ids_behind_the_offset_of_a_device_extent_are_ignored() {
    let d = parse("version=1\nRW 63 FLAT \"\\\\.\\PhysicalDrive0\" 5 \"partition-id\" device\n");
    assert_eq!(d.extents()[0].offset, Sectors(5));
    assert_eq!(d.extents()[0].name.as_deref(), Some("\\\\.\\PhysicalDrive0"));
}

#[test]
fn one_wrong_field_gives_one_kind_of_error() {
    use ErrorKind::{Encoding, Encrypted, NotADisk, UnsupportedFeature, UnsupportedVersion};
    let table = [
        ("version=1", "versiom=1", NotADisk),
        ("version=1", "version=", NotADisk),
        ("version=1", "version=0", NotADisk),
        ("version=1", "version=one", NotADisk),
        ("version=1", "version=4", UnsupportedVersion),
        ("version=1", "version=99999999999", UnsupportedVersion),
        ("version=1", "version=1\nversion=1", NotADisk),
        ("CID=fffffffe", "CID=", NotADisk),
        ("CID=fffffffe", "CID=fffffffg", NotADisk),
        ("CID=fffffffe", "CID=fffffffef", NotADisk),
        ("CID=fffffffe", "CID=+ffffffe", NotADisk),
        ("CID=fffffffe", "CID=\"fffffffe", NotADisk),
        ("CID=fffffffe", "CID=fffffffe\ncid=0", NotADisk),
        ("parentCID=11223344", "parentCID=none", NotADisk),
        ("\"base disk.vmdk\"", "\"base\" disk.vmdk\"", NotADisk),
        ("\"base disk.vmdk\"", "\"base disk.vmdk", NotADisk),
        ("isNativeSnapshot=\"no\"", "encryptionKeys=\"vmware:key/list/(x\"", Encrypted),
        ("RW 100", "RW 0", NotADisk),
        ("RW 100", "RW -1", NotADisk),
        ("RW 100", "RW 0x64", NotADisk),
        ("RW 100", "RW 99999999999999999999", NotADisk),
        ("RW 100", "RW 18446744073709551615", NotADisk),
        ("RW 100", "RW 18014398509481984", NotADisk), // 2^63 bytes
        ("RW 100", "RWX 100", UnsupportedFeature),
        ("RW 100", "RW", NotADisk),
        ("FLAT", "VSANSPARSE", UnsupportedFeature),
        ("FLAT", "FLATT", UnsupportedFeature),
        (" \"d-flat.vmdk\" 37", "", NotADisk),
        ("FLAT \"d-flat.vmdk\" 37", "", NotADisk),
        ("\"d-flat.vmdk\"", "d-flat.vmdk", NotADisk),
        ("\"d-flat.vmdk\"", "\"\"", NotADisk),
        ("\"d-flat.vmdk\"", "\"d-flat.vmdk", NotADisk),
        ("\"d-flat.vmdk\"", "\"d-flat\".vmdk", NotADisk),
        ("\"d-flat.vmdk\"", "\"vsan://x\"", UnsupportedFeature),
        ("\"d-flat.vmdk\"", "\"VVOL://x\"", UnsupportedFeature),
        ("37", "37x", NotADisk),
        ("37", "-37", NotADisk),
        ("37", "18446744073709551615", NotADisk),
        ("\"d-s002.vmdk\"", "\"d-s002.vmdk\" 1", NotADisk),
        ("\"UTF-8\"", "\"klingon\"\n# é\nRW 1 FLAT \"é\" 0", Encoding),
    ];
    for (from, to, kind) in table {
        let error = Descriptor::parse(with(from, to).as_bytes()).expect_err(to);
        assert_eq!(error.kind(), kind, "{from:?} -> {to:?}: {error}");
    }
}

#[test]
fn the_message_names_the_line() {
    let error = Descriptor::parse(with("CID=fffffffe", "CID=xyz").as_bytes()).unwrap_err();
    assert!(error.to_string().contains("line 4") && error.to_string().contains("xyz"), "{error}");
}

#[test]
fn a_descriptor_without_extents_is_none() {
    assert_eq!(Descriptor::parse(b"version=1\n").unwrap_err().kind(), ErrorKind::NotADisk);
    assert_eq!(Descriptor::parse(b"").unwrap_err().kind(), ErrorKind::NotADisk);
}

#[test]
fn the_sum_of_the_extents_is_checked() {
    let line = "RW 18014398509481983 ZERO\n"; // 2^63 - 512 bytes
    assert!(parse(&format!("version=1\n{line}{line}")).capacity().is_ok());
    let three = parse(&format!("version=1\n{line}{line}{line}"));
    assert_eq!(three.capacity().unwrap_err().kind(), ErrorKind::NotADisk);
}

#[test]
fn sizes_are_limited_and_large_descriptors_are_fast() {
    let mut many = String::from("version=1\nCID=00000000\n");
    for i in 0..65536 {
        many += &format!("RW 4192256 SPARSE \"a disk with a long name-s{i:05}.vmdk\"\n");
    }
    let start = Instant::now();
    let d = parse(&many);
    assert_eq!((d.extents().len(), d.capacity().unwrap()), (65536, Sectors(65536 * 4_192_256)));
    assert!(start.elapsed() < Duration::from_secs(10), "quadratic: {:?}", start.elapsed());
    many += "RW 1 ZERO\n";
    assert_eq!(Descriptor::parse(many.as_bytes()).unwrap_err().kind(), ErrorKind::NotADisk);

    let mut long = PLAIN.as_bytes().to_vec();
    long.resize(MAX_LEN, b'\n');
    Descriptor::parse(&long).unwrap();
    long.push(b'\n');
    assert_eq!(Descriptor::parse(&long).unwrap_err().kind(), ErrorKind::NotADisk);
    *long.last_mut().unwrap() = 0;
    Descriptor::parse(&long).unwrap();

    let keys: String = (0..4097).map(|i| format!("ddb.{i}=\"\"\n")).collect();
    assert_eq!(
        Descriptor::parse((PLAIN.to_owned() + &keys).as_bytes()).unwrap_err().kind(),
        ErrorKind::NotADisk
    );
}

#[test]
fn a_value_is_replaced_in_its_place() {
    let mut d = parse(PLAIN);
    d.set_ddb("ADAPTERTYPE", "ide").unwrap();
    d.set_ddb("uuid.image", "").unwrap();
    let expected =
        with("\"lsilogic\"", "\"ide\"").replace("\"00000000-0000-0000-0000-000000000000\"", "\"\"");
    assert_eq!(text(&d), expected);
    assert_eq!((d.ddb("adapterType"), d.ddb("uuid.image")), (Some("ide"), Some("")));
}

#[test]
fn a_new_key_comes_at_the_end_of_the_database() {
    let mut d = parse(PLAIN);
    d.set_ddb("comment", "a = b; # c").unwrap();
    assert_eq!(text(&d), format!("{PLAIN}ddb.comment = \"a = b; # c\"\n"));
    let change_track = "\n# Change Tracking File\nchangeTrackPath=\"c\"\n";
    let mut d = parse(&format!("version=1\nRW 1 ZERO\nddb.a = \"1\"\n{change_track}"));
    d.set_ddb("b", "2").unwrap();
    assert_eq!(text(&d), format!("version=1\nRW 1 ZERO\nddb.a = \"1\"\nddb.b = \"2\"\n{change_track}"));
}

#[test]
fn a_new_key_finds_its_place_without_a_database() {
    let title = "# The Disk Data Base \n#DDB\n\n";
    for (before, after) in [
        ("version=1\nRW 1 ZERO\n", format!("version=1\nRW 1 ZERO\n\n{title}ddb.a = \"1\"\n")),
        ("version=1\nRW 1 ZERO", format!("version=1\nRW 1 ZERO\n\n{title}ddb.a = \"1\"\n")),
        ("version=1\nRW 1 ZERO\n#DDB\n\n", "version=1\nRW 1 ZERO\n#DDB\n\nddb.a = \"1\"\n".into()),
        ("version=1\nRW 1 ZERO\n#ddb", "version=1\nRW 1 ZERO\n#ddb\nddb.a = \"1\"\n".into()),
        ("version=1\nRW 1 ZERO\nddb.z=\"\"", "version=1\nRW 1 ZERO\nddb.z=\"\"\nddb.a = \"1\"\n".into()),
        ("version=1\r\nRW 1 ZERO\r\n#DDB", "version=1\r\nRW 1 ZERO\r\n#DDB\r\nddb.a = \"1\"\r\n".into()),
    ] {
        let mut d = parse(before);
        d.set_ddb("a", "1").unwrap();
        assert_eq!(text(&d), after);
        assert_eq!(d.ddb("a"), Some("1"));
    }
}

#[test]
fn a_value_that_a_descriptor_cannot_hold_is_refused() {
    let mut d = parse(PLAIN);
    for (key, value) in [
        ("a", "\""),
        ("a", "x\ny"),
        ("a", "x\r"),
        ("a", "\0"),
        ("", "x"),
        ("a b", "x"),
        ("a=b", "x"),
        ("é", "x"),
    ] {
        assert_eq!(
            d.set_ddb(key, value).unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{key:?} {value:?}"
        );
    }
    let long = "x".repeat(MAX_LEN);
    assert_eq!(d.set_ddb("a", &long).unwrap_err().kind(), ErrorKind::NotADisk);
    assert_eq!(text(&d), PLAIN);
    let mut d = parse(&with("\"UTF-8\"", "\"windows-1252\""));
    assert_eq!(d.set_ddb("a", "盘").unwrap_err().kind(), ErrorKind::Encoding);
    d.set_ddb("a", "é").unwrap();
    assert!(d.to_bytes().unwrap().ends_with(b"ddb.a = \"\xe9\"\n"));
}

#[test]
fn names_keep_their_meaning_when_the_encoding_key_is_set() {
    let text = "version=1\nRW 1 FLAT \"é\" 0\nddb.encoding = \"UTF-8\"\n";
    let mut d = parse(text);
    assert_eq!(d.set_ddb("encoding", "windows-1252").unwrap_err().kind(), ErrorKind::Encoding);
    assert_eq!(d.extents()[0].name.as_deref(), Some("é"));
    let mut plain = parse(&text.replace('é', "e"));
    plain.set_ddb("encoding", "windows-1252").unwrap();
    assert_eq!(plain.ddb("encoding"), Some("windows-1252"));
}

#[test]
fn names_are_read_in_the_encoding_that_the_text_declares() {
    for (encoding, name, expected) in [
        ("encoding=\"Shift_JIS\"\n", &b"\x95\x5c"[..], "表"),
        ("encoding=\"GBK\"\n", b"\xc5\xcc", "盘"),
        ("encoding=\"windows-1252\"\n", b"\xc3\xa9", "Ã©"),
        ("", b"\xc3\xa9", "é"),
        ("", b"\xe9", "é"),
    ] {
        let mut bytes = format!("version=1\n{encoding}RW 1 FLAT \"").into_bytes();
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(b"\" 0\n");
        let d = Descriptor::parse(&bytes).unwrap();
        assert_eq!(d.extents()[0].name.as_deref(), Some(expected));
        assert_eq!(d.to_bytes().unwrap(), bytes);
    }
    let broken = b"version=1\nencoding=\"UTF-8\"\nRW 1 FLAT \"\xe9\" 0\n";
    assert_eq!(Descriptor::parse(broken).unwrap_err().kind(), ErrorKind::Encoding);
}

#[test]
fn the_content_id_changes_in_both_of_its_places() {
    let mut d = parse(PLAIN);
    d.set_cid(0x0012_abcd).unwrap();
    let expected = with("CID=fffffffe", "CID=0012abcd").replace("d8fffffffe", "d80012abcd");
    assert_eq!((text(&d), d.cid()), (expected.clone(), Some(0x0012_abcd)));

    let mut padded = PLAIN.as_bytes().to_vec();
    padded.resize(10240, 0);
    for (at, digits) in Descriptor::cid_patches(&padded, 0x0012_abcd).unwrap() {
        padded[at..at + 8].copy_from_slice(&digits);
    }
    assert_eq!(padded[..PLAIN.len()], *expected.as_bytes());
    assert!(padded[PLAIN.len()..].iter().all(|&b| b == 0));
}

#[test]
fn a_long_content_id_of_another_form_is_left_alone() {
    for value in ["bd74", "xd746094172e7bea0b3805d8fffffffe", ""] {
        let mut d = parse(&with("bd746094172e7bea0b3805d8fffffffe", value));
        assert_eq!(Descriptor::cid_patches(&d.to_bytes().unwrap(), 7).unwrap().len(), 1);
        d.set_cid(7).unwrap();
        assert_eq!(d.ddb("longContentID"), Some(value));
    }
    let unquoted = with("\"bd746094172e7bea0b3805d8fffffffe\"", "bd746094172e7bea0b3805d8fffffffe");
    let mut d = parse(&unquoted);
    d.set_cid(7).unwrap();
    assert_eq!(d.ddb("longContentID"), Some("bd746094172e7bea0b3805d800000007"));
}

#[test]
fn a_short_content_id_is_rewritten_but_not_patched() {
    let short = with("CID=fffffffe", "CID=0");
    assert_eq!(
        Descriptor::cid_patches(short.as_bytes(), 7).unwrap_err().kind(),
        ErrorKind::UnsupportedFeature
    );
    let mut d = parse(&short);
    d.set_cid(7).unwrap();
    assert_eq!(d.cid(), Some(7));
    let none = with("CID=fffffffe\n", "");
    assert_eq!(parse(&none).cid(), None);
    assert_eq!(Descriptor::cid_patches(none.as_bytes(), 7).unwrap_err().kind(), ErrorKind::NotADisk);
}

#[test]
fn change_tracking_can_be_taken_off() {
    let mut d = parse(&with("version=1", "version=3"));
    assert!(d.stop_change_tracking().unwrap());
    assert_eq!(text(&d), with("changeTrackPath=\"d-ctk.vmdk\"\n", ""));
    assert!(!d.stop_change_tracking().unwrap());
}

#[test]
fn detection_wants_a_version_line_in_text() {
    for yes in
        ["version=1", "# x\n\n \nVersion = 9", "encoding=\"UTF-8\"\nversion=1", "\u{feff}# x\nversion=1\n"]
    {
        assert!(Descriptor::looks_like(yes.as_bytes()), "{yes:?}");
    }
    for no in [
        "",
        "# only\n",
        "versions=1",
        "version",
        "RW 1 ZERO\nversion=1",
        "KDMV\u{1}\0version=1",
        "\0version=1",
    ] {
        assert!(!Descriptor::looks_like(no.as_bytes()), "{no:?}");
    }
}

/// Text that is a database value.
fn value() -> impl Strategy<Value = String> {
    "[^\"\r\n\0]{0,40}"
}

fn extent() -> impl Strategy<Value = ExtentLine> {
    let access = prop_oneof![
        Just(ExtentAccess::ReadWrite),
        Just(ExtentAccess::ReadOnly),
        Just(ExtentAccess::NoAccess)
    ];
    let kind = prop_oneof![
        Just(ExtentKind::Flat),
        Just(ExtentKind::Sparse),
        Just(ExtentKind::Vmfs),
        Just(ExtentKind::VmfsSparse),
        Just(ExtentKind::SeSparse),
        Just(ExtentKind::VmfsRdm),
        Just(ExtentKind::VmfsRaw),
    ];
    (access, 1..1u64 << 40, kind, "[^\"\r\n\0]{1,20}", 0..1u64 << 40).prop_map(
        |(access, sectors, kind, name, offset)| {
            let offset = if kind == ExtentKind::Flat { offset } else { 0 };
            ExtentLine { access, sectors: Sectors(sectors), kind, name: Some(name), offset: Sectors(offset) }
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(
        extents in prop::collection::vec(extent(), 1..8),
        cid: u32,
        values in prop::collection::btree_map("[a-z.]{1,12}", value(), 0..8),
        crlf: bool,
    ) {
        let lines: String = extents.iter().map(|extent| extent.to_line() + "\n").collect();
        let mut source = format!("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={:08x}\n\n# x\n{lines}", 1);
        if crlf {
            source = source.replace('\n', "\r\n");
        }
        let mut d = parse(&source);
        prop_assert_eq!(d.extents(), &extents[..]);
        for (key, value) in &values {
            d.set_ddb(key, value).unwrap();
        }
        d.set_cid(cid).unwrap();
        let bytes = d.to_bytes().unwrap();
        let again = Descriptor::parse(&bytes).unwrap();
        prop_assert_eq!(again.to_bytes().unwrap(), bytes.clone());
        prop_assert_eq!(again.cid(), Some(cid));
        prop_assert_eq!(again.extents(), &extents[..]);
        for (key, value) in &values {
            prop_assert_eq!(again.ddb(key), Some(value.as_str()));
        }
        if crlf {
            prop_assert_eq!(bytes.iter().filter(|&&b| b == b'\n').count(), text(&d).matches("\r\n").count());
        }
    }

    #[test]
    fn damaged_text_is_refused_or_kept_as_it_is(at in 0..PLAIN.len(), byte: u8, cut in 0..PLAIN.len(), key in "[a-z]{1,6}") {
        let mut bytes = PLAIN.as_bytes().to_vec();
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[cut..], &bytes[..cut]] {
            Descriptor::looks_like(bytes);
            let Ok(mut d) = Descriptor::parse(bytes) else { continue };
            let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
            prop_assert_eq!(&d.to_bytes().unwrap(), &bytes[..end]);
            if let Ok(patches) = Descriptor::cid_patches(bytes, 0x1234_5678) {
                let mut patched = bytes[..end].to_vec();
                for (at, digits) in patches {
                    patched[at..at + 8].copy_from_slice(&digits);
                }
                d.set_cid(0x1234_5678).unwrap();
                prop_assert_eq!(d.to_bytes().unwrap(), patched);
            }
            if d.set_ddb(&key, "value").is_ok() {
                prop_assert_eq!(d.ddb(&key), Some("value"));
                Descriptor::parse(&d.to_bytes().unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        Descriptor::looks_like(&bytes);
        let mut text = b"version=1\nRW 1 ZERO\n".to_vec();
        text.extend_from_slice(&bytes);
        for bytes in [bytes, text] {
            if let Ok(d) = Descriptor::parse(&bytes) {
                let text = d.to_bytes().unwrap();
                prop_assert!(bytes.starts_with(&text));
            }
        }
    }
}

/// The image set, or `None` with the reason printed.
fn images() -> Option<PathBuf> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sets = [project.join("../shared/images"), project.join("tests/data")];
    let named = std::env::var_os("VIX_IMAGES").map(PathBuf::from);
    let set = named.into_iter().chain(sets).find(|set| set.join("manifest.tsv").exists());
    if set.is_none() {
        eprintln!("skipped: no image set (set VIX_IMAGES)");
    }
    set
}

/// The first bytes of an image, unpacked if it is packed.
fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    if path.exists() {
        fs::File::open(path).unwrap().take(1 << 20).read_to_end(&mut bytes).unwrap();
        return Some(bytes);
    }
    let packed = format!("{}.zst", path.display());
    let child = Command::new("zstd").args(["-dcq", &packed]).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped {}: no zstd program to unpack it", path.display());
        return None;
    };
    child.stdout.take().unwrap().take(1 << 20).read_to_end(&mut bytes).unwrap();
    let _ = child.kill();
    child.wait().unwrap();
    assert!(!bytes.is_empty(), "{packed} cannot be unpacked");
    Some(bytes)
}

/// The descriptor's bytes of an image: the file itself, or the area that a sparse header names.
fn descriptor_area(head: &[u8]) -> &[u8] {
    if !head.starts_with(b"KDMV") {
        return head;
    }
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap()) as usize * 512;
    &head[number(28)..number(28) + number(36)]
}

#[test]
fn every_descriptor_of_the_image_set_has_the_size_that_the_set_claims() {
    let Some(folder) = images() else { return };
    let manifest = fs::read_to_string(folder.join("manifest.tsv")).unwrap();
    let mut seen = 0;
    for row in manifest.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = row.split('\t').collect();
        let [path, size, ..] = fields[..] else { panic!("{row}") };
        let Ok(size) = size.parse::<u64>() else { continue };
        if !path.starts_with("vmdk/") || path.contains("hostile") {
            continue;
        }
        let Some(head) = head(&folder.join(path)) else { continue };
        let area = descriptor_area(&head);
        let mut d = Descriptor::parse(area).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(d.capacity().unwrap().bytes().unwrap(), size, "{path}");
        assert!(Descriptor::looks_like(area), "{path}");
        let bytes = d.to_bytes().unwrap();
        assert!(area.starts_with(&bytes), "{path}");
        let patches = Descriptor::cid_patches(area, 0xabcd_ef01).unwrap();
        let mut patched = bytes.clone();
        patches.iter().for_each(|(at, digits)| patched[*at..at + 8].copy_from_slice(digits));
        d.set_cid(0xabcd_ef01).unwrap();
        assert_eq!(d.to_bytes().unwrap(), patched, "{path}");
        d.set_ddb("added.by.test", "x y").unwrap();
        assert_eq!(
            Descriptor::parse(&d.to_bytes().unwrap()).unwrap().ddb("added.by.test"),
            Some("x y"),
            "{path}"
        );
        seen += 1;
    }
    assert!(seen > 15, "only {seen} descriptors found");
}

#[test]
fn the_hostile_descriptors_of_the_image_set_are_refused() {
    let Some(folder) = images() else { return };
    let hostile = folder.join("vmdk/hostile");
    for name in ["desc-overflow.vmdk", "vmdk-invalid.img"] {
        let Some(head) = head(&hostile.join(name)) else { continue };
        assert_eq!(Descriptor::parse(&head).unwrap_err().kind(), ErrorKind::NotADisk, "{name}");
    }
    // Where a name leads is decided by whoever opens it: here it must only come out as it is.
    let Some(head) = head(&hostile.join("desc-traversal.vmdk")) else { return };
    let name = Descriptor::parse(&head).unwrap().extents()[0].name.clone();
    assert_eq!(name.as_deref(), Some("../../../../../../etc/hostname"));
}
