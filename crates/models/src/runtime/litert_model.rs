//! A model in `LiteRT`: read, with its ports, and compiled.
//!
//! Owns: what is made of a file by the library, and destroyed once. Must not: decide when (`litert_session`).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::RunError;
use super::library::one_line;
use super::litert::{Handle, Layout, Loaded, Status, TensorType, words};
use super::litert_buffer::Buffer;
use crate::config::Datatype;
use crate::error::Error;

/// A shape and the memory for it.
pub(super) type Filled = (Vec<i32>, Buffer);

/// The signature that is run: the first. A model without one has this one nevertheless.
const SIGNATURE: usize = 0;
const CPU: c_int = 1; // kLiteRtHwAcceleratorCpu

/// An input or output as the library has it.
pub(super) struct Port {
    pub(super) name: String,
    pub(super) datatype: Datatype,
    pub(super) element: c_int,
    pub(super) shape: Vec<u64>,
}

/// What the library asks between two operators.
unsafe extern "C" fn is_cancelled(data: *mut c_void) -> bool {
    // SAFETY: it is what `Compiled::of` gave, which lives as long as the session.
    unsafe { &*data.cast::<AtomicBool>() }.load(Ordering::Relaxed)
}

unsafe extern "C" fn free_text(text: *mut c_void) {
    // SAFETY: it is what `Options::add` gave away, and comes back once.
    drop(unsafe { CString::from_raw(text.cast()) });
}

pub(super) struct Model {
    pub(super) loaded: Arc<Loaded>,
    handle: Handle,
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, here, after all that was made of it.
        unsafe { (self.loaded.interface.destroy_model)(self.handle) };
    }
}

pub(super) struct Compiled {
    loaded: Arc<Loaded>,
    handle: Handle,
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, here.
        unsafe { (self.loaded.interface.destroy_compiled)(self.handle) };
    }
}

pub(super) struct Options {
    loaded: Arc<Loaded>,
    handle: Handle,
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once, here.
        unsafe { (self.loaded.interface.destroy_options)(self.handle) };
    }
}

pub(super) fn invalid(message: impl std::fmt::Display) -> Error {
    Error::new("model_invalid", message)
}

pub(super) fn done(status: Status) -> Result<(), Status> {
    match status {
        0 => Ok(()),
        status => Err(status),
    }
}

impl Model {
    pub(super) fn of(loaded: &Arc<Loaded>, file: &[u8]) -> Result<Self, Status> {
        let mut handle = ptr::null_mut();
        // SAFETY: the file outlives the model (`Opened`), and as many bytes of it are there.
        done(unsafe {
            (loaded.interface.create_model)(
                loaded.environment,
                file.as_ptr().cast(),
                file.len(),
                &raw mut handle,
            )
        })?;
        Ok(Self {
            loaded: Arc::clone(loaded),
            handle,
        })
    }

    /// What the first signature takes and gives, in the order of its graph.
    pub(super) fn ports(&self) -> Result<(Vec<Port>, Vec<Port>), Error> {
        let interface = &self.loaded.interface;
        let mut signature = ptr::null_mut();
        let (mut inputs, mut outputs) = (0, 0);
        // SAFETY: the model lives; each call fills the place that it is given.
        let asked = unsafe {
            done((interface.signature)(
                self.handle,
                SIGNATURE,
                &raw mut signature,
            ))
            .and_then(|()| done((interface.count_inputs)(signature, &raw mut inputs)))
            .and_then(|()| done((interface.count_outputs)(signature, &raw mut outputs)))
        };
        asked.map_err(|status| invalid(words(status)))?;
        let port = |index: usize, is_input: bool| {
            let (name, tensor) = match is_input {
                true => (interface.input_name, interface.input_tensor),
                false => (interface.output_name, interface.output_tensor),
            };
            let (mut text, mut handle) = (ptr::null(), ptr::null_mut());
            let mut kind = TensorType::default();
            // SAFETY: as above; the index is below the count.
            let asked = unsafe {
                done(name(signature, index, &raw mut text))
                    .and_then(|()| done(tensor(signature, index, &raw mut handle)))
                    .and_then(|()| done((interface.tensor_type)(handle, &raw mut kind)))
            };
            asked.map_err(|status| invalid(words(status)))?;
            Port::of(text, &kind)
        };
        let taken: Result<Vec<_>, Error> = (0..inputs).map(|it| port(it, true)).collect();
        let given: Result<Vec<_>, Error> = (0..outputs).map(|it| port(it, false)).collect();
        Ok((taken?, given?))
    }
}

impl Port {
    pub(super) fn of(name: *const c_char, kind: &TensorType) -> Result<Self, Error> {
        let no_words = || invalid("the runtime has no words for what it takes or gives");
        let datatype = datatype_of(kind.element).ok_or_else(no_words)?;
        let shape = kind.layout.shape().ok_or_else(no_words)?;
        let shape = shape.iter().map(|it| u64::try_from(*it).unwrap_or(0));
        if name.is_null() {
            return Err(no_words());
        }
        // SAFETY: a C string that lives as long as the model.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        Ok(Self {
            name: name.into_owned(),
            datatype,
            element: kind.element,
            shape: shape.collect(),
        })
    }
}

/// The type of a `LiteRtElementType`.
fn datatype_of(element: c_int) -> Option<Datatype> {
    let datatype = match element {
        1 => Datatype::Fp32,
        2 => Datatype::Int32,
        3 => Datatype::Uint8,
        4 => Datatype::Int64,
        6 => Datatype::Bool,
        7 => Datatype::Int16,
        9 => Datatype::Int8,
        10 => Datatype::Fp16,
        11 => Datatype::Fp64,
        13 => Datatype::Uint64,
        16 => Datatype::Uint32,
        17 => Datatype::Uint16,
        _ => return None,
    };
    Some(datatype)
}

