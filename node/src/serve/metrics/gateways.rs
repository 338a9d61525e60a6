//! Numbers of the list of gateways, and of the delegation of a gateway whose node this is.

use std::time::{Duration, Instant};

use crate::registry::status::RegistryNumbers;
use crate::serve::state::NodeState;

/// Of a delegation that is believed only: from how many blocks on it would be renewed.
const RENEWED: u64 = 100;

impl NodeState {
    /// Copies the numbers of the delegation.
    pub(super) fn delegation_metrics(&self) {
        let metrics = &self.metrics;
        for (result, n) in self.delegation.iter().flat_map(|delegation| delegation.asked()) {
            metrics.counter("fragcast_delegation_asked_total", Some(("result", result)), n);
        }
        let believed = self.experiments.delegation.get().map(|left| (left, Some(RENEWED)));
        let known = || self.delegation.as_ref().map(|of| (of.blocks_left(), of.renewed_from()));
        let Some((left, renewed)) = believed.or_else(known) else { return };
        metrics.gauge("fragcast_delegation_blocks_left", None, left as f64);
        if let Some(blocks) = renewed {
            metrics.gauge("fragcast_delegation_renew_blocks", None, blocks as f64);
        }
    }

    /// Copies the numbers of the registry.
    pub(super) fn registry_metrics(&self) {
        let metrics = &self.metrics;
        let believed = self.experiments.registry.get();
        let believed = believed.map(|age| RegistryNumbers::believed(Duration::from_secs(age)));
        let known = || Some(self.registry.as_ref()?.numbers(Instant::now()));
        let Some(registry) = believed.or_else(known) else { return };
        metrics.gauge("fragcast_registry_age_seconds", None, registry.age.as_secs_f64());
        metrics.gauge("fragcast_registry_life_seconds", None, registry.life.as_secs_f64());
        metrics.gauge("fragcast_registry_gateways", None, registry.gateways as f64);
        let differ = f64::from(u8::from(registry.differ));
        metrics.gauge("fragcast_registry_sources_differ", None, differ);
        let pending = registry.pending.unwrap_or(0);
        metrics.gauge("fragcast_registry_pending_block", None, pending as f64);
        for (why, n) in registry.changes {
            metrics.counter("fragcast_registry_changes_total", Some(("why", why)), n);
        }
        metrics.counter("fragcast_registry_refused_total", None, registry.refused);
        for source in &registry.sources {
            let name = Some(("source", source.name.as_str()));
            metrics.counter("fragcast_registry_answers_total", name, source.answers);
            metrics.counter("fragcast_registry_failures_total", name, source.failures);
            let failing = f64::from(u8::from(source.failing));
            metrics.gauge("fragcast_registry_source_failing", name, failing);
        }
    }
}
