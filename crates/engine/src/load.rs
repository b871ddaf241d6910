//! From files to a plan: the active snapshot, its blobs, its compiled code. Refused whole or taken whole.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};

use crate::envelope::{VerifyingKey, verify, verify_as};
use crate::plan::{Before, Plan};
use crate::snapshot::Snapshot;
use crate::svids::Svids;

/// Why a snapshot was refused.
#[derive(Debug, Clone)]
pub struct LoadError {
    /// A word for programs, such as `signature_invalid`.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl LoadError {
    /// An error with its code and sentence.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for LoadError {}

/// The folder that control writes and the engine reads.
#[derive(Clone)]
pub struct EngineDir {
    root: PathBuf,
    engine_key: String,
    svids: Arc<Svids>,
    models: PathBuf,
}

/// Which snapshot is active, as control published it.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
pub struct Active {
    /// `sha256:…` of the payload.
    pub digest: String,
    /// Counts activations on this node.
    pub generation: u64,
}

impl EngineDir {
    /// The folder at `root`, for code compiled under `engine_key`.
    pub fn new(root: impl Into<PathBuf>, engine_key: impl Into<String>) -> Self {
        Self {
            root: root.into(),
            engine_key: engine_key.into(),
            svids: Arc::default(),
            models: PathBuf::new(),
        }
    }

    /// With the folder in which the sockets of models are. Who only checks a snapshot connects to none.
    #[must_use]
    pub fn with_models(self, folder: impl Into<PathBuf>) -> Self {
        let models = folder.into();
        Self { models, ..self }
    }

    /// Where the process of a model answers; refuses a name that no process has, so that no other path can be made of it.
    pub fn model_socket(&self, worker: &str) -> Result<PathBuf, LoadError> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if worker.len() == 16 && worker.bytes().all(is_hex) {
            return Ok(self.models.join(format!("{worker}.sock")));
        }
        Err(LoadError::new(
            "snapshot_malformed",
            "a model's process is named by 16 hex digits",
        ))
    }

    /// Where the TLS chain and key are.
    pub fn tls(&self) -> (PathBuf, PathBuf) {
        let tls = self.root.join("tls");
        (tls.join("server.pem"), tls.join("server.key"))
    }

    /// Where a certificate with its key is that services are shown.
    pub fn client_certificate(&self, name: &str) -> PathBuf {
        self.root.join("tls/clients").join(format!("{name}.pem"))
    }

    /// SVIDs of the node's own.
    pub fn svids(&self) -> &Arc<Svids> {
        &self.svids
    }

