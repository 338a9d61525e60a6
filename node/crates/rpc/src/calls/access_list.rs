//! `eth_createAccessList`: what a transaction touches (EIP-2930).
//!
//! With the list given to it a transaction may take another path, because it can see its gas. So it
//! is run again with its own list until the list stays the same.

use alloy_eips::eip2930::{AccessList, AccessListResult};
use alloy_primitives::U256;
use revm_inspectors::access_list::AccessListInspector;

use super::error::CallError;
use super::outcome::Status;
use super::{CallArgs, CallSite};

/// After this many executions the list is returned even if it still changes.
const MAX_ROUNDS: usize = 16;

/// The list, the gas that is used with it, and why the transaction fails if it does.
pub(super) fn create(site: &CallSite, args: CallArgs) -> Result<AccessListResult, CallError> {
    let mut ground = site.ground(args.overrides, args.state)?;
    let mut request = args.request;
    let mut list = request.access_list.take().unwrap_or_default();
    let mut rounds = 0;
    loop {
        request.access_list = Some(list.clone());
        let asked = ground.tx(request.clone())?;
        let mut inspector = AccessListInspector::new(list.clone());
        let outcome = ground.transact(&asked, &mut inspector)?;
        let found = sorted(inspector.into_access_list());
        rounds += 1;
        if found != list && rounds < MAX_ROUNDS {
            list = found;
            continue;
        }
        let error = match outcome.status {
            Status::Success => None,
            Status::Reverted => Some("execution reverted".to_owned()),
            Status::Halted(message, _) => Some(message),
        };
        let gas_used = U256::from(outcome.gas_used);
        return Ok(AccessListResult { access_list: list, gas_used, error });
    }
}

/// Sorts a list, so that equal lists compare equal.
fn sorted(mut list: AccessList) -> AccessList {
    list.0.sort_by_key(|item| item.address);
    for item in &mut list.0 {
        item.storage_keys.sort();
    }
    list
}
