//! The box that a model's process is in from its first moment: before the runtime's library is loaded.
//!
//! Owns: which files it may read. The system's libraries, which the runtime's needs; that one's folder; what says how
//! many processors there are. The model's file is open already. Nothing may be written, and there is no network
//! (`vedette_sandbox::confine_alone`).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vedette_sandbox::{Files, confine_alone};

use crate::config::{Format, Tensor};
use crate::error::Error;
use crate::outline::Outline;
use crate::runtime::{Chosen, Library, Session, Wanted};
use crate::{onnx, sys, tflite};

/// Memory of this process beside the model's: the interpreter's, the runtime's, threads' stacks. What is there when the
/// limit is set comes on top.
const OWN_MEMORY: u64 = 256 << 20;

/// What may be read.
const SYSTEM: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];

/// A model's file, checked, and the runtime that is to load it, both in the box.
pub struct Place {
    /// As the runtime is to have it.
    file: Bytes,
    library: Library,
    /// What the file says of itself.
    pub outline: Outline,
}

impl Place {
    /// Confines this process, which must have one thread, and looks at the file.
    ///
    /// # Errors
    /// `model_missing`, `model_too_large`, `confinement_refused`, those of [`onnx::check`], [`tflite::check`] and
    /// [`Chosen::load`].
    pub fn enter(file: &Path, format: Format, library: &Path, memory: u64) -> Result<Self, Error> {
        let unread = |error: std::io::Error| Error::new("model_missing", error);
        let opened = File::open(file).map_err(unread)?;
        let about = opened.metadata().map_err(unread)?;
        if !about.is_file() || about.len() == 0 {
            return Err(Error::new("model_invalid", "the file is empty, or no file"));
        }
        let most = match format {
            Format::Onnx => onnx::MAX_FILE,
            Format::Tflite => tflite::MAX_FILE,
            Format::Detector => 0, // needs no runtime, and does not come here
        };
        if about.len() > most.min(memory) {
            return Err(Error::new(
                "model_too_large",
                "the file is larger than 2 GiB, or than the memory that the model may have",
            ));
        }
        let chosen = Chosen::of(library, format);
        confine(library, memory)?;
        let file = Bytes::from_owner(sys::map(&opened).map_err(unread)?);
        let (outline, folded) = match format {
            Format::Onnx => (onnx::check(&file)?, None),
            Format::Tflite => (tflite::check(&file)?, tflite::fold(&file)),
            Format::Detector => return Err(Error::new("model_invalid", "it needs no runtime")),
        };
        Ok(Self {
            file: folded.map_or(file, Bytes::from),
            library: chosen.load()?,
            outline,
        })
    }

    /// Such as `onnxruntime 1.31.1`.
    pub fn runtime(&self) -> &str {
        self.library.version()
    }

    /// Makes a session.
    ///
    /// # Errors
    /// Those of the runtime; `model_invalid` when it reads another model in the file than we do.
    pub fn session(&self, threads: usize) -> Result<Box<dyn Session>, Error> {
        let inputs = &self.outline.inputs;
        let wanted = Wanted {
            threads,
            has_one_shape: inputs.iter().all(|it| !it.shape.contains(&0)),
            keeps_state: self.outline.keeps_state,
        };
        let session = self.library.session(&self.file, wanted)?;
        let (takes, gives) = session.ports();
        if !agree(inputs, &takes) || !agree(&self.outline.outputs, &gives) {
            let message = "the runtime finds other inputs or outputs in it than it names";
            return Err(Error::new("model_invalid", message));
        }
        Ok(session)
    }
}

/// Whether both are the same tensors. Shapes the runtime may know better than the file says.
pub fn agree(some: &[Tensor], others: &[Tensor]) -> bool {
    let outline = |it: &Tensor| (it.name.clone(), it.datatype);
    some.iter().map(outline).eq(others.iter().map(outline))
}

/// Puts this process, which must have one thread, into the box of one whose runtime is `library`; an empty
/// path: it has none.
///
/// # Errors
/// `confinement_refused`.
pub fn confine(library: &Path, memory: u64) -> Result<(), Error> {
    let refused = |error: std::io::Error| Error::new("confinement_refused", error);
    sys::limit_memory(
        memory_now()
            .saturating_add(memory)
            .saturating_add(OWN_MEMORY),
    )
    .map_err(refused)?;
    sys::forbid_dumps();
    let mut read: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    // What it is linked to may lie beside it; a link leads to where it lies itself.
    let real = library.canonicalize().unwrap_or_else(|_| library.into());
    let folders = [library, &real].map(Path::parent);
    read.extend(folders.into_iter().flatten().map(PathBuf::from));
    Ok(confine_alone(&Files {
        read,
        write: vec![],
    })?)
}

/// What counts against the limit now, in bytes (`VmData`).
fn memory_now() -> u64 {
    let mut status = String::new();
    let read =
        File::open("/proc/self/status").and_then(|it| it.take(1 << 16).read_to_string(&mut status));
    let kib = read.ok().and_then(|_| {
        let line = status.lines().find_map(|it| it.strip_prefix("VmData:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    kib.unwrap_or(0).saturating_mul(1024)
}
