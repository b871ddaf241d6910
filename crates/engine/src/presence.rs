//! Whether control is there: the last policy holds for so long without it, and then no more (ADR 0039).
//!
//! Owns: when control was last heard, also before this engine began, and whether that is too long ago. Must not: ask
//! control anything; that it looks once a second is enough.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock;
use crate::node::Node;
use crate::sys;

const FILE: &str = "control.seen";
/// How often it is looked whether it was heard.
const TICK: Duration = Duration::from_secs(1);
/// How old the file may be while control is heard, in seconds.
const WRITE_EVERY: u64 = 5;
/// How long the last policy holds where the snapshot does not say, in seconds.
const USUAL: u64 = 24 * 60 * 60;

/// What an engine knows of control. Times are in seconds since the epoch.
pub struct Presence {
    seen: AtomicU64,
    is_away: AtomicBool,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            seen: AtomicU64::new(clock::onward_seconds()),
            is_away: AtomicBool::new(false),
        }
    }
}

impl Presence {
    /// Control was heard now.
    pub fn note(&self) {
        self.seen.store(clock::onward_seconds(), Ordering::Relaxed);
        self.is_away.store(false, Ordering::Relaxed);
    }

    /// Whether it was not heard for so long that its last policy holds no more.
    pub fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    /// For how many seconds it was not heard.
    pub fn silent_for(&self) -> u64 {
        clock::onward_seconds().saturating_sub(self.seen.load(Ordering::Relaxed))
    }

    /// Goes on from when the engine before this one has heard it.
    pub fn go_on_from(&self, spool_dir: &Path) {
        let text = std::fs::read_to_string(spool_dir.join(FILE)).ok();
        let written: Option<u64> = text.and_then(|text| text.trim().parse().ok());
        if let Some(written) = written {
            let seen = written.saturating_add(WRITE_EVERY);
            let now = clock::onward_seconds();
            self.seen.store(seen.min(now), Ordering::Relaxed);
        }
    }

    /// Looks whether it is away; `holds` is how many seconds the last policy holds.
    pub fn look(&self, holds: u64) {
        self.is_away
            .store(self.silent_for() >= holds, Ordering::Relaxed);
    }
}

/// Looks once a second, and keeps when control was heard for the engine after this one. Only for the engine in charge:
/// the others are not told anything.
pub async fn watch(node: Arc<Node>, spool_dir: PathBuf) {
    let mut written = 0;
    loop {
        let was_away = node.presence.is_away();
        let plan = node.plan();
        let holds = plan.and_then(|plan| plan.admit.limits.policy_holds_seconds);
        node.presence.look(holds.unwrap_or(USUAL));
        if node.presence.is_away() && !was_away {
            let silent = node.presence.silent_for();
            sys::say(&format_args!(
                "control is away for {silent} s: its last policy holds no more, requests are refused"
            ));
        }
        let seen = node.presence.seen.load(Ordering::Relaxed);
        if seen >= written + WRITE_EVERY || seen < written {
            written = seen;
            let (file, fresh) = (spool_dir.join(FILE), spool_dir.join(format!("{FILE}.new")));
            let kept = tokio::task::spawn_blocking(move || {
                std::fs::write(&fresh, format!("{seen}\n"))
                    .and_then(|()| std::fs::rename(&fresh, &file))
            });
            if let Ok(Err(error)) = kept.await {
                sys::say(&format_args!("{FILE} is not kept: {error}"));
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn heard(seconds_ago: u64) -> Presence {
        let presence = Presence::default();
        let at = clock::onward_seconds() - seconds_ago;
        presence.seen.store(at, Ordering::Relaxed);
        presence
    }

    #[test]
    fn the_last_policy_holds_for_its_time_and_again_when_control_is_heard() {
        let presence = heard(10);
        presence.look(12);
        assert!(!presence.is_away());
        presence.look(10);
        assert!(presence.is_away());
        presence.note();
        assert!(!presence.is_away());
        presence.look(10);
        assert!(!presence.is_away());
    }

    #[test]
    fn an_engine_goes_on_from_what_the_one_before_has_heard() {
        let folder = std::env::temp_dir().join(format!("vedette-presence-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let now = clock::onward_seconds();
        for (written, silent) in [
            ((now - 100).to_string(), 95..=97),
            ((now + 100).to_string(), 0..=2),
            ("nonsense".to_owned(), 0..=2),
        ] {
            std::fs::write(folder.join(FILE), written).unwrap();
            let presence = Presence::default();
            presence.go_on_from(&folder);
            assert!(silent.contains(&presence.silent_for()), "{silent:?}");
        }
        let presence = Presence::default();
        presence.go_on_from(&folder.join("none"));
        assert!(presence.silent_for() < 2);
    }
}