impl Options {
    /// The processor alone; errors are kept for whoever asks.
    pub(super) fn of(loaded: &Arc<Loaded>, threads: usize) -> Result<Self, Status> {
        let mut handle = ptr::null_mut();
        // SAFETY: a place for what is made.
        done(unsafe { (loaded.interface.create_options)(&raw mut handle) })?;
        let options = Self {
            loaded: Arc::clone(loaded),
            handle,
        };
        // SAFETY: the options live.
        done(unsafe { (loaded.interface.set_accelerators)(handle, CPU) })?;
        options.add(c"xnnpack", format!("num_threads = {threads}\n"))?;
        // kLiteRtErrorReporterModeBuffer
        options.add(
            c"runtime_options_string",
            "error_reporter_mode = 2\n".into(),
        )?;
        Ok(options)
    }

    fn add(&self, name: &CStr, text: String) -> Result<(), Status> {
        let text = CString::new(text).map_err(|_| 1)?.into_raw();
        let mut opaque = ptr::null_mut();
        let interface = &self.loaded.interface;
        // SAFETY: two C strings; the second is given away with what frees it.
        done(unsafe {
            (interface.create_opaque)(name.as_ptr(), text.cast(), free_text, &raw mut opaque)
        })?;
        // SAFETY: both live; the options take the other over.
        done(unsafe { (interface.add_opaque)(self.handle, opaque) })
    }
}

impl Compiled {
    pub(super) fn of(
        model: &Model,
        options: &Options,
        cancelled: &AtomicBool,
    ) -> Result<Self, Status> {
        let loaded = &model.loaded;
        let interface = &loaded.interface;
        let mut handle = ptr::null_mut();
        // SAFETY: all three live, and the model longer than what is made of it.
        done(unsafe {
            (interface.compile)(
                loaded.environment,
                model.handle,
                options.handle,
                &raw mut handle,
            )
        })?;
        let compiled = Self {
            loaded: Arc::clone(loaded),
            handle,
        };
        let flag = ptr::from_ref(cancelled).cast_mut().cast();
        // SAFETY: the flag is behind an `Arc` that the session holds for longer than what is compiled.
        done(unsafe { (interface.set_cancellation)(handle, flag, is_cancelled) })?;
        Ok(compiled)
    }

    pub(super) fn input_shape(&self, index: usize) -> Option<Vec<i32>> {
        let mut layout = Layout::default();
        let interface = &self.loaded.interface;
        // SAFETY: a place for what is said.
        let status =
            unsafe { (interface.input_layout)(self.handle, SIGNATURE, index, &raw mut layout) };
        done(status).ok()?;
        layout.shape().map(<[i32]>::to_vec)
    }

    pub(super) fn resize(&self, index: usize, shape: &[i32]) -> Result<(), Status> {
        let resize = self.loaded.interface.resize_input;
        // SAFETY: as many dimensions as is said.
        done(unsafe { resize(self.handle, SIGNATURE, index, shape.as_ptr(), shape.len()) })
    }

    /// The shapes that the outputs have; `plan`: that they will have, if nothing comes to light within the run.
    pub(super) fn output_shapes(&self, count: usize, plan: bool) -> Result<Vec<Vec<i32>>, Status> {
        // The library writes as many dimensions as an output has, also more than a layout has room for.
        const SPARE: usize = 8;
        let mut layouts = vec![Layout::default(); count + SPARE];
        let ask = self.loaded.interface.output_layouts;
        // SAFETY: there is room for as many as is said.
        done(unsafe { ask(self.handle, SIGNATURE, count, layouts.as_mut_ptr(), plan) })?;
        let shape = |it: &Layout| it.shape().map(<[i32]>::to_vec);
        let shapes: Option<_> = layouts.iter().take(count).map(shape).collect();
        shapes.ok_or(5)
    }

    pub(super) fn run(&self, inputs: &[Filled], outputs: &[Filled]) -> Result<(), Status> {
        let handles = |it: &[Filled]| it.iter().map(|it| it.1.handle).collect();
        let (inputs, outputs): (Vec<Handle>, Vec<Handle>) = (handles(inputs), handles(outputs));
        // SAFETY: as many buffers as is said, all of which live; the library fills those of outputs.
        done(unsafe {
            (self.loaded.interface.run)(
                self.handle,
                SIGNATURE,
                inputs.len(),
                inputs.as_ptr(),
                outputs.len(),
                outputs.as_ptr(),
            )
        })
    }

    /// What the library said of the last failure, or what its status says.
    pub(super) fn words(&self, status: Status) -> String {
        let interface = &self.loaded.interface;
        let mut text = ptr::null_mut();
        // SAFETY: a place for a C string, which is then ours to free.
        let said = unsafe {
            let status = (interface.messages)(self.handle, &raw mut text);
            (interface.clear_messages)(self.handle);
            if status == 0 && !text.is_null() {
                let said = one_line(&CStr::from_ptr(text).to_string_lossy());
                libc::free(text.cast());
                said
            } else {
                String::new()
            }
        };
        match said.is_empty() {
            true => words(status),
            false => said,
        }
    }

    /// Why it could not plan: for want of memory, about which the library says no more than this, or of sense.
    pub(super) fn unplanned(&self, status: Status) -> RunError {
        match self.words(status).as_str() {
            "Failed to allocate tensors for execution" => RunError::OutOfMemory,
            words => RunError::Unfit(format!("the model cannot take these shapes: {words}")),
        }
    }
}
