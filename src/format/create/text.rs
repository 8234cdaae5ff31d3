//! The text of a new descriptor, in the order and spelling of VMware.

use crate::error::{Error, ErrorKind, Result};
use crate::format::create::ChildSpec;
use crate::format::create::CreateSpec;
use crate::format::create::NewIdentity;
use crate::format::ddb;
use crate::format::descriptor::Descriptor;
use crate::format::descriptor::ExtentLine;

/// The descriptor of a base disk.
pub fn descriptor_text(
    spec: &CreateSpec,
    create_type: &str,
    extents: &[ExtentLine],
    identity: &NewIdentity,
) -> Result<Vec<u8>> {
    compose(identity.cid, create_type, None, extents, &ddb::new_disk(spec, identity))
}

/// The descriptor of a child. Of the database it has only what is its own: the rest is looked up in the parent.
pub(super) fn child(
    spec: &ChildSpec<'_>,
    create_type: &str,
    extents: &[ExtentLine],
    identity: &NewIdentity,
) -> Result<Vec<u8>> {
    let ddb = [("longContentID", identity.long_content_id())];
    compose(identity.cid, create_type, Some((spec.parent_cid, spec.parent_hint)), extents, &ddb)
}

/// The comment in front of the extents is needed: QEMU counts an extent twice that follows an empty line.
fn compose(
    cid: u32,
    create_type: &str,
    parent: Option<(u32, &str)>,
    extents: &[ExtentLine],
    ddb: &[(&'static str, String)],
) -> Result<Vec<u8>> {
    let mut text = String::from("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\n");
    let parent_cid = parent.map_or(NO_PARENT, |(cid, _)| cid);
    text += &format!("CID={cid:08x}\nparentCID={parent_cid:08x}\ncreateType=\"{create_type}\"\n");
    if let Some((_, hint)) = parent {
        check_hint(hint)?;
        text += &format!("parentFileNameHint=\"{hint}\"\n");
    }
    text += "\n# Extent description\n";
    for extent in extents {
        text += &extent.to_line();
        text.push('\n');
    }
    text += "\n# The Disk Data Base \n#DDB\n\n";
    for (key, value) in ddb {
        text += &format!("ddb.{key} = \"{value}\"\n");
    }
    // Whatever was put in must come out of it again.
    let read = Descriptor::parse(text.as_bytes())?;
    let same_parent = (read.parent_cid(), read.parent_hint()) == (parent.map(|p| p.0), parent.map(|p| p.1));
    if read.extents() != extents || !same_parent {
        return Err(Error::new(ErrorKind::Internal, "the new descriptor does not say what it was made from"));
    }
    Ok(text.into_bytes())
}

/// A path that stands in a descriptor as it is.
pub fn check_hint(hint: &str) -> Result<()> {
    if hint.is_empty() || hint.contains(['"', '\n', '\r', '\0']) {
        let message = format!("{hint:?} cannot stand in a descriptor as the name of a parent");
        return Err(Error::new(ErrorKind::NameInvalid, message));
    }
    Ok(())
}

/// The parent's content id in a link that has no parent.
const NO_PARENT: u32 = 0xffff_ffff;