    /// Reads them again.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn reload_svids(&self) -> Result<(), LoadError> {
        self.svids.reload(&self.root.join("svids.json"))
    }

    /// What a destination of calls is shown, without the line end that an editor leaves.
    pub fn credential(&self, name: &str) -> Result<String, LoadError> {
        let bytes = read(
            &self.root.join("credentials").join(name),
            "credential_missing",
        )?;
        let text = String::from_utf8(bytes).unwrap_or_default();
        Ok(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The key that seals the tokens and passes of the challenge.
    pub fn challenge_key(&self) -> Result<[u8; 32], LoadError> {
        let bytes = read(&self.root.join("challenge.key"), "challenge_key_missing")?;
        <[u8; 32]>::try_from(bytes)
            .map_err(|_| LoadError::new("challenge_key_invalid", "challenge.key is no 32 bytes"))
    }

    /// Reads `active.json`.
    pub fn active(&self) -> Result<Active, LoadError> {
        let bytes = read(&self.root.join("active.json"), "active_missing")?;
        serde_json::from_slice(&bytes)
            .map_err(|error| LoadError::new("active_malformed", format!("active.json: {error}")))
    }

    /// The compiled code of the component with `digest`, present or not.
    pub fn compiled(&self, digest: &str) -> Result<PathBuf, LoadError> {
        let name = format!("{}.cwasm", hex_of(digest)?);
        Ok(self.root.join("compiled").join(&self.engine_key).join(name))
    }

    /// What control found out about the packed rules with `digest`, where it has.
    pub fn analysis(&self, digest: &str) -> Option<Vec<u8>> {
        let name = format!("{}-{}.rules", hex_of(digest).ok()?, crate::VERSION);
        let folder = self.root.join("compiled").join(&self.engine_key);
        fs::read(folder.join(name)).ok()
    }

    /// Where the blob with `digest` is, present or not.
    pub fn blob_path(&self, digest: &str) -> Result<PathBuf, LoadError> {
        Ok(self.root.join("blobs/sha256").join(hex_of(digest)?))
    }

    /// Reads the blob with `digest` and checks that it is that blob.
    pub fn blob(&self, digest: &str) -> Result<Vec<u8>, LoadError> {
        let bytes = read(&self.blob_path(digest)?, "blob_missing")?;
        if sha256(&bytes) == digest {
            return Ok(bytes);
        }
        Err(LoadError::new(
            "blob_corrupt",
            format!("the blob {digest} does not have that digest"),
        ))
    }

    /// The verified snapshot with `digest`, not compiled.
    pub fn snapshot(&self, digest: &str) -> Result<Snapshot, LoadError> {
        let name = format!("{}.json", hex_of(digest)?);
        let envelope = read(&self.root.join("snapshots").join(name), "snapshot_missing")?;
        let (snapshot, found) = open(&envelope, &self.verifying_key()?)?;
        if found == digest {
            return Ok(snapshot);
        }
        Err(LoadError::new(
            "digest_mismatch",
            format!("the file of {digest} holds {found}"),
        ))
    }

    /// Loads, verifies and compiles the snapshot with `digest`.
    pub fn load(&self, digest: &str, before: Before<'_>) -> Result<Plan, LoadError> {
        Plan::compile(self.snapshot(digest)?, digest.to_owned(), self, before)
    }

    /// The payload of a file here that control signed as one of that kind; none where there is no such file.
    pub fn signed(&self, name: &str, kind: &str) -> Result<Option<Vec<u8>>, LoadError> {
        let path = self.root.join(name);
        if !path.exists() {
            return Ok(None);
        }
        let envelope = read(&path, "file_missing")?;
        verify_as(kind, &envelope, &self.verifying_key()?).map(Some)
    }

    /// Where it all lies.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn verifying_key(&self) -> Result<VerifyingKey, LoadError> {
        let pem = read(&self.root.join("signing.pub"), "key_invalid")?;
        VerifyingKey::from_pem(&String::from_utf8_lossy(&pem))
    }
}

fn compile(
    envelope: &[u8],
    key: &VerifyingKey,
    dir: &EngineDir,
    before: Before<'_>,
) -> Result<Plan, LoadError> {
    let (snapshot, digest) = open(envelope, key)?;
    Plan::compile(snapshot, digest, dir, before)
}

/// The snapshot in a verified envelope, and its digest.
fn open(envelope: &[u8], key: &VerifyingKey) -> Result<(Snapshot, String), LoadError> {
    let payload = verify(envelope, key)?;
    let snapshot = serde_json::from_slice(&payload)
        .map_err(|error| LoadError::new("snapshot_malformed", error.to_string()))?;
    Ok((snapshot, sha256(&payload)))
}

/// Checks `envelope` as the engine would before it activates it; returns the digest of its payload.
///
/// # Errors
/// The [`LoadError`] for which the engine would refuse it.
pub fn check_snapshot(
    envelope: &[u8],
    public_key_pem: &str,
    engine_dir: &Path,
    engine_key: &str,
) -> Result<String, LoadError> {
    let key = VerifyingKey::from_pem(public_key_pem)?;
    let dir = EngineDir::new(engine_dir, engine_key);
    let digest = compile(envelope, &key, &dir, Before::Nothing).map(|plan| plan.digest.to_string());
    crate::sys::give_back_memory();
    digest
}

/// An error as JSON, for whoever reads it on the other side of a border.
pub fn error_json(code: &str, message: &str) -> String {
    serde_json::json!({"code": code, "message": message}).to_string()
}

/// `sha256:` and the digest of `bytes` in hex.
pub fn sha256(bytes: &[u8]) -> String {
    let mut out = String::from("sha256:");
    for byte in digest(&SHA256, bytes).as_ref() {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// The hex of a digest; refuses anything that is not one, so that no path can be made of it.
fn hex_of(digest: &str) -> Result<&str, LoadError> {
    digest
        .strip_prefix("sha256:")
        .filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        .ok_or_else(|| LoadError::new("digest_malformed", "a digest is sha256: and 64 hex digits"))
}

fn read(path: &Path, code: &'static str) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(|error| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            LoadError::new(code, format!("{name}: {error}"))
        })?;
    Ok(bytes)
}
