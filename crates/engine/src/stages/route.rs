//! Route: host and path to what is deployed there.

use std::sync::Arc;

use crate::plan::{Plan, Target};
use crate::record::Record;
use crate::refusal::{Cause, Refusal};
use crate::stages::admit::Admitted;

/// A request, and where it leads.
pub struct Routed {
    admitted: Admitted,
    target: Arc<Target>,
}

impl Routed {
    /// The request as admitted.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// Where it leads.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Both.
    pub fn into_inner(self) -> (Admitted, Arc<Target>) {
        (self.admitted, self.target)
    }
}

/// Finds where a request leads.
pub fn route(plan: &Plan, record: &mut Record, admitted: Admitted) -> Result<Routed, Refusal> {
    let target = plan
        .find(admitted.host(), admitted.path())
        .ok_or(Cause::NotFound)?;
    let target = Arc::clone(target);
    record.target = Some(Arc::clone(&target));
    Ok(Routed { admitted, target })
}
