//! What a trace is to show: a tracer and its options, as geth names them.
//!
//! As in geth, names are found whatever their case, null is the same as no option, and an option that
//! is not known is passed over: tools send their own. One that geth has, and that cannot be done here,
//! is refused by name, since its trace would not be what was asked for.

use std::time::Duration;

use alloy_primitives::{Log, U64};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_trace::geth::{
    GethDebugBuiltInTracerType, GethDebugTracerType, GethDebugTracingOptions, GethTrace,
};
use revm_inspectors::tracing::{DebugInspector, DebugInspectorError, TransactionContext};
use serde_json::{Map, Value};

use super::super::error::CallError;
use super::tracer::{Accounts, Inner, Steps, Tracer};
use crate::params::{BlockChanges, Kind, Wrong, field, short};

/// The tracers that there are.
const TRACERS: [&str; 7] = [
    "callTracer",
    "prestateTracer",
    "4byteTracer",
    "noopTracer",
    "muxTracer",
    "flatCallTracer",
    "structLogger",
];

/// The options of a trace.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Options {
    geth: GethDebugTracingOptions,
    shows: Shows,
    /// The longest that it may take, if that is less than a call may.
    pub(in super::super) timeout: Option<Duration>,
}

/// Options of tracers that the library does not have.
#[derive(Debug, Clone, Copy, Default)]
struct Shows {
    /// prestateTracer: accounts that were empty, too.
    empty: bool,
    /// flatCallTracer: errors in Parity's words.
    parity_errors: bool,
}

/// The options of the trace of a call.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct CallOptions {
    pub(in super::super) options: Options,
    pub(in super::super) state: Option<StateOverride>,
    pub(in super::super) block: Option<BlockChanges>,
    /// The transaction of the block before which the call is.
    pub(in super::super) index: Option<u64>,
}

const FLAGS: [&str; 7] = [
    "enableMemory",
    "disableMemory",
    "disableStack",
    "disableStorage",
    "enableReturnData",
    "disableReturnData",
    "debug",
];

/// The tracer's own options, of which the library has these.
const CONFIG: [(&str, &[&str]); 3] = [
    ("callTracer", &["onlyTopCall", "withLog"]),
    ("prestateTracer", &["diffMode", "disableCode", "disableStorage"]),
    ("flatCallTracer", &["includePrecompiles"]),
];

impl Shows {
    /// Reads the options of a tracer; what the library is to be told of them.
    fn read(&mut self, tracer: &str, config: Value) -> Result<Value, Wrong> {
        let Value::Object(mut config) = config else {
            return Err(format!("an object is wanted, not {}", short(&config.to_string())));
        };
        if tracer == "muxTracer" {
            let mut all = Map::new();
            for (name, config) in config {
                known(&name)?;
                let config = if config.is_null() { Value::Object(Map::new()) } else { config };
                let read = self.read(&name, config).map_err(|why| format!("{name}: {why}"))?;
                // These have no options, not even none of them.
                let none = matches!(name.as_str(), "4byteTracer" | "noopTracer");
                all.insert(name, if none { Value::Null } else { read });
            }
            return Ok(Value::Object(all));
        }
        let mut told = Map::new();
        let names = CONFIG.iter().find(|(name, _)| *name == tracer).map_or(&[][..], |(_, n)| *n);
        for name in names {
            if let Some(flag) = flag(&mut config, name)? {
                told.insert((*name).to_owned(), flag.into());
            }
        }
        match tracer {
            "prestateTracer" if flag(&mut config, "includeEmpty")? == Some(true) => {
                if told.get("diffMode") == Some(&Value::Bool(true)) {
                    return Err("cannot use diffMode with includeEmpty".into());
                }
                self.empty = true;
            }
            "flatCallTracer" if flag(&mut config, "convertParityErrors")? == Some(true) => {
                self.parity_errors = true;
            }
            _ => {}
        }
        Ok(Value::Object(told))
    }
}

