//! Tensors of ONNX Runtime: made of what came in, read when they come out.
//!
//! Through the C interface itself: `ort`'s own tensors need a type that is known when it compiles, and copy texts through
//! C strings, which end at the first zero. Owns: what is lent to the runtime and what it lends.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};

use bytes::Bytes;
use ort::AsPointer;
use ort::memory::Allocator;
use ort::sys::{ONNXTensorElementDataType, OrtStatusPtr, OrtValue};

use super::{Data, texts};
use crate::config::Datatype;

/// Outputs up to this size are copied, so that the tensor goes back at once; a larger one is sent from where it lies.
const COPIED: usize = 16 * 1024;

/// What a call of the interface says.
pub(super) fn done(status: OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: it comes from a call of the interface and is given on once.
    unsafe { ort::Error::result_from_status(status) }
}

fn kind(datatype: Datatype) -> ONNXTensorElementDataType {
    use ONNXTensorElementDataType as Kind;
    match datatype {
        Datatype::Bool => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        Datatype::Uint8 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        Datatype::Uint16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        Datatype::Uint32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        Datatype::Uint64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        Datatype::Int8 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        Datatype::Int16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        Datatype::Int32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        Datatype::Int64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        Datatype::Fp16 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        Datatype::Fp32 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        Datatype::Fp64 => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        Datatype::Bytes => Kind::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

/// A tensor of the runtime, ours alone.
pub(super) struct Value(NonNull<OrtValue>);

// SAFETY: nothing else has the pointer, and the runtime lets a tensor be read and released on any thread.
unsafe impl Send for Value {}
impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: it is released once, here.
        unsafe { (ort::api().ReleaseValue)(self.0.as_ptr()) };
    }
}

impl Value {
    /// Where it is.
    pub(super) fn pointer(&self) -> *const OrtValue {
        self.0.as_ptr()
    }

    /// A tensor of this data; the elements must outlive it.
    pub(super) fn of(data: &Data) -> ort::Result<Self> {
        let elements = &data.elements;
        match data.datatype.size() {
            None => Self::texts(data, elements),
            Some(size) if elements.as_ptr().addr().is_multiple_of(size) && !elements.is_empty() => {
                Self::lent(data, elements)
            }
            Some(size) => Self::copied(data, elements, size),
        }
    }

    /// A tensor over memory that is ours; the runtime only reads inputs.
    fn lent(data: &Data, bytes: &[u8]) -> ort::Result<Self> {
        let allocator = Allocator::default();
        let mut value = ptr::null_mut();
        // SAFETY: the memory outlives the tensor (`run` holds both, and `read` keeps it for outputs), is aligned for
        // its elements, and as long as the shape says (checked when it was decoded; the runtime checks again).
        done(unsafe {
            (ort::api().CreateTensorWithDataAsOrtValue)(
                allocator.memory_info().ptr(),
                bytes.as_ptr().cast_mut().cast(),
                bytes.len(),
                data.shape.as_ptr(),
                data.shape.len(),
                kind(data.datatype),
                &raw mut value,
            )
        })?;
        Self::made(value)
    }

    /// A tensor with memory of its own.
    fn empty(data: &Data) -> ort::Result<Self> {
        let allocator = Allocator::default();
        let mut value = ptr::null_mut();
        // SAFETY: the shape lives through the call.
        done(unsafe {
            (ort::api().CreateTensorAsOrtValue)(
                allocator.ptr().cast_mut(),
                data.shape.as_ptr(),
                data.shape.len(),
                kind(data.datatype),
                &raw mut value,
            )
        })?;
        Self::made(value)
    }

    pub(super) fn made(value: *mut OrtValue) -> ort::Result<Self> {
        let value = NonNull::new(value).ok_or_else(|| ort::Error::new("no tensor was made"))?;
        Ok(Self(value))
    }

    fn copied(data: &Data, bytes: &[u8], size: usize) -> ort::Result<Self> {
        let value = Self::empty(data)?;
        let (datatype, shape) = value.outline()?;
        if datatype != Some(data.datatype) || length(size, &shape) != Some(bytes.len()) {
            return Err(ort::Error::new("a tensor is not as long as its shape says"));
        }
        if !bytes.is_empty() {
            // SAFETY: the tensor was just made with room for as many bytes, and nobody else has it.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), value.memory()?, bytes.len()) };
        }
        Ok(value)
    }

    fn texts(data: &Data, elements: &[u8]) -> ort::Result<Self> {
        if length(1, &data.shape) != Some(texts(elements).count()) {
            return Err(ort::Error::new(
                "a tensor has not as many texts as its shape says",
            ));
        }
        let value = Self::empty(data)?;
        for (place, text) in texts(elements).enumerate() {
            let mut memory: *mut c_char = ptr::null_mut();
            // SAFETY: the place is within the tensor, which has as many texts as its shape says.
            done(unsafe {
                (ort::api().GetResizedStringTensorElementBuffer)(
                    value.0.as_ptr(),
                    place,
                    text.len(),
                    &raw mut memory,
                )
            })?;
            if !text.is_empty() {
                // SAFETY: the runtime has made room for as many bytes there.
                unsafe { ptr::copy_nonoverlapping(text.as_ptr().cast(), memory, text.len()) };
            }
        }
        Ok(value)
    }

