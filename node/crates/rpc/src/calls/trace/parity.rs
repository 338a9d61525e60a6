//! `trace_*`, as Parity began them: traces of calls in a flat list.

use alloy_primitives::map::HashSet;
use alloy_rpc_types_trace::geth::{GethDebugBuiltInTracerType, GethDebugTracingOptions, GethTrace};
use alloy_rpc_types_trace::parity::{LocalizedTransactionTrace, TraceResults, TraceType};
use revm_inspectors::tracing::{
    DebugInspector, TracingInspector, TracingInspectorConfig, TransactionContext,
};
use serde_json::Value;

use super::super::error::CallError;
use super::super::{CallArgs, CallSite};
use super::tracer::{Accounts, Inner, Steps, Tracer};
use super::{Replayed, context, traced};
use crate::params::{Kind, Wrong};

/// A trace with its place.
pub(in super::super) type LocalTrace = LocalizedTransactionTrace;

/// Kinds of traces.
pub(in super::super) struct Kinds(HashSet<TraceType>);

impl Kind for Kinds {
    fn read(value: Value) -> Result<Self, Wrong> {
        Vec::<String>::read(value)?
            .into_iter()
            .map(|name| match name.as_str() {
                "trace" => Ok(TraceType::Trace),
                "vmTrace" => Ok(TraceType::VmTrace),
                "stateDiff" => Ok(TraceType::StateDiff),
                _ => Err("there are \"trace\", \"vmTrace\" and \"stateDiff\"".into()),
            })
            .collect::<Result<_, Wrong>>()
            .map(Self)
    }
}

/// The traces of a block's transactions, or of one.
pub(in super::super) fn localized(
    site: &CallSite,
    replayed: &Replayed,
    only: Option<usize>,
) -> Result<Vec<LocalTrace>, CallError> {
    let mut ground = replayed.before(site, only.unwrap_or(0))?;
    let mut left = site.config.max_trace;
    let mut traces = Vec::new();
    let one = if only.is_some() { 1 } else { usize::MAX };
    for placed in replayed.block.txs().skip(only.unwrap_or(0)).take(one) {
        let tracer = GethDebugBuiltInTracerType::FlatCallTracer;
        let inspector = DebugInspector::new(GethDebugTracingOptions::new_tracer(tracer))
            .map_err(|error| CallError::Invalid(error.to_string()))?;
        let inner = Inner::Geth(Box::new(inspector));
        let mut tracer =
            Tracer::new(inner, context(&replayed.block, &placed), None, Accounts::None, left);
        traced(&mut ground, &placed, &mut tracer)?;
        left = tracer.left();
        let Some(GethTrace::FlatCallTracer(flat)) = tracer.geth else {
            return Err(CallError::Internal);
        };
        traces.extend(flat);
    }
    Ok(traces)
}

/// Traces a call.
pub(in super::super) fn call(
    site: &CallSite,
    args: CallArgs,
    kinds: Kinds,
) -> Result<TraceResults, CallError> {
    let mut ground = site.ground(args.overrides, args.state)?;
    let asked = ground.tx(args.request)?;
    let Kinds(kinds) = kinds;
    let config = TracingInspectorConfig::from_parity_config(&kinds);
    let steps = kinds.contains(&TraceType::VmTrace);
    let steps =
        steps.then_some(Steps { stack: true, memory: true, storage: false, returned: false });
    let shown = kinds.contains(&TraceType::StateDiff) || steps.is_some();
    let accounts = if shown { Accounts::All } else { Accounts::None };
    let inner = Inner::Parity(Box::new(TracingInspector::new(config)), kinds);
    let context = TransactionContext::default();
    let mut tracer = Tracer::new(inner, context, steps, accounts, site.config.max_trace);
    ground.transact(&asked, &mut tracer)?;
    tracer.parity.ok_or(CallError::Internal)
}