impl Options {
    /// Reads the options from an object, whose other fields are left.
    fn take(object: &mut Map<String, Value>) -> Result<Self, Wrong> {
        let mut geth = Map::new();
        for name in FLAGS {
            if let Some(flag) = flag(object, name)? {
                geth.insert(name.to_owned(), flag.into());
            }
        }
        if let Some(value) = taken(object, "limit")? {
            let limit = value.as_u64().ok_or("limit: a number is wanted")?;
            geth.insert("limit".to_owned(), limit.into());
        }
        // How far back geth may execute to get a state, which is not needed here.
        if let Some(value) = taken(object, "reexec")? {
            value.as_u64().ok_or("reexec: a number is wanted")?;
        }
        if taken(object, "overrides")?.is_some() {
            return Err("overrides: the chain's forks are as they are".into());
        }
        let mut tracer = String::new();
        if let Some(value) = taken(object, "tracer")? {
            tracer = field("tracer", value)?;
            known(&tracer)?;
            if tracer != "structLogger" && !tracer.is_empty() {
                geth.insert("tracer".to_owned(), tracer.as_str().into());
            }
        }
        let mut shows = Shows::default();
        if let Some(value) = taken(object, "tracerConfig")? {
            let config =
                shows.read(&tracer, value).map_err(|why| format!("tracerConfig: {why}"))?;
            geth.insert("tracerConfig".to_owned(), config);
        }
        let timeout = match taken(object, "timeout")? {
            Some(value) => Some(duration(&field::<String>("timeout", value)?)?),
            None => None,
        };
        let geth: GethDebugTracingOptions =
            serde_json::from_value(Value::Object(geth)).map_err(|e| e.to_string())?;
        // What is wrong with the tracer's own options is known now.
        DebugInspector::new(geth.clone()).map_err(|error| wrong(&error))?;
        Ok(Self { geth, shows, timeout })
    }

    /// A tracer of one transaction, which may keep `most` bytes.
    pub(super) fn tracer(
        &self,
        context: TransactionContext,
        most: usize,
    ) -> Result<Tracer, CallError> {
        use GethDebugBuiltInTracerType as T;
        let inspector = DebugInspector::new(self.geth.clone())
            .map_err(|error| CallError::Params(wrong(&error)))?;
        let config = &self.geth.config;
        let memory = config.enable_memory.or(config.disable_memory.map(|not| !not));
        let steps = self.geth.tracer.is_none().then(|| Steps {
            stack: !config.disable_stack.unwrap_or(false),
            memory: memory.unwrap_or(false),
            storage: !config.disable_storage.unwrap_or(false),
            returned: config.is_return_data_enabled(),
        });
        let accounts = match self.geth.tracer {
            Some(GethDebugTracerType::BuiltInTracer(T::PreStateTracer | T::MuxTracer)) => {
                if self.shows.empty { Accounts::All } else { Accounts::NotEmpty }
            }
            _ => Accounts::None,
        };
        Ok(Tracer::new(Inner::Geth(Box::new(inspector)), context, steps, accounts, most))
    }

    /// What a tracer has seen of a transaction.
    pub(super) fn shown(&self, tracer: Tracer, left: Left<'_>) -> Result<Value, CallError> {
        let mut trace = tracer.geth.ok_or(CallError::Internal)?;
        number_logs(&mut trace, left);
        if !self.shows.parity_errors {
            geth_errors(&mut trace);
        }
        if let GethTrace::Default(frame) = &mut trace {
            if let Some(limit) = self.geth.config.limit.filter(|limit| *limit > 0) {
                frame.struct_logs.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            }
            // geth leaves out a refund of nothing.
            for log in &mut frame.struct_logs {
                log.refund_counter = log.refund_counter.filter(|refund| *refund > 0);
            }
        }
        serde_json::to_value(trace).map_err(|_| CallError::Internal)
    }
}

/// The logs that a transaction left, and the index in its block of the first.
#[derive(Clone, Copy)]
pub(super) struct Left<'a> {
    pub(super) logs: &'a [Log],
    pub(super) first: usize,
}