    fn memory(&self) -> ort::Result<*mut u8> {
        let mut memory: *mut c_void = ptr::null_mut();
        // SAFETY: the tensor lives.
        done(unsafe { (ort::api().GetTensorMutableData)(self.0.as_ptr(), &raw mut memory) })?;
        Ok(memory.cast())
    }

    /// Type and shape, as the runtime says them.
    fn outline(&self) -> ort::Result<(Option<Datatype>, Vec<i64>)> {
        let api = ort::api();
        let mut info = ptr::null_mut();
        // SAFETY: the tensor lives; the description is released below, once.
        done(unsafe { (api.GetTensorTypeAndShape)(self.0.as_ptr(), &raw mut info) })?;
        // A number and not the enumeration: a newer library may know more of them.
        let (mut number, mut rank, mut shape) = (0_i32, 0_usize, vec![]);
        // SAFETY: `info` is valid until it is released; `shape` has room for as many numbers as is said.
        let asked = unsafe {
            done((api.GetTensorElementType)(info, (&raw mut number).cast()))
                .and_then(|()| done((api.GetDimensionsCount)(info, &raw mut rank)))
                .and_then(|()| {
                    shape.resize(rank, 0_i64);
                    done((api.GetDimensions)(info, shape.as_mut_ptr(), rank))
                })
        };
        // SAFETY: it came from the runtime and is used no more.
        unsafe { (api.ReleaseTensorTypeAndShapeInfo)(info) };
        asked?;
        Ok((Datatype::of_onnx(number.into()), shape))
    }

    /// What came out. An output may lie in the memory of an input, which is therefore kept for as long.
    pub(super) fn read(self, inputs: &[Data]) -> ort::Result<Data> {
        let mut is_tensor = 0;
        // SAFETY: the value lives.
        done(unsafe { (ort::api().IsTensor)(self.0.as_ptr(), &raw mut is_tensor) })?;
        let (datatype, shape) = match is_tensor {
            0 => return Err(ort::Error::new("an output is no tensor")),
            _ => self.outline()?,
        };
        let Some(datatype) = datatype else {
            return Err(ort::Error::new("an output has elements of an unknown type"));
        };
        let elements = match datatype.size() {
            None => self.read_texts(&shape)?,
            Some(size) => {
                let length = length(size, &shape)
                    .ok_or_else(|| ort::Error::new("an output is larger than memory"))?;
                self.read_fixed(length, inputs)?
            }
        };
        Ok(Data {
            datatype,
            shape,
            elements,
        })
    }

    fn read_fixed(self, length: usize, inputs: &[Data]) -> ort::Result<Bytes> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let memory = self.memory()?;
        if length <= COPIED {
            // SAFETY: the runtime says that the tensor has as many bytes; it lives until the end of this function.
            let bytes = unsafe { std::slice::from_raw_parts(memory, length) };
            return Ok(Bytes::copy_from_slice(bytes));
        }
        Ok(Bytes::from_owner(Lying {
            memory: NonNull::new(memory)
                .ok_or_else(|| ort::Error::new("an output lies nowhere"))?,
            length,
            _value: self,
            _inputs: inputs.iter().map(|it| it.elements.clone()).collect(),
        }))
    }

    fn read_texts(&self, shape: &[i64]) -> ort::Result<Bytes> {
        let count = length(1, shape).unwrap_or(0);
        if count == 0 {
            return Ok(Bytes::new());
        }
        let mut total = 0;
        // SAFETY: the tensor lives.
        done(unsafe { (ort::api().GetStringTensorDataLength)(self.0.as_ptr(), &raw mut total) })?;
        let (mut content, mut starts) = (vec![0_u8; total], vec![0_usize; count]);
        // SAFETY: both have the room that is said.
        done(unsafe {
            (ort::api().GetStringTensorContent)(
                self.0.as_ptr(),
                content.as_mut_ptr().cast(),
                total,
                starts.as_mut_ptr(),
                count,
            )
        })?;
        let mut elements = Vec::with_capacity(total + 4 * count);
        let ends = starts.iter().skip(1).copied().chain([total]);
        for (start, end) in starts.iter().copied().zip(ends) {
            let text = content.get(start..end);
            let length = text.and_then(|it| u32::try_from(it.len()).ok());
            let (Some(text), Some(length)) = (text, length) else {
                return Err(ort::Error::new("an output's texts have no sound places"));
            };
            elements.extend_from_slice(&length.to_le_bytes());
            elements.extend_from_slice(text);
        }
        Ok(elements.into())
    }
}

/// Bytes of a tensor with elements of this size; `None`: more than there can be.
fn length(size: usize, shape: &[i64]) -> Option<usize> {
    shape.iter().try_fold(size, |length, dimension| {
        usize::try_from(*dimension).ok()?.checked_mul(length)
    })
}

/// Elements where the runtime has them.
struct Lying {
    memory: NonNull<u8>,
    length: usize,
    _value: Value,
    _inputs: Vec<Bytes>,
}

// SAFETY: the memory belongs to the tensor or to the inputs, which go with it and may be read and released anywhere.
unsafe impl Send for Lying {}

impl AsRef<[u8]> for Lying {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the tensor, or the input that it lies in, lives as long as `self`, has as many bytes, and is not
        // written to any more.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.length) }
    }
}
