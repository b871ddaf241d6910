//! SVIDs of this node's own that the engine shows to others, and the bundles by which it believes theirs; JWT-SVIDs
//! of functions ([`tokens`]).
//!
//! Control mints them and writes `engine/svids.json`; they live for minutes and are read again when it says so. A
//! function's is for one component: with another it has none, until control has seen that one.
//!
//! Must not: believe a chain for another trust domain than that of its authorities (SPIFFE Federation §3: bundles are
//! never merged).

mod tokens;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, TrustAnchor, UnixTime};
use serde::Deserialize;
use tokio::sync::watch;
use vedette_upstream::{SpiffeIdentity, TokenSource};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::certificate::{
    Leaf, Presented, Vouched, Workload, of_webpki, read, require_short, spiffe_id, untrusted,
};
use crate::load::LoadError;
use crate::tls::algorithms;
use tokens::{Asked, Minted, Token};

/// The most bytes of the file.
const LONGEST: u64 = 64 << 20;

/// What control has written.
pub struct Svids {
    held: ArcSwap<Held>,
    /// Told when other chains are believed than before, by a number.
    believed: watch::Sender<u64>,
    /// One for each name, so that what is compared with what was before is the same.
    identities: Mutex<HashMap<Named, Arc<Identity>>>,
    /// The same of JWT-SVIDs.
    sources: Mutex<HashMap<Asked, Arc<Minted>>>,
}

/// A name, and the digest of the component where it is a function's.
type Named = (String, Option<String>);

#[derive(Default)]
struct Held {
    shown: HashMap<String, Shown>,
    tokens: HashMap<Asked, Token>,
    bundles: HashMap<String, Vec<Root>>,
    revoked: HashSet<String>,
    /// What `bundles` and `revoked` were read from.
    written: (BTreeMap<String, Vec<String>>, BTreeSet<String>),
    /// Another one when these are others.
    number: u64,
}

struct Shown {
    key: Arc<CertifiedKey>,
    presented: Arc<Presented>,
    /// The digest of the component it is for.
    component: Option<String>,
}

struct Root {
    anchor: TrustAnchor<'static>,
    not_before: u64,
    not_after: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    svids: HashMap<String, Written>,
    #[serde(default)]
    tokens: Vec<tokens::Written>,
    /// DER of authorities in Base64, by trust domain.
    bundles: BTreeMap<String, Vec<String>>,
    /// Serial numbers of this node's own SVIDs that count no more, hex.
    revoked: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    chain: Vec<String>,
    key: String,
    component: Option<String>,
}

impl Default for Svids {
    fn default() -> Self {
        Self {
            held: ArcSwap::default(),
            believed: watch::Sender::new(0),
            identities: Mutex::default(),
            sources: Mutex::default(),
        }
    }
}

impl Svids {
    /// Reads the file again. One that is not there holds nothing.
    ///
    /// # Errors
    /// When it cannot be read; what was known stays.
    pub fn reload(&self, path: &std::path::Path) -> Result<(), LoadError> {
        let invalid = |what: &str| LoadError::new("svids_invalid", format!("svids.json: {what}"));
        match fs::metadata(path) {
            Ok(found) if found.len() > LONGEST => return Err(invalid("it is too long")),
            Ok(_) => {}
            Err(_) => return Ok(()),
        }
        let bytes = fs::read(path).map_err(|error| invalid(&error.to_string()))?;
        // What a parser says could quote a key.
        let file: File = serde_json::from_slice(&bytes).map_err(|_| invalid("it is malformed"))?;
        let held = Held::of(file).ok_or_else(|| invalid("it holds no keys and certificates"))?;
        let before = self.held.load();
        let number = before.number + u64::from(before.written != held.written);
        self.held.store(Arc::new(Held { number, ..held }));
        self.believed
            .send_if_modified(|known| std::mem::replace(known, number) != number);
        Ok(())
    }

    /// The state of what is believed: another number, when other chains may be.
    pub fn number(&self) -> u64 {
        self.held.load().number
    }

    /// Says when other chains are believed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.believed.subscribe()
    }

    /// The chain that is shown by this name now.
    pub fn presented(&self, name: &str) -> Option<Arc<Presented>> {
        let held = self.held.load();
        Some(Arc::clone(&held.shown.get(name)?.presented))
    }

    /// Key and chain that are shown by this name now.
    pub fn shown(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let held = self.held.load();
        Some(Arc::clone(&held.shown.get(name)?.key))
    }

    /// Whose chain it is that a client came with, its own certificate first.
    ///
    /// # Errors
    /// Why it is nobody's.
    pub fn vouch(
        &self,
        chain: &[CertificateDer<'_>],
        now: u64,
    ) -> Result<Vouched, CertificateError> {
        let (leaf, others) = chain.split_first().ok_or(CertificateError::BadEncoding)?;
        require_short(chain)?;
        let held = self.held.load();
        let believed = held.believe(leaf, others, now, KeyUsage::client_auth())?;
        let authority = format!("spiffe://{}", believed.domain);
        let mut workload = Workload::new(&authority, Some(believed.id), &believed.leaf);
        workload.issuers = believed.issuers;
        Ok(Vouched {
            workload,
            expires_at: believed.ends,
        })
    }

    /// The identity of this name; of a function, as long as it is this component.
    pub fn identity(
        self: &Arc<Self>,
        name: &str,
        component: Option<&str>,
    ) -> Arc<dyn SpiffeIdentity> {
        let key = (name.to_owned(), component.map(str::to_owned));
        let mut known = self
            .identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, identity| Arc::strong_count(identity) > 1);
        let made = || {
            Arc::new(Identity {
                svids: Arc::clone(self),
                name: key.0.clone(),
                component: key.1.clone(),
            })
        };
        Arc::clone(known.entry(key.clone()).or_insert_with(made)) as Arc<dyn SpiffeIdentity>
    }

    /// The JWT-SVID of a function for these audiences, as long as it is this component.
    pub fn token(
        self: &Arc<Self>,
        name: &str,
        component: &str,
        audience: &[String],
    ) -> Arc<dyn TokenSource> {
        let asked = Asked {
            name: name.to_owned(),
            component: component.to_owned(),
            audience: audience.to_vec(),
        };
        let mut known = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, source| Arc::strong_count(source) > 1);
        let made = || Arc::new(Minted::new(Arc::clone(self), asked.clone()));
        Arc::clone(known.entry(asked.clone()).or_insert_with(made)) as Arc<dyn TokenSource>
    }
}