/// Gives logs the index that they have in their block, as receipts do. The library counts from the
/// transaction's first, and those that were taken back as well.
fn number_logs(trace: &mut GethTrace, left: Left<'_>) {
    match trace {
        GethTrace::CallTracer(root) => {
            let (mut frames, mut logs) = (vec![root], Vec::new());
            while let Some(frame) = frames.pop() {
                logs.extend(&mut frame.logs);
                frames.extend(&mut frame.calls);
            }
            logs.sort_by_key(|log| log.index);
            let mut at = 0;
            for log in logs {
                let is = |left: &Log| {
                    Some(left.address) == log.address
                        && log.topics.as_deref() == Some(left.topics())
                        && log.data.as_ref() == Some(&left.data.data)
                };
                // With the top call alone those of others are not among them.
                if let Some(found) = left.logs[at..].iter().position(is) {
                    log.index = Some((left.first + at + found) as u64);
                    at += found + 1;
                }
            }
        }
        GethTrace::MuxTracer(traces) => {
            traces.0.values_mut().for_each(|trace| number_logs(trace, left));
        }
        _ => {}
    }
}

/// The errors of flatCallTracer in geth's words: the library's are Parity's.
fn geth_errors(trace: &mut GethTrace) {
    match trace {
        GethTrace::FlatCallTracer(calls) => {
            for error in calls.iter_mut().filter_map(|call| call.trace.error.as_mut()) {
                let text = match error.as_str() {
                    "Reverted" => "execution reverted",
                    "Out of gas" => "out of gas",
                    "Bad instruction" => "invalid opcode",
                    "Bad jump destination" => "invalid jump destination",
                    "Insufficient balance for transfer" => "insufficient balance for transfer",
                    "Built-in failed" => "precompiled failed",
                    "Out of stack" => "stack limit reached 1024 (1023)",
                    _ => continue,
                };
                text.clone_into(error);
            }
        }
        GethTrace::MuxTracer(traces) => traces.0.values_mut().for_each(geth_errors),
        _ => {}
    }
}

fn wrong(error: &DebugInspectorError) -> Wrong {
    match error {
        DebugInspectorError::InvalidTracerConfig => {
            "tracerConfig: it is not what this tracer takes".into()
        }
        other => other.to_string(),
    }
}

fn known(name: &str) -> Result<(), Wrong> {
    if name.is_empty() || TRACERS.contains(&name) {
        return Ok(());
    }
    let name = short(name);
    Err(format!(
        "tracer {name:?} is not supported, nor is JavaScript; there are {}",
        TRACERS.join(", ")
    ))
}

/// Takes an option out, whatever the case of its name.
fn taken(object: &mut Map<String, Value>, name: &str) -> Result<Option<Value>, Wrong> {
    let is = |key: &&String| key.eq_ignore_ascii_case(name);
    let keys: Vec<String> = object.keys().filter(is).cloned().collect();
    let mut values = keys.iter().filter_map(|key| object.remove(key)).filter(|v| !v.is_null());
    let value = values.next();
    match values.next() {
        Some(_) => Err(format!("{name} is given twice")),
        None => Ok(value),
    }
}

fn flag(object: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Wrong> {
    taken(object, name)?.map(|value| field(name, value)).transpose()
}

/// A time as Go writes it, of one unit: `300ms`, `5s`.
fn duration(text: &str) -> Result<Duration, Wrong> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == 'µ');
    let wrong =
        || format!("timeout: a time such as \"500ms\" or \"5s\" is wanted, not {:?}", short(text));
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let unit = match &text[digits.len()..] {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())
}

impl Kind for Options {
    fn read(value: Value) -> Result<Self, Wrong> {
        let Value::Object(mut object) = value else { return Err("an object is wanted".into()) };
        for name in ["stateOverrides", "blockOverrides", "txIndex"] {
            if taken(&mut object, name)?.is_some() {
                return Err(format!("{name}: only a call can have it (debug_traceCall)"));
            }
        }
        Self::take(&mut object)
    }
}

impl Kind for CallOptions {
    fn read(value: Value) -> Result<Self, Wrong> {
        let Value::Object(mut object) = value else { return Err("an object is wanted".into()) };
        let options = Options::take(&mut object)?;
        let state = taken(&mut object, "stateOverrides")?;
        let block = taken(&mut object, "blockOverrides")?;
        let index = taken(&mut object, "txIndex")?;
        Ok(Self {
            options,
            state: state.map(|value| field("stateOverrides", value)).transpose()?,
            block: block.map(|value| field("blockOverrides", value)).transpose()?,
            index: index.map(|value| field::<U64>("txIndex", value)).transpose()?.map(|i| i.to()),
        })
    }
}
