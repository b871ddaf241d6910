//! Names to addresses, without blocking a worker.
//!
//! Owns: the settings of the machine (`/etc/resolv.conf`, `/etc/hosts`), read once, before the
//! engine confines itself. Must not: decide which addresses are allowed.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::read_system_conf;

use crate::error::ConfigError;

/// Addresses of a name, or why there are none.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, String>> + Send + 'a>>;

/// Turns names into addresses.
pub trait Resolve: Send + Sync {
    /// The addresses of `host`, in the order to try them. An empty answer is a failure.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// Most names remembered at once.
const NAMES: u64 = 4096;
/// However long a TTL is, a change is seen after this.
const LONGEST_TTL: Duration = Duration::from_secs(300);
const LONGEST_NO: Duration = Duration::from_secs(10);

/// The resolver of the machine, over its name servers.
pub struct SystemResolver(TokioResolver);

impl SystemResolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`. Without a name server only the latter answers.
    ///
    /// # Errors
    /// When the resolver cannot be built.
    pub fn read() -> Result<Self, ConfigError> {
        let (config, options) = read_system_conf()
            .unwrap_or_else(|_| (ResolverConfig::default(), ResolverOpts::default()));
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .with_options(options);
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        options.use_hosts_file = ResolveHosts::Always;
        options.cache_size = NAMES;
        options.positive_max_ttl = Some(LONGEST_TTL);
        options.negative_max_ttl = Some(LONGEST_NO);
        options.timeout = Duration::from_secs(2);
        // An answer that anyone could have forged must guess the case of the name too.
        options.case_randomization = true;
        builder
            .build()
            .map(Self)
            .map_err(|error| ConfigError(format!("resolver: {error}")))
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let found = self.0.lookup_ip(host).await;
            let found = found.map_err(|error| error.to_string())?;
            Ok(found.iter().collect())
        })
    }
}