impl Held {
    fn of(file: File) -> Option<Self> {
        let der = |text: &String| BASE64_STANDARD.decode(text).ok();
        let shown = file.svids.into_iter().map(|(name, written)| {
            let chain = written
                .chain
                .iter()
                .map(|it| der(it).map(CertificateDer::from));
            let chain = chain.collect::<Option<Vec<_>>>()?;
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(&written.key)?));
            let key = aws_lc_rs::sign::any_supported_type(&key).ok()?;
            let shown = Shown {
                presented: Arc::new(Presented::new(&chain)),
                key: Arc::new(CertifiedKey::new(chain, key)),
                component: written.component,
            };
            Some((name, shown))
        });
        let bundles = file.bundles.iter().map(|(domain, authorities)| {
            let roots = authorities.iter().map(|text| root(&der(text)?));
            Some((domain.clone(), roots.collect::<Option<Vec<_>>>()?))
        });
        Some(Self {
            shown: shown.collect::<Option<_>>()?,
            tokens: file.tokens.into_iter().map(tokens::read).collect(),
            bundles: bundles.collect::<Option<_>>()?,
            revoked: file.revoked.iter().cloned().collect(),
            written: (file.bundles, file.revoked),
            number: 0,
        })
    }

    /// What a chain proves, at a time in seconds since the epoch.
    fn believe(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: u64,
        usage: KeyUsage,
    ) -> Result<Believed, CertificateError> {
        let said = read(leaf).map_err(untrusted)?;
        let [id] = said.uris.as_slice() else {
            return Err(untrusted("it has not one URI name"));
        };
        let id = id.clone();
        let domain = spiffe_id(&id).map_err(untrusted)?.to_owned();
        if said.is_authority || said.signs_certificates || said.signs != Some(true) {
            return Err(untrusted("it is not for handshakes alone"));
        }
        let roots = self.bundles.get(&domain);
        let roots = roots.ok_or_else(|| untrusted("its trust domain is not known"))?;
        let alive = roots
            .iter()
            .filter(|it| (it.not_before..=it.not_after).contains(&now));
        let anchors: Vec<_> = alive.map(|it| it.anchor.clone()).collect();
        let certificate = EndEntityCert::try_from(leaf).map_err(of_webpki)?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let path = certificate
            .verify_for_usage(algorithms(), &anchors, others, at, usage, None, None)
            .map_err(of_webpki)?;
        let mut ends = said.not_after;
        let mut issuers = Vec::new();
        for between in path.intermediate_certificates() {
            let between = read(&between.der()).map_err(untrusted)?;
            ends = ends.min(between.not_after);
            issuers.push(between.serial);
        }
        if self.revoked.contains(&said.serial) || issuers.iter().any(|it| self.revoked.contains(it))
        {
            return Err(CertificateError::Revoked);
        }
        Ok(Believed {
            id,
            domain,
            issuers,
            ends,
            leaf: said,
        })
    }
}

/// What a chain has proved.
struct Believed {
    id: String,
    domain: String,
    leaf: Leaf,
    issuers: Vec<String>,
    /// When its first certificate ends, in seconds since the epoch.
    ends: u64,
}

fn root(der: &[u8]) -> Option<Root> {
    let leaf = read(der).ok()?;
    let der = CertificateDer::from(der);
    Some(Root {
        anchor: anchor_from_trusted_cert(&der).ok()?.to_owned(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    })
}

/// One identity of the node.
struct Identity {
    svids: Arc<Svids>,
    name: String,
    component: Option<String>,
}

impl SpiffeIdentity for Identity {
    fn shown(&self) -> Option<Arc<CertifiedKey>> {
        let held = self.svids.held.load();
        let shown = held.shown.get(&self.name)?;
        (shown.component == self.component).then(|| Arc::clone(&shown.key))
    }

    fn proved(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<String, Error> {
        let held = self.svids.held.load();
        held.believe(leaf, others, now.as_secs(), KeyUsage::server_auth())
            .map(|it| it.id)
            .map_err(Error::InvalidCertificate)
    }
}

#[cfg(test)]
#[path = "svids_tests.rs"]
#[allow(clippy::unwrap_used)]
mod tests;
