//! What a model's file says of itself, whatever its format.

use crate::config::Tensor;

/// What goes in and comes out, as the file has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Outline {
    /// What it takes, without what has a value in the file; 0: any.
    pub inputs: Vec<Tensor>,
    /// What it gives.
    pub outputs: Vec<Tensor>,
    /// Whether a run changes what the next one answers (variables of TensorFlow Lite).
    pub keeps_state: bool,
    /// Whether how long a run takes follows from its shapes alone: nothing in it runs as often as an element says.
    pub is_straight: bool,
}
