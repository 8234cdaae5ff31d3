//! Calls that work on whole disks: made, joined, copied, grown, put in order, renamed, removed, checked and mended, on
//! sound disks and on disks with a few wrong bytes.

use std::ffi::CString;
use std::ffi::c_char;
use std::ffi::c_void;
use std::path::Path;
use std::ptr::null;

use super::CreateParams;
use super::File;
use super::Handle;
use super::OK;
use super::READ_ONLY;
use super::Run;
use super::trace;

use super::super::images;
use super::super::images::Built;
use super::super::images::SparseSpec;
use super::super::images::StreamLayout;

type Progress = extern "C" fn(*mut c_void, i32) -> c_char;

unsafe extern "C" {
    fn VixDiskLib_CreateChild(
        disk: Handle,
        path: *const c_char,
        kind: u32,
        progress: Option<Progress>,
        data: *mut c_void,
    ) -> u64;
    fn VixDiskLib_Attach(parent: Handle, child: Handle) -> u64;
    fn VixDiskLib_IsAttachPossible(parent: Handle, child: Handle) -> u64;
    fn VixDiskLib_Clone(
        to_connection: Handle,
        to: *const c_char,
        from_connection: Handle,
        from: *const c_char,
        params: *const CreateParams,
        progress: Option<Progress>,
        data: *mut c_void,
        overwrite: c_char,
    ) -> u64;
    fn VixDiskLib_Grow(
        connection: Handle,
        path: *const c_char,
        capacity: u64,
        geometry: c_char,
        progress: Option<Progress>,
        data: *mut c_void,
    ) -> u64;
    fn VixDiskLib_Shrink(disk: Handle, progress: Option<Progress>, data: *mut c_void) -> u64;
    fn VixDiskLib_Defragment(disk: Handle, progress: Option<Progress>, data: *mut c_void) -> u64;
    fn VixDiskLib_Rename(from: *const c_char, to: *const c_char) -> u64;
    fn VixDiskLib_Unlink(connection: Handle, path: *const c_char) -> u64;
    fn VixDiskLib_CheckRepair(connection: Handle, path: *const c_char, repair: c_char) -> u64;
    fn VixDiskLib_SpaceNeededForClone(disk: Handle, kind: u32, bytes: *mut u64) -> u64;
}

/// What a progress function was told.
struct Told {
    last: i32,
    calls: u64,
}

extern "C" fn progress(data: *mut c_void, percent: i32) -> c_char {
    // SAFETY: `data` is the `Told` of the call at hand.
    let told = unsafe { &mut *data.cast::<Told>() };
    assert!((told.last..=100).contains(&percent), "{percent} % after {} %", told.last);
    told.last = percent;
    told.calls += 1;
    1
}

/// Runs a call with a progress function, which hears 100 last when it succeeds.
fn with_progress(call: impl FnOnce(Option<Progress>, *mut c_void) -> u64) -> u64 {
    let mut told = Told { last: 0, calls: 0 };
    let code = call(Some(progress), (&raw mut told).cast());
    assert!(code != OK || told.calls == 0 || told.last == 100, "done, but {} % was told last", told.last);
    code
}

