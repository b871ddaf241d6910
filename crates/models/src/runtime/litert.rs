//! The library of `LiteRT` (TensorFlow Lite): loaded, silent, on the processor alone.
//!
//! Owns: its C interface, of which only what is used is declared, and what of it is expected. The library says no version
//! of itself, so two things are asked: whether it has what came with 2.2 (`kLiteRtRuntimeBuiltin`), since functions had
//! other arguments before, and which version the package says that it lies in. Within one major version arguments stay
//! (`litert_runtime_c_api.h`).
//!
//! Accelerators are libraries beside this one, and may open devices: only the processor's is registered. No compiler, no
//! cache, no folder of plugins is named, so it reads no other file and writes none.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use bytes::Bytes;

use super::litert_session::Opened;
use super::{Session, Wanted};
use crate::error::Error;

/// What this was written for: `2.2 <= version < 3`.
const MAJOR: u32 = 2;
const MINOR: u32 = 2;
/// The folder in which its package says its version.
const PACKAGE: &str = "ai_edge_litert-";
const MAX_PACKAGES: usize = 100_000;

/// Something of the library's that only it looks into.
pub(super) type Handle = *mut c_void;
pub(super) type Status = c_int;

/// `LiteRtRankedTensorType`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct TensorType {
    pub(super) element: c_int,
    pub(super) layout: Layout,
}

/// `LiteRtLayout`: seven bits of rank, one that says whether there are strides.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Layout {
    rank: u32,
    dimensions: [i32; 8],
    strides: [u32; 8],
}

const _: () = assert!(size_of::<TensorType>() == 72 && size_of::<EnvironmentOption>() == 24);

impl Layout {
    /// One with these dimensions, of which there are no more than it has room for.
    pub(super) fn of(shape: &[i32]) -> Self {
        let mut layout = Self::default();
        for (place, dimension) in layout.dimensions.iter_mut().zip(shape) {
            *place = *dimension;
            layout.rank += 1;
        }
        layout
    }

    /// Its dimensions; `None`: more than there is room for.
    pub(super) fn shape(&self) -> Option<&[i32]> {
        self.dimensions
            .get(..usize::try_from(self.rank & 0x7f).ok()?)
    }
}

/// `LiteRtEnvOption`: a tag and a `LiteRtAny`, here a number. C leaves four bytes before both kind and value.
#[repr(C)]
struct EnvironmentOption {
    tag: c_int,
    value: Any,
}

#[repr(C)]
struct Any {
    // Aligned as the union behind it is.
    kind: i64,
    number: i64,
}

impl EnvironmentOption {
    fn number(tag: c_int, number: i64) -> Self {
        /// `kLiteRtAnyTypeInt`; the upper half of it is the padding of C.
        const INT: i64 = 2;
        let value = Any { kind: INT, number };
        Self { tag, value }
    }
}

