//! Trees of files, answered from blobs of the snapshot.
//!
//! A blob is mapped when it is first asked for and stays so, its digest checked then; no request
//! opens a file that was opened before. Conditional requests and single ranges (RFC 9110 §13, §14).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE,
    LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};

use crate::body::Content;
use crate::load::{EngineDir, LoadError, sha256};
use crate::refusal::{Cause, Refusal};
use crate::sys;

/// Up to this size a blob is checked where it is asked for; above it, on a thread of its own.
const CHECKED_AT_ONCE: u64 = 256 << 10;
const INDEX: &str = "index.html";

/// The files of one route.
pub struct Files {
    by_path: HashMap<Box<str>, Arc<File>>,
    fallback: Option<Arc<File>>,
}

struct File {
    blob: PathBuf,
    digest: String,
    size: u64,
    content_type: HeaderValue,
    etag: HeaderValue,
    bytes: OnceLock<Bytes>,
}

/// What of a file was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// First and last byte.
    Range(usize, usize),
    OutOfBounds,
}

impl Files {
    /// The files of the route `name`, whose blobs must be there.
    pub fn new(
        name: &str,
        backend: &crate::snapshot::FilesBackend,
        dir: &EngineDir,
    ) -> Result<Self, LoadError> {
        let invalid = |what: String| LoadError::new("route_invalid", format!("{name}: {what}"));
        let mut by_path = HashMap::with_capacity(backend.files.len());
        for declared in &backend.files {
            let etag = format!("\"{}\"", declared.blob.trim_start_matches("sha256:"));
            let file = Arc::new(File {
                blob: dir.blob_path(&declared.blob)?,
                digest: declared.blob.clone(),
                size: declared.size,
                content_type: HeaderValue::from_str(&declared.content_type)
                    .map_err(|_| invalid(format!("{}: contentType", declared.path)))?,
                etag: HeaderValue::from_str(&etag).map_err(|error| invalid(error.to_string()))?,
                bytes: OnceLock::new(),
            });
            if !file.blob.is_file() {
                return Err(LoadError::new(
                    "blob_missing",
                    format!("{name}: {} is not on this node", file.digest),
                ));
            }
            by_path.insert(declared.path.as_str().into(), file);
        }
        let fallback = match &backend.fallback {
            None => None,
            Some(path) => Some(
                by_path
                    .get(path.as_str())
                    .cloned()
                    .ok_or_else(|| invalid(format!("there is no file {path}")))?,
            ),
        };
        Ok(Self { by_path, fallback })
    }

    /// Answers a request for `path` (decoded), of which the route matched `matched`.
    pub async fn answer(
        &self,
        method: &Method,
        headers: &HeaderMap,
        matched: &str,
        path: &str,
        wire_path: &str,
    ) -> Result<Response<Content>, Refusal> {
        if *method != Method::GET && *method != Method::HEAD {
            return Err(Cause::FilesReadOnly.into());
        }
        let relative = path
            .strip_prefix(matched.trim_end_matches('/'))
            .unwrap_or_default()
            .trim_start_matches('/');
        let index = |folder: &str| self.by_path.get(format!("{folder}{INDEX}").as_str());
        let file = match self.by_path.get(relative) {
            Some(file) => file,
            None if relative.is_empty() || relative.ends_with('/') => {
                // A folder's links are relative to it: without its slash they would lead elsewhere.
                if !path.ends_with('/') && index("").is_some() {
                    return see_folder(wire_path);
                }
                match index(relative) {
                    Some(file) => file,
                    None => self.fallback()?,
                }
            }
            None if index(&format!("{relative}/")).is_some() => return see_folder(wire_path),
            None => self.fallback()?,
        };
        file.answer(headers).await
    }

    fn fallback(&self) -> Result<&Arc<File>, Refusal> {
        self.fallback
            .as_ref()
            .ok_or_else(|| Cause::FileNotFound.into())
    }
}

