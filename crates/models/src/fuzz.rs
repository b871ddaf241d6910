#[allow(missing_docs)]
pub const TARGETS: &[(&str, fn(&[u8]))] = &[];