impl Run<'_> {
    pub(super) fn maintain(&mut self, which: u8) {
        match which {
            20 => self.create_child(),
            21 => self.attach(),
            22 => self.clone_disk(),
            23 => self.grow(),
            24 | 25 => self.rearrange(which == 24),
            26 => self.rename(),
            27 => self.unlink(),
            28 => self.check_repair(),
            29 => self.space_needed(),
            _ => self.spoil(),
        }
    }

    /// Puts a file in the place of the one with its path, which is not there any more, or behind all others.
    pub(super) fn put(&mut self, file: File) -> usize {
        let number = match self.files.iter().position(|f| f.path == file.path) {
            Some(number) => {
                self.disks.iter_mut().filter(|d| d.file == number).for_each(|d| d.vague = true);
                self.files[number] = file;
                number
            }
            None => {
                self.files.push(file);
                self.files.len() - 1
            }
        };
        self.changed(number);
        number
    }

    /// What stands on this file does not fit it any more.
    fn changed(&mut self, number: usize) {
        let mut stale = vec![number];
        while let Some(parent) = stale.pop() {
            for (i, file) in self.files.iter_mut().enumerate() {
                if file.parent == Some(parent) && !file.vague {
                    file.vague = true;
                    stale.push(i);
                }
            }
        }
    }

    fn new_path(&mut self, stem: &str) -> CString {
        let number = self.byte() % 3;
        let path = self.scratch.join(format!("{stem}{number}.vmdk"));
        CString::new(path.into_os_string().into_encoded_bytes()).unwrap()
    }

    fn connection(&mut self) -> (Handle, bool) {
        let c = usize::from(self.byte()) % self.connections.len();
        self.connections[c]
    }

    fn file(&mut self) -> usize {
        usize::from(self.byte()) % self.files.len()
    }

    fn is_open(&self, file: usize) -> bool {
        self.disks.iter().any(|d| d.is_open && d.file == file)
    }

    /// Calls on a disk that is being written wait seconds for its lock.
    fn is_written(&self, file: usize) -> bool {
        self.disks.iter().any(|d| d.is_open && d.file == file && d.flags & READ_ONLY == 0)
    }

    fn exists(&self, path: &CString) -> bool {
        self.files.iter().any(|f| f.exists && f.path == *path)
    }

    fn create_child(&mut self) {
        let ((handle, open), path, kind) = (self.handle(), self.new_path("kid"), u32::from(self.byte() % 5));
        let known = self.exists(&path);
        // SAFETY: the path is terminated; the progress function and its data live through the call.
        let code =
            with_progress(|f, data| unsafe { VixDiskLib_CreateChild(handle, path.as_ptr(), kind, f, data) });
        trace(|| format!("CreateChild {open:?} {path:?} of type {kind} = {code}"));
        if code != OK {
            return;
        }
        let i = open.expect("a child of a dead handle");
        assert!(!known, "a child over an existing disk");
        let parent = self.disks[i].file;
        let mut child = File::new(path, self.files[parent].shadow.clone());
        child.vague = !self.follows(i);
        child.hostile = self.is_hostile(i);
        child.parent = Some(parent);
        self.put(child);
    }

    fn attach(&mut self) {
        let ((parent, below), (child, above)) = (self.handle(), self.handle());
        // SAFETY: any values may be passed.
        let (possible, code) =
            unsafe { (VixDiskLib_IsAttachPossible(parent, child), VixDiskLib_Attach(parent, child)) };
        trace(|| format!("Attach {below:?} {above:?} = {code}, before {possible}"));
        assert!(code != OK || possible == OK, "attached although that was said to be impossible");
        let Some(below) = below else { return assert_ne!(code, OK, "attached to a dead handle") };
        if parent != child {
            self.disks[below].is_open = false;
            self.settled();
        }
        match above {
            Some(above) if code == OK => self.disks[above].vague = true,
            None => assert_ne!(code, OK, "attached a dead handle"),
            _ => {}
        }
    }

    fn clone_disk(&mut self) {
        let (to, from, source) = (self.connection(), self.connection(), self.file());
        let path = match self.byte() % 4 {
            0 => {
                let target = self.file();
                self.files[target].path.clone()
            }
            _ => self.new_path("copy"),
        };
        let params = CreateParams {
            disk_type: u32::from(self.byte() % 9),
            adapter: u32::from(self.byte() % 5),
            hardware: 14,
            capacity: self.number(),
            logical: 0,
            physical: 0,
        };
        let (overwrite, defaults) = (self.byte() % 2, self.byte().is_multiple_of(3));
        let target = self.files.iter().position(|f| f.path == path);
        if self.is_written(source) || target.is_some_and(|t| self.is_open(t)) {
            return;
        }
        let known = self.exists(&path);
        let name = self.files[source].path.clone();
        let params = if defaults { null() } else { &raw const params };
        // SAFETY: paths are terminated, the parameters live through the call.
        let code = with_progress(|f, data| unsafe {
            VixDiskLib_Clone(to.0, path.as_ptr(), from.0, name.as_ptr(), params, f, data, overwrite as c_char)
        });
        trace(|| format!("Clone {name:?} to {path:?} overwrite {overwrite} = {code}"));
        if code != OK {
            return;
        }
        assert!(to.1 && from.1, "copies on a dead connection");
        assert!(target != Some(source), "copied onto itself");
        assert!(!known || overwrite != 0, "copied over an existing disk");
        let vague = self.is_vague(source);
        let File { shadow, hostile, .. } = &self.files[source];
        let copy = File { vague, hostile: *hostile, ..File::new(path, shadow.clone()) };
        self.put(copy);
    }

    fn grow(&mut self) {
        let ((connection, alive), file) = (self.connection(), self.file());
        let (capacity, geometry) = (u64::from(self.byte() % 65), self.byte() % 2);
        if self.is_open(file) {
            return;
        }
        let path = self.files[file].path.clone();
        // SAFETY: the path is terminated.
        let code = with_progress(|f, data| unsafe {
            VixDiskLib_Grow(connection, path.as_ptr(), capacity, geometry as c_char, f, data)
        });
        trace(|| format!("Grow {path:?} to {capacity} = {code}"));
        if code != OK {
            return;
        }
        assert!(alive, "grows on a dead connection");
        let File { shadow, hostile, .. } = &mut self.files[file];
        if !*hostile {
            assert!(capacity as usize * 512 >= shadow.len(), "grown to something smaller");
            shadow.resize(capacity as usize * 512, Some(0));
        }
    }

    fn rearrange(&mut self, shrinks: bool) {
        let (handle, open) = self.handle();
        // SAFETY: any value may be passed.
        let code = with_progress(|f, data| unsafe {
            match shrinks {
                true => VixDiskLib_Shrink(handle, f, data),
                false => VixDiskLib_Defragment(handle, f, data),
            }
        });
        trace(|| format!("Rearrange {open:?} shrinks {shrinks} = {code}"));
        let Some(i) = open else { return assert_ne!(code, OK, "rearranges a dead handle") };
        assert!(code != OK || self.disks[i].flags & READ_ONLY == 0, "rearranges a read-only disk");
    }

    fn rename(&mut self) {
        let file = self.file();
        let to = match self.byte() % 4 {
            0 => {
                let target = self.file();
                self.files[target].path.clone()
            }
            _ => self.new_path("name"),
        };
        let children_open =
            (0..self.files.len()).any(|f| self.files[f].parent == Some(file) && self.is_open(f));
        if self.is_open(file) || children_open {
            return;
        }
        let (from, known) = (self.files[file].path.clone(), self.exists(&to));
        // SAFETY: both are terminated.
        let code = unsafe { VixDiskLib_Rename(from.as_ptr(), to.as_ptr()) };
        trace(|| format!("Rename {from:?} to {to:?} = {code}"));
        if code != OK {
            return;
        }
        assert!(
            self.files[file].exists && !known,
            "renamed something that is not, or onto something that is"
        );
        if let Some(free) = self.files.iter().position(|f| f.path == to) {
            self.files[free].path = c"gone".to_owned();
        }
        self.files[file].path = to;
    }

    fn unlink(&mut self) {
        let ((connection, alive), file) = (self.connection(), self.file());
        if self.is_open(file) {
            return;
        }
        let path = self.files[file].path.clone();
        // SAFETY: the path is terminated.
        let code = unsafe { VixDiskLib_Unlink(connection, path.as_ptr()) };
        trace(|| format!("Unlink {path:?} = {code}"));
        if code == OK {
            assert!(alive, "removes on a dead connection");
            assert!(!Path::new(path.to_str().unwrap()).exists(), "removed, but it is there");
            self.files[file].exists = false;
            self.changed(file);
        }
    }

    fn check_repair(&mut self) {
        let ((connection, alive), file, repair) = (self.connection(), self.file(), self.byte() % 2);
        if self.is_written(file) {
            return;
        }
        let path = self.files[file].path.clone();
        // SAFETY: the path is terminated.
        let code = unsafe { VixDiskLib_CheckRepair(connection, path.as_ptr(), repair as c_char) };
        trace(|| format!("CheckRepair {path:?} repair {repair} = {code}"));
        assert!(code != OK || alive, "checks on a dead connection");
        let sound = alive && self.files[file].exists && !self.is_vague(file);
        assert!(!sound || code == OK, "a sound disk gives {code}");
        if code == OK && repair != 0 {
            // SAFETY: as above.
            let again = unsafe { VixDiskLib_CheckRepair(connection, path.as_ptr(), 1) };
            assert_eq!(again, OK, "mended, and not sound");
        }
    }

    fn space_needed(&mut self) {
        let ((handle, open), kind) = (self.handle(), u32::from(self.byte() % 10));
        let kind = if kind == 9 { 256 } else { kind };
        let mut bytes = u64::MAX;
        // SAFETY: the place for the number is valid.
        let code = unsafe { VixDiskLib_SpaceNeededForClone(handle, kind, &mut bytes) };
        trace(|| format!("SpaceNeededForClone {open:?} type {kind} = {code}, {bytes}"));
        assert!(code != OK || open.is_some(), "measures a dead handle");
        assert_eq!(code == OK, bytes != u64::MAX, "a number and code {code}");
    }

    /// Makes a disk of which a few numbers are wrong.
    fn spoil(&mut self) {
        let (path, kind) = (self.new_path("bad"), self.byte() % 7);
        if self.files.iter().position(|f| f.path == path).is_some_and(|f| self.is_open(f)) {
            return;
        }
        let built = spoilable(kind);
        let mut bytes = built.file.clone();
        for _ in 0..self.byte() % 5 {
            let pick = usize::from(self.byte()) | usize::from(self.byte()) << 8;
            let field = &built.fields[pick % built.fields.len()];
            let value = self.number().to_le_bytes();
            bytes[field.at..field.at + field.width].copy_from_slice(&value[..field.width]);
        }
        if self.byte().is_multiple_of(4) {
            let cut = (self.number() as usize).wrapping_mul(16) % bytes.len();
            bytes.truncate(bytes.len() - cut);
        }
        let target = Path::new(path.to_str().unwrap()).to_owned();
        match kind {
            5 => {
                let extent = target.with_extension("delta");
                let name = extent.file_name().unwrap().to_str().unwrap();
                std::fs::write(&extent, bytes).unwrap();
                let line = format!("RW 4100 VMFSSPARSE \"{name}\"");
                std::fs::write(&target, images::descriptor(4100, "vmfsSparse", &line)).unwrap();
            }
            _ => std::fs::write(&target, bytes).unwrap(),
        }
        trace(|| format!("Spoil {path:?}, kind {kind}"));
        self.put(File { hostile: true, ..File::new(path, Vec::new()) });
    }
}

fn spoilable(kind: u8) -> Built {
    let tiny = SparseSpec::tiny();
    let line = format!("RW {} SPARSE \"bad.vmdk\"", tiny.capacity);
    match kind {
        0 => images::sparse(&SparseSpec::two_tables()),
        1 => images::sparse(&tiny),
        2 => images::sparse(&SparseSpec {
            descriptor: images::child_descriptor("monolithicSparse", &line, "base.vmdk"),
            ..tiny
        }),
        3 => images::stream(StreamLayout::Footer),
        4 => images::stream(StreamLayout::InFront),
        5 => images::cowd(),
        _ => images::sparse(&SparseSpec { flags: 1, ..tiny }),
    }
}
