//! The stages of the path, one file each, in the order of [`crate::pipeline`].

pub mod admit;
pub mod authenticate;
pub mod authorize;
pub mod escalate;
pub mod execute;
pub mod forward;
pub mod inspect;
pub mod limit;
pub mod predict;
pub mod respond;
pub mod route;
pub mod stream;
