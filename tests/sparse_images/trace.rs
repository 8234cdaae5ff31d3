//! A storage that remembers what was done to it, and fails when told to.

use std::sync::Mutex;

use vixDiskLib::error::Error;
use vixDiskLib::error::ErrorKind;
use vixDiskLib::error::Result;
use vixDiskLib::storage::Storage;

/// One change of a storage.
#[derive(Clone, Debug)]
pub enum Op {
    Write { at: u64, bytes: Vec<u8> },
    Length(u64),
    Flush,
}

/// Bytes in memory with the list of their changes.
#[derive(Debug)]
pub struct Trace {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: Vec<u8>,
    ops: Vec<Op>,
    /// Changes and flushes until one fails; further ones succeed again.
    fail_in: Option<usize>,
    /// The failing write leaves a part of its bytes.
    partly: bool,
}

pub fn apply(bytes: &mut Vec<u8>, op: &Op) {
    match op {
        Op::Write { at, bytes: new } => {
            let end = *at as usize + new.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*at as usize..end].copy_from_slice(new);
        }
        Op::Length(len) => bytes.resize(*len as usize, 0),
        Op::Flush => {}
    }
}

impl Trace {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { state: Mutex::new(State { bytes, ops: Vec::new(), fail_in: None, partly: false }) }
    }

    pub fn fail_in(&self, n: usize, partly: bool) {
        let mut state = self.state.lock().unwrap();
        state.fail_in = Some(n);
        state.partly = partly;
    }

    /// True when the failure has happened.
    pub fn has_failed(&self) -> bool {
        self.state.lock().unwrap().fail_in.is_none()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().bytes.clone()
    }

    pub fn ops(&self) -> Vec<Op> {
        self.state.lock().unwrap().ops.clone()
    }

    pub fn op_count(&self) -> usize {
        self.state.lock().unwrap().ops.len()
    }

    fn change(&self, op: Op) -> Result<()> {
        let state = &mut *self.state.lock().unwrap();
        match &mut state.fail_in {
            Some(0) => {
                state.fail_in = None;
                if let (Op::Write { at, bytes }, true) = (&op, state.partly) {
                    let part = Op::Write { at: *at, bytes: bytes[..bytes.len() / 2].to_vec() };
                    apply(&mut state.bytes, &part);
                }
                return Err(Error::new(ErrorKind::DiskFull, "told to fail"));
            }
            Some(n) => *n -= 1,
            None => {}
        }
        apply(&mut state.bytes, &op);
        state.ops.push(op);
        Ok(())
    }
}

impl Storage for Trace {
    fn size(&self) -> Result<u64> {
        Ok(self.state.lock().unwrap().bytes.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        match self.state.lock().unwrap().bytes.get(offset as usize..offset as usize + buf.len()) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::new(ErrorKind::EndOfFile, format!("{} bytes at {offset:#x}", buf.len()))),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.change(Op::Write { at: offset, bytes: buf.to_vec() })
    }

    fn flush(&self) -> Result<()> {
        self.change(Op::Flush)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(Op::Length(len))
    }

    fn label(&self) -> String {
        "trace".into()
    }
}
