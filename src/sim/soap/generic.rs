//! Methods that exist on real servers and that the simulator does not have.

use std::sync::Arc;

use crate::sim::site::Site;
use crate::sim::soap::call::Call;
use crate::sim::soap::call::Outcome;
use crate::sim::soap::fault::Fault;

/// Refuses, as a server does that lacks the feature.
pub fn not_supported(_site: &Arc<Site>, _call: &Call<'_>) -> Outcome {
    Err(Fault::not_supported())
}
