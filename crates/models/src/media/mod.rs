//! Bytes that are no tensors: pictures, sounds and texts as the body of a request.
//!
//! Owns: which of them a model takes, how they become its inputs, and where that is done: on threads for it, of which as
//! many work at once as there are sessions, since a picture takes longer to read than some models to run. What that
//! takes counts as part of the run, and waiting for it as waiting for a session. It may take as long as a run.
//!
//! A body is the bytes themselves, and `content-type` says which. A request that has more to say (outputs, `id`) says it
//! in the JSON of the protocol before them, whose length `inference-header-content-length` tells, as for binary tensors.
//!
//! Must not: make more of a few bytes than memory has room for.

mod ask;
mod elements;
mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod jpeg;
mod picture;
mod sound;
pub mod spec;
mod text;
mod until;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod until_tests;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use http::HeaderValue;

use crate::config::Served;
use crate::error::Error;
use crate::oip::Refusal;
use crate::reading::Reader;
use crate::reading::spec::Output;
use crate::runtime::Data;

pub use ask::{Desk, Reply, Time};
pub use frame::Frame;
use picture::Pictures;
use sound::Sounds;
use spec::Input;
use text::Texts;
pub use until::Until;

/// Bytes of a file that a model needs beside its own.
const MOST_FILE: u64 = 32 << 20;

/// The files that a model needs beside its own, opened before the box closes.
pub struct Files(HashMap<String, File>);

impl Files {
    /// Opens them.
    ///
    /// # Errors
    /// `model_missing`.
    pub fn open(paths: &HashMap<String, PathBuf>) -> Result<Self, Error> {
        let open = |(role, path): (&String, &PathBuf)| match File::open(path) {
            Ok(file) => Ok((role.clone(), file)),
            Err(error) => Err(Error::new(
                "model_missing",
                format_args!("its {role}: {error}"),
            )),
        };
        paths.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    fn read(&mut self, role: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = self.0.remove(role) else {
            return Ok(None);
        };
        let unread = |error: std::io::Error| Error::new("model_missing", error);
        let mut bytes = vec![];
        file.take(MOST_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(unread)?;
        match bytes.len() as u64 > MOST_FILE {
            true => Err(Error::new("model_too_large", format_args!("its {role}"))),
            false => Ok(Some(bytes)),
        }
    }
}

/// What a model takes beside tensors.
pub enum Feed {
    /// Pictures.
    Pictures(Pictures),
    /// Sounds.
    Sounds(Sounds),
    /// Texts.
    Texts(Box<Texts>),
}

/// The inputs that bytes became.
pub struct Fed {
    /// In the model's order.
    pub inputs: Vec<Data>,
    /// Where a picture lies in the tensor.
    pub frame: Option<Frame>,
}

impl Feed {
    /// What `served` takes.
    fn new(served: &Served, files: &mut Files) -> Result<Option<Self>, Error> {
        let Some(input) = &served.input else {
            return Ok(None);
        };
        let tensor = |name: &str| {
            let found = served.inputs.iter().find(|it| it.name == name);
            found.ok_or_else(|| Error::new("model_mismatch", format_args!("it takes no {name:?}")))
        };
        let sessions = u64::try_from(served.sessions.max(1)).unwrap_or(u64::MAX);
        let memory = served.limits.memory_bytes / sessions;
        let feed = match input {
            Input::Image(spec) => {
                Self::Pictures(Pictures::new(spec, tensor(&spec.tensor)?, memory))
            }
            Input::Audio(spec) => Self::Sounds(Sounds::new(spec, tensor(&spec.tensor)?, memory)),
            Input::Text(spec) => {
                let file = files.read("tokenizer")?;
                let file = file.ok_or_else(|| Error::new("tokenizer_invalid", "there is none"))?;
                Self::Texts(Box::new(Texts::new(spec, &served.inputs, &file)?))
            }
        };
        Ok(Some(feed))
    }

    /// The types of content that it takes.
    fn types(&self) -> &'static [&'static str] {
        match self {
            Self::Pictures(_) => &["image/jpeg", "image/png"],
            Self::Sounds(_) => &["audio/wav"],
            Self::Texts(_) => &["text/plain"],
        }
    }

    /// Makes inputs of bytes.
    ///
    /// # Errors
    /// 400: they are not what is taken. 504: there is no time left.
    pub fn read(&self, until: &Until, bytes: &[u8]) -> Result<Fed, Refusal> {
        let (inputs, frame) = match self {
            Self::Pictures(pictures) => {
                let (data, frame) = pictures.read(until, bytes)?;
                (vec![data], Some(frame))
            }
            Self::Sounds(sounds) => (vec![sounds.read(until, bytes)?], None),
            Self::Texts(texts) => (texts.read(until, bytes)?, None),
        };
        Ok(Fed { inputs, frame })
    }
}

/// The type of content without parameters, if it is one of those that are no tensors, under its usual name. Tensors are
/// JSON, or bytes; a form is what clients say (`curl -d`) that were told nothing.
fn medium(content_type: Option<&HeaderValue>) -> Option<String> {
    let text = String::from_utf8_lossy(content_type?.as_bytes());
    let essence = text.split(';').next()?.trim().to_ascii_lowercase();
    let usual = match essence.as_str() {
        "image/jpg" | "image/pjpeg" => "image/jpeg".into(),
        "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => "audio/wav".into(),
        _ => essence,
    };
    let is_tensors = match usual.strip_prefix("application/") {
        None => usual.is_empty(),
        Some("json" | "octet-stream" | "x-www-form-urlencoded") => true,
        Some(kind) => kind.ends_with("+json"),
    };
    (!is_tensors).then_some(usual)
}

/// Opens what `served` is fed and read by, and names what is read among its outputs.
///
/// # Errors
/// `model_mismatch`, `tokenizer_invalid`, `names_invalid`, `model_too_large`.
pub fn prepare(served: &mut Served, mut files: Files) -> Result<Desk, Error> {
    let feed = Feed::new(served, &mut files)?;
    let names = files.read("names")?;
    let reader = Reader::new(served, names.as_deref())?;
    let read = served.output.as_ref().map(Output::tensors);
    served.read = read.unwrap_or_default();
    served.media = feed.as_ref().map_or(&[], Feed::types);
    let frame = match &served.input {
        // Of tensors, boxes are told in their own pixels.
        Some(Input::Image(spec)) => Some(Frame::none(spec)),
        _ => None,
    };
    Ok(Desk::new(
        feed,
        reader,
        frame,
        served.sessions.max(1),
        served.limits.queue,
    ))
}
