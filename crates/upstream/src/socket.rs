//! Unix sockets as endpoints: services of this machine that no address leads to.
//!
//! Owns: who connects to them. A process that may make no such socket has another one connect, and is handed the
//! connection. Must not: speak HTTP.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;

use vedette_quiet::Quiet;

/// A connection to a Unix socket, or why there is none.
pub type DiallingSocket<'a> = Pin<Box<dyn Future<Output = io::Result<Quiet>> + Send + 'a>>;

/// Connects to Unix sockets.
pub trait DialSocket: Send + Sync {
    /// A connection to the socket at `path`. It is dropped when it takes longer than the time for connecting.
    fn dial<'a>(&'a self, path: &'a Path) -> DiallingSocket<'a>;
}

/// This process connects itself.
pub(crate) struct ByItself;

impl DialSocket for ByItself {
    fn dial<'a>(&'a self, path: &'a Path) -> DiallingSocket<'a> {
        Box::pin(Quiet::connect(path))
    }
}
