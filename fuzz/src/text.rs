//! Target for the descriptor: whatever parses, rewrites to itself.

use vixDiskLib::format::descriptor::Descriptor;

/// A descriptor text.
pub fn descriptor(data: &[u8]) {
    let _ = Descriptor::looks_like(data);
    let Ok(mut parsed) = Descriptor::parse(data) else { return };
    let capacity = parsed.capacity();
    let total = parsed.extents().iter().try_fold(0u64, |sum, e| sum.checked_add(e.sectors.0));
    if let Ok(capacity) = &capacity {
        assert_eq!(Some(capacity.0), total, "the capacity is the sum of the extents");
    }
    for extent in parsed.extents() {
        assert!(extent.sectors.0 > 0, "an extent without sectors");
    }
    for key in parsed.ddb_keys() {
        assert!(parsed.ddb(key).is_some(), "a key without a value: {key:?}");
    }
    let _ = (parsed.version(), parsed.create_type(), parsed.parent_hint(), parsed.change_track_path());
    patched(data, &parsed);
    rewritten(&parsed);
    if parsed.set_ddb("uuid", "one two").is_ok() {
        assert_eq!(parsed.ddb("uuid"), Some("one two"));
        let again = rewritten(&parsed);
        assert_eq!(again.ddb("UUID"), Some("one two"), "a value is lost on rewriting");
    }
    for hostile in ["a\"b", "a\nb", "a\0b"] {
        assert!(parsed.set_ddb("comment", hostile).is_err(), "{hostile:?} cannot be stored");
    }
}

/// Overwriting the digits of the content id in place is the same as parsing, changing and comparing.
fn patched(data: &[u8], parsed: &Descriptor) {
    let id = parsed.cid().unwrap_or(7) ^ 0x5a5a_a5a5;
    let Ok(patches) = Descriptor::cid_patches(data, id) else { return };
    let mut bytes = data.to_vec();
    for (at, digits) in patches {
        bytes.get_mut(at..at + 8).expect("a patch inside the text").copy_from_slice(&digits);
    }
    let again = Descriptor::parse(&bytes).expect("still a descriptor after patching");
    assert_eq!(again.cid(), Some(id), "the content id is not the patched one");
    assert_eq!(again.extents(), parsed.extents());
}

/// What it writes reads as the same, and writes as the same.
fn rewritten(parsed: &Descriptor) -> Descriptor {
    let bytes = parsed.to_bytes().expect("what was read can be written");
    let again = Descriptor::parse(&bytes).expect("what was written can be read");
    assert_eq!(again.cid(), parsed.cid());
    assert_eq!(again.parent_cid(), parsed.parent_cid());
    assert_eq!(again.parent_hint(), parsed.parent_hint());
    assert_eq!(again.extents(), parsed.extents());
    assert_eq!(again.to_bytes().unwrap(), bytes, "rewriting twice differs");
    again
}