macro_rules! interface {
    ($($(#[$about:meta])* $field:ident = $name:literal: fn($($argument:ty),*) $(-> $gives:ty)?;)*) => {
        /// The functions that are used, by their names in the library.
        pub(super) struct Interface {
            $($(#[$about])* pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $gives)?,)*
        }

        impl Interface {
            /// Looks them up. `Err`: the name of one that there is not.
            fn of(library: Handle) -> Result<Self, &'static CStr> {
                Ok(Self { $($field: {
                    let name: &CStr = $name;
                    // SAFETY: an open library and a C string.
                    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
                    if found.is_null() {
                        return Err(name);
                    }
                    // SAFETY: under this name the library has a function of this type (its headers, `litert/c`).
                    unsafe {
                        std::mem::transmute::<Handle, unsafe extern "C" fn($($argument),*) $(-> $gives)?>(found)
                    }
                },)* })
            }
        }
    };
}

interface! {
    create_environment = c"LiteRtCreateEnvironment": fn(c_int, *const c_void, *mut Handle) -> Status;
    create_model = c"LiteRtCreateModelFromBuffer": fn(Handle, *const c_void, usize, *mut Handle) -> Status;
    destroy_model = c"LiteRtDestroyModel": fn(Handle);
    signature = c"LiteRtGetModelSignature": fn(Handle, usize, *mut Handle) -> Status;
    count_inputs = c"LiteRtGetNumSignatureInputs": fn(Handle, *mut usize) -> Status;
    count_outputs = c"LiteRtGetNumSignatureOutputs": fn(Handle, *mut usize) -> Status;
    input_name = c"LiteRtGetSignatureInputName": fn(Handle, usize, *mut *const c_char) -> Status;
    output_name = c"LiteRtGetSignatureOutputName": fn(Handle, usize, *mut *const c_char) -> Status;
    input_tensor = c"LiteRtGetSignatureInputTensorByIndex": fn(Handle, usize, *mut Handle) -> Status;
    output_tensor = c"LiteRtGetSignatureOutputTensorByIndex": fn(Handle, usize, *mut Handle) -> Status;
    tensor_type = c"LiteRtGetRankedTensorType": fn(Handle, *mut TensorType) -> Status;
    create_options = c"LiteRtCreateOptions": fn(*mut Handle) -> Status;
    destroy_options = c"LiteRtDestroyOptions": fn(Handle);
    set_accelerators = c"LiteRtSetOptionsHardwareAccelerators": fn(Handle, c_int) -> Status;
    create_opaque = c"LiteRtCreateOpaqueOptions":
        fn(*const c_char, *mut c_void, unsafe extern "C" fn(*mut c_void), *mut Handle) -> Status;
    add_opaque = c"LiteRtAddOpaqueOptions": fn(Handle, Handle) -> Status;
    compile = c"LiteRtCreateCompiledModel": fn(Handle, Handle, Handle, *mut Handle) -> Status;
    destroy_compiled = c"LiteRtDestroyCompiledModel": fn(Handle);
    input_layout = c"LiteRtGetCompiledModelInputTensorLayout": fn(Handle, usize, usize, *mut Layout) -> Status;
    output_layouts = c"LiteRtGetCompiledModelOutputTensorLayouts":
        fn(Handle, usize, usize, *mut Layout, bool) -> Status;
    resize_input = c"LiteRtCompiledModelResizeInputTensor": fn(Handle, usize, usize, *const c_int, usize) -> Status;
    set_cancellation = c"LiteRtSetCompiledModelCancellationFunction":
        fn(Handle, *mut c_void, unsafe extern "C" fn(*mut c_void) -> bool) -> Status;
    run = c"LiteRtRunCompiledModel": fn(Handle, usize, usize, *const Handle, usize, *const Handle) -> Status;
    messages = c"LiteRtCompiledModelGetErrorMessages": fn(Handle, *mut *mut c_char) -> Status;
    clear_messages = c"LiteRtCompiledModelClearErrors": fn(Handle) -> Status;
    create_buffer = c"LiteRtCreateManagedTensorBuffer":
        fn(Handle, c_int, *const TensorType, usize, *mut Handle) -> Status;
    lock_buffer = c"LiteRtLockTensorBuffer": fn(Handle, *mut *mut c_void, c_int) -> Status;
    unlock_buffer = c"LiteRtUnlockTensorBuffer": fn(Handle) -> Status;
    destroy_buffer = c"LiteRtDestroyTensorBuffer": fn(Handle);
}

/// The library and its one environment, which stay until the process ends.
pub(super) struct Loaded {
    pub(super) interface: Interface,
    pub(super) environment: Handle,
}

// SAFETY: the functions may be called from any thread, and the environment is only read once it is made.
unsafe impl Send for Loaded {}
// SAFETY: as above.
unsafe impl Sync for Loaded {}

/// The library, loaded and silent.
pub struct Library {
    loaded: Arc<Loaded>,
    version: String,
}

/// Which version the package says that `library` lies in, by the folder beside it (`ai_edge_litert-2.3.0.dist-info`).
/// To be asked before this process is confined, after which that folder cannot be read.
pub fn version_beside(library: &Path) -> Option<String> {
    let packages = library.parent()?.parent()?.read_dir().ok()?;
    packages.take(MAX_PACKAGES).flatten().find_map(|it| {
        let name = it.file_name().into_string().ok()?;
        let version = name.strip_prefix(PACKAGE)?.strip_suffix(".dist-info")?;
        Some(version.to_owned())
    })
}

fn unusable(error: impl std::fmt::Display) -> Error {
    Error::new("runtime_invalid", error)
}

/// Whether a version is one that this was written for.
fn require_version(version: Option<&str>) -> Result<&str, Error> {
    let Some(version) = version else {
        let message = "it does not lie in its package, so its version is not known";
        return Err(unusable(message));
    };
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let wanted = format_args!("{MAJOR}.{MINOR} or newer of {MAJOR}.x is needed").to_string();
    match (numbers.next(), numbers.next()) {
        (Some(Ok(MAJOR)), Some(Ok(minor))) if minor >= MINOR => Ok(version),
        (Some(Ok(major)), Some(Ok(_))) if major <= MAJOR => Err(Error::new(
            "runtime_too_old",
            format_args!("it is LiteRT {version}; {wanted}"),
        )),
        _ => Err(unusable(format_args!("it is LiteRT {version}; {wanted}"))),
    }
}

impl Library {
    /// Loads the library at `path`, which is of `version` ([`version_beside`]).
    pub(super) fn load(path: &Path, version: Option<&str>) -> Result<Self, Error> {
        super::library::require_file(path)?;
        let version = require_version(version)?;
        let shown = path.display();
        let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
            return Err(unusable(format_args!("{shown} is no path")));
        };
        let library = super::library::open(&name)?;
        // SAFETY: an open library and a C string.
        let table = unsafe { libc::dlsym(library, c"kLiteRtRuntimeBuiltin".as_ptr()) };
        let interface = Interface::of(library).map_err(|name| {
            unusable(format_args!(
                "{shown} has no function {}",
                name.to_string_lossy()
            ))
        })?;
        if table.is_null() {
            let message = format_args!("{shown} is LiteRT before {MAJOR}.{MINOR}");
            return Err(Error::new("runtime_too_old", message));
        }
        let environment = environment(&interface)?;
        Ok(Self {
            loaded: Arc::new(Loaded {
                interface,
                environment,
            }),
            version: format!("litert {version}"),
        })
    }

    /// Such as `litert 2.3.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Makes a session of a file that was checked.
    ///
    /// # Errors
    /// `model_invalid`.
    pub fn session(&self, file: &Bytes, wanted: Wanted) -> Result<Box<dyn Session>, Error> {
        let opened = Opened::new(&self.loaded, file.clone(), wanted)?;
        Ok(Box::new(opened))
    }
}

/// An environment in which nothing but the processor runs models, and nothing is said.
fn environment(interface: &Interface) -> Result<Handle, Error> {
    // `kLiteRtEnvOptionTagAutoRegisterAccelerators`: `kLiteRtHwAcceleratorCpu`; `…MinLoggerSeverity`: silent.
    let options = [(24, 1), (25, 4)].map(|(tag, number)| EnvironmentOption::number(tag, number));
    let mut environment = ptr::null_mut();
    // SAFETY: as many options as is said, which the library copies, and a place for what it makes.
    let status =
        unsafe { (interface.create_environment)(2, options.as_ptr().cast(), &raw mut environment) };
    match (status, environment.is_null()) {
        (0, false) => Ok(environment),
        _ => Err(unusable(format_args!(
            "LiteRT could not be started ({status})"
        ))),
    }
}

/// What a status says (`LiteRtStatus`).
pub(super) fn words(status: Status) -> String {
    let words = match status {
        1 => "an argument is not sound",
        2 => "there is not enough memory",
        3 => "it failed while it ran",
        5 => "it is not supported",
        501 => "the file is not sound",
        504 => "it could not be compiled",
        _ => "it failed",
    };
    format!("{words} (LiteRT's status {status})")
}
