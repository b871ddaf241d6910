//! Memory of `LiteRT` for one tensor.
//!
//! Owns: what is lent to the library: it reads some bytes beyond the end of inputs, for which there is room in memory that
//! it made itself. Must not: know which tensor it is for.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;

use super::RunError;
use super::litert::{Handle, Layout, Loaded, TensorType, words};
use super::litert_model::Port;
use crate::config::Datatype;

const HOST_MEMORY: c_int = 1; // kLiteRtTensorBufferTypeHostMemory
const READ: c_int = 0; // kLiteRtTensorBufferLockModeRead
const WRITE: c_int = 1;

/// A tensor's memory, as the library wants it aligned.
pub(super) struct Buffer {
    loaded: Arc<Loaded>,
    pub(super) handle: Handle,
    size: usize,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, here.
        unsafe { (self.loaded.interface.destroy_buffer)(self.handle) };
    }
}

/// Bytes of a tensor; `None`: more than there can be.
pub(super) fn length(datatype: Datatype, shape: &[i32]) -> Option<usize> {
    shape
        .iter()
        .try_fold(datatype.size()?, |length, dimension| {
            length.checked_mul(usize::try_from(*dimension).ok()?)
        })
}

impl Buffer {
    /// One for a tensor of this shape.
    pub(super) fn of(loaded: &Arc<Loaded>, port: &Port, shape: &[i32]) -> Result<Self, RunError> {
        let size = length(port.datatype, shape);
        let size = size.ok_or(RunError::OutOfMemory)?;
        let kind = TensorType {
            element: port.element,
            layout: Layout::of(shape),
        };
        let mut handle = ptr::null_mut();
        let create = loaded.interface.create_buffer;
        // SAFETY: a type, and a place for what is made.
        let status = unsafe {
            create(
                loaded.environment,
                HOST_MEMORY,
                &raw const kind,
                size,
                &raw mut handle,
            )
        };
        match (status, handle.is_null()) {
            (0, false) => Ok(Self {
                loaded: Arc::clone(loaded),
                handle,
                size,
            }),
            _ => Err(RunError::OutOfMemory),
        }
    }

    /// Has `with` see the memory: `size` bytes at where it is told.
    fn locked<T>(&self, mode: c_int, with: impl FnOnce(*mut u8) -> T) -> Result<T, RunError> {
        let interface = &self.loaded.interface;
        let mut memory = ptr::null_mut();
        // SAFETY: a place for where it is; what is locked is unlocked below.
        let status = unsafe { (interface.lock_buffer)(self.handle, &raw mut memory, mode) };
        if status != 0 || memory.is_null() {
            return Err(RunError::Failed(words(status)));
        }
        let seen = with(memory.cast());
        // SAFETY: it was locked above.
        unsafe { (interface.unlock_buffer)(self.handle) };
        Ok(seen)
    }

    pub(super) fn write(&self, elements: &[u8]) -> Result<(), RunError> {
        if elements.len() != self.size {
            let message = "an input has not as many elements as its shape says";
            return Err(RunError::Failed(message.into()));
        }
        // SAFETY: there are as many bytes, and nobody else sees them.
        self.locked(WRITE, |memory| unsafe {
            ptr::copy_nonoverlapping(elements.as_ptr(), memory, self.size);
        })
    }

    pub(super) fn mark(&self, mark: u8) -> Result<(), RunError> {
        // SAFETY: as above.
        self.locked(WRITE, |memory| unsafe {
            ptr::write_bytes(memory, mark, self.size);
        })
    }

    /// The first bytes; `None`: there are fewer, or they are nothing but the mark.
    pub(super) fn written(&self, mark: u8, length: usize) -> Result<Option<Bytes>, RunError> {
        if length > self.size {
            return Ok(None);
        }
        // SAFETY: there are as many bytes, and nobody changes them meanwhile.
        self.locked(READ, |memory| unsafe {
            let bytes = std::slice::from_raw_parts(memory, length);
            let is_marked = !bytes.is_empty() && bytes.iter().all(|it| *it == mark);
            (!is_marked).then(|| Bytes::copy_from_slice(bytes))
        })
    }
}
