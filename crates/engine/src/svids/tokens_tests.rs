//! That a token is for its component, and gone when it has ended or is taken back.

use super::*;

/// What control writes, with one token of this function and component.
fn written(component: &str, ends: u64) -> String {
    serde_json::json!({
        "svids": {},
        "tokens": [{
            "name": "fn/shop",
            "component": component,
            "audience": ["billing", "stock"],
            "token": "a.b.c",
            "ends": ends,
        }],
        "bundles": {},
        "revoked": [],
    })
    .to_string()
}

struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vedette-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn load(&self, svids: &Svids, text: &str) {
        let file = self.0.join("svids.json");
        std::fs::write(&file, text).unwrap();
        svids.reload(&file).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn audience() -> Vec<String> {
    vec!["billing".to_owned(), "stock".to_owned()]
}

#[test]
fn a_token_is_for_one_component_and_its_audiences() {
    let folder = Folder::new("tokens-of-one");
    let svids = Arc::new(Svids::default());
    let ours = svids.token("fn/shop", "sha256:aa", &audience());
    assert!(ours.token().is_none(), "before control has written any");
    let hour = clock::unix_seconds() + 3_600;
    folder.load(&svids, &written("sha256:aa", hour));
    assert_eq!(ours.token().as_deref(), Some("a.b.c"));
    for (name, component, audience) in [
        ("fn/other", "sha256:aa", audience()),
        ("fn/shop", "sha256:bb", audience()),
        ("fn/shop", "sha256:aa", vec!["billing".to_owned()]),
    ] {
        let other = svids.token(name, component, &audience);
        assert!(other.token().is_none(), "{name} {component} {audience:?}");
    }
    folder.load(&svids, &written("sha256:bb", hour));
    assert!(ours.token().is_none(), "it is another component's now");
    folder.load(&svids, r#"{"svids":{},"bundles":{},"revoked":[]}"#);
    let other = svids.token("fn/shop", "sha256:bb", &audience());
    assert!(other.token().is_none(), "control has taken it back");
}

#[test]
fn a_token_that_has_ended_is_none() {
    let folder = Folder::new("tokens-ended");
    let svids = Arc::new(Svids::default());
    let ours = svids.token("fn/shop", "sha256:aa", &audience());
    folder.load(&svids, &written("sha256:aa", clock::unix_seconds()));
    assert!(ours.token().is_none());
}

#[test]
fn rules_that_ask_for_the_same_token_are_the_same() {
    let svids = Arc::new(Svids::default());
    let one = svids.token("fn/shop", "sha256:aa", &audience());
    let same = svids.token("fn/shop", "sha256:aa", &audience());
    let other = svids.token("fn/shop", "sha256:bb", &audience());
    assert!(Arc::ptr_eq(&one, &same));
    assert!(!Arc::ptr_eq(&one, &other));
}

#[test]
fn a_file_that_is_none_is_refused_without_its_tokens_and_what_was_known_stays() {
    let folder = Folder::new("tokens-malformed");
    let svids = Arc::new(Svids::default());
    let ours = svids.token("fn/shop", "sha256:aa", &audience());
    let good = written("sha256:aa", clock::unix_seconds() + 3_600);
    folder.load(&svids, &good);
    let file = folder.0.join("svids.json");
    for bad in [good.replace("\"ends\":", "\"end\":"), good.replace('}', "")] {
        std::fs::write(&file, bad).unwrap();
        let error = svids.reload(&file).unwrap_err();
        assert!(!error.to_string().contains("a.b.c"), "{error}");
        assert_eq!(ours.token().as_deref(), Some("a.b.c"));
    }
}