fn see_folder(wire_path: &str) -> Result<Response<Content>, Refusal> {
    let location = HeaderValue::from_str(&format!("{wire_path}/"))
        .map_err(|_| Refusal::from(Cause::FileNotFound))?;
    let mut response = Response::new(Content::Fixed(None));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

impl File {
    async fn answer(self: &Arc<Self>, headers: &HeaderMap) -> Result<Response<Content>, Refusal> {
        let mut response = Response::new(Content::Fixed(None));
        let out = response.headers_mut();
        out.insert(ETAG, self.etag.clone());
        out.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if self.is_known(headers) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        out.insert(CONTENT_TYPE, self.content_type.clone());
        out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        out.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let bytes = self.bytes().await?;
        let part = match headers.get(IF_RANGE) {
            Some(etag) if *etag != self.etag => Part::Whole,
            _ => part(headers.get(RANGE), bytes.len()),
        };
        let content_range = |text: String| HeaderValue::from_str(&text).ok();
        match part {
            Part::Whole => *response.body_mut() = Content::Fixed(Some(bytes)),
            Part::Range(first, last) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                if let Some(value) = content_range(format!("bytes {first}-{last}/{}", bytes.len()))
                {
                    response.headers_mut().insert(CONTENT_RANGE, value);
                }
                *response.body_mut() = Content::Fixed(Some(bytes.slice(first..=last)));
            }
            Part::OutOfBounds => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                if let Some(value) = content_range(format!("bytes */{}", bytes.len())) {
                    response.headers_mut().insert(CONTENT_RANGE, value);
                }
            }
        }
        Ok(response)
    }

    /// Whether the caller has it already (RFC 9110 §13.1.2).
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let known = headers.get_all(IF_NONE_MATCH).iter();
        known.filter_map(|value| value.to_str().ok()).any(|value| {
            value
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == "*" || tag.as_bytes() == self.etag.as_bytes())
        })
    }

    async fn bytes(self: &Arc<Self>) -> Result<Bytes, Refusal> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(bytes.clone());
        }
        let loaded = if self.size <= CHECKED_AT_ONCE {
            self.load()
        } else {
            let file = Arc::clone(self);
            tokio::task::spawn_blocking(move || file.load())
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
        };
        let bytes = loaded.map_err(|error| Refusal::with(Cause::FileUnavailable, error))?;
        Ok(self.bytes.get_or_init(|| bytes).clone())
    }

    fn load(&self) -> Result<Bytes, String> {
        let told = |error: std::io::Error| format!("{}: {error}", self.digest);
        let file = std::fs::File::open(&self.blob).map_err(told)?;
        if file.metadata().map_err(told)?.len() != self.size {
            return Err(format!("{} does not have the size it should", self.digest));
        }
        if self.size == 0 {
            return Ok(Bytes::new());
        }
        let bytes = Bytes::from_owner(sys::map_file(&file).map_err(told)?);
        if sha256(&bytes) != self.digest {
            return Err(format!(
                "the blob {} does not have that digest",
                self.digest
            ));
        }
        Ok(bytes)
    }
}

/// RFC 9110 §14.2: one range of bytes; several, or what is no range, ask for the whole.
fn part(range: Option<&HeaderValue>, size: usize) -> Part {
    let Some(range) = range
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes="))
        .and_then(|value| value.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| text.parse::<usize>().ok();
    match (range.0.trim(), range.1.trim()) {
        ("", last) => match number(last) {
            None => Part::Whole,
            Some(0) => Part::OutOfBounds,
            Some(_) if size == 0 => Part::OutOfBounds,
            Some(count) => Part::Range(size.saturating_sub(count), size - 1),
        },
        (first, last) => match (number(first), last, number(last)) {
            (Some(first), _, _) if first >= size => Part::OutOfBounds,
            (Some(first), "", _) => Part::Range(first, size - 1),
            (Some(first), _, Some(last)) if first <= last => Part::Range(first, last.min(size - 1)),
            _ => Part::Whole,
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let read = |text: &str| part(Some(&HeaderValue::from_str(text).unwrap()), 10);
        assert_eq!(read("bytes=0-0"), Part::Range(0, 0));
        assert_eq!(read("bytes=2-"), Part::Range(2, 9));
        assert_eq!(read("bytes=2-99"), Part::Range(2, 9));
        assert_eq!(read("bytes=-3"), Part::Range(7, 9));
        assert_eq!(read("bytes=-99"), Part::Range(0, 9));
        assert_eq!(read("bytes=10-"), Part::OutOfBounds);
        assert_eq!(read("bytes=-0"), Part::OutOfBounds);
        for whole in [
            "bytes=5-2",
            "bytes=0-1,4-5",
            "bytes=a-b",
            "lines=1-2",
            "bytes=",
            "bytes=-",
        ] {
            assert_eq!(read(whole), Part::Whole, "{whole}");
        }
        assert_eq!(part(None, 10), Part::Whole);
        assert_eq!(
            part(Some(&HeaderValue::from_static("bytes=-1")), 0),
            Part::OutOfBounds
        );
    }
}
