//! Metrics of execution, of the database, and of the execution client.

use super::{Metric, Values, counter, gauge, label};

/// Fields of a Seal and kinds of errors.
const REASONS: Values = Values::AtMost(48, "reasons of the executor");

pub(super) const METRICS: &[Metric] = &[
    counter("fragcast_executed_frags_total", "Frags executed."),
    counter("fragcast_executed_transactions_total", "Transactions executed."),
    counter("fragcast_executed_gas_total", "Gas executed."),
    counter("fragcast_executor_busy_seconds_total", "Time that execution took, by step.")
        .by(&[label("step", Values::Of(&["frags", "seals"]))]),
    counter("fragcast_verdicts_total", "Blocks, by verdict.")
        .by(&[label("verdict", Values::Of(&["verified", "rejected", "unverified"]))]),
    counter("fragcast_not_verified_total", "Rejected and unverified blocks, by reason.")
        .by(&[label("reason", REASONS)]),
    counter("fragcast_retractions_total", "Blocks taken back, by reason.")
        .by(&[label("reason", REASONS)]),
    counter(
        "fragcast_executor_imported_blocks_total",
        "Blocks imported from the execution client.",
    ),
    counter("fragcast_executor_overrun_total", "Messages that the executor had no room for."),
    counter("fragcast_executor_evicted_total", "Blocks dropped because too many were open."),
    counter("fragcast_executor_held_back_total", "Messages of blocks too far ahead to execute."),
    gauge("fragcast_executor_queued", "Messages that wait for the executor."),
    gauge("fragcast_executor_open_blocks", "Blocks in execution or waiting."),
    gauge("fragcast_block_verified", "Newest verified block."),
    gauge("fragcast_block_durable", "Newest block that survives a crash."),
    gauge(
        "fragcast_pending_age_seconds",
        "Age of the newest executed frag of the open block; 0 while none is open.",
    ),
    gauge("fragcast_pending_stale", "1 while pending is too old and is answered as latest."),
    counter(
        "fragcast_pending_fallbacks_total",
        "Times that pending became too old and was answered as latest.",
    ),
    gauge(
        "fragcast_forks_lacking",
        "Forks that the chain's configuration names and this build lacks.",
    ),
    gauge(
        "fragcast_fork_lacking_timestamp_seconds",
        "When the first fork that this build lacks begins, Unix time; 0 without one.",
    ),
    gauge(
        "fragcast_fork_lacking_seconds",
        "Until a fork begins that this build lacks; negative once it has begun.",
    )
    .by(&[label("fork", Values::AtMost(32, "forks of the chain"))]),
    gauge("fragcast_store_failing", "1 while the database cannot be written."),
    counter("fragcast_store_commits_total", "Blocks written to the database."),
    counter("fragcast_store_retries_total", "Tries to write to the database that failed."),
    gauge("fragcast_store_queued", "Verified blocks that wait to be written."),
    gauge("fragcast_store_bytes", "Length of the database."),
    gauge("fragcast_store_commit_seconds", "What the last block took to write."),
    gauge("fragcast_disk_free_bytes", "Room that is left for this process where the database is."),
    counter("fragcast_follow_rounds_total", "Rounds of asking the execution client for blocks."),
    counter("fragcast_follow_blocks_total", "Blocks that the execution client gave."),
    counter(
        "fragcast_follow_total",
        "Rounds of asking the execution client that were out of the ordinary, by outcome.",
    )
    .by(&[label(
        "outcome",
        Values::Of(&[
            "unavailable",
            "refused",
            "corrupt",
            "moved",
            "out_of_reach",
            "not_taken",
            "reorgs",
        ]),
    )]),
    gauge("fragcast_client_head", "Newest block of the execution client, when it was last asked."),
    gauge("fragcast_engine_connected", "1 while the engine API answers."),
    counter("fragcast_engine_total", "Messages forwarded to the engine API, by outcome.").by(&[
        label(
            "outcome",
            Values::Of(&["valid", "refused", "ambiguous", "retried", "skipped", "queue_dropped"]),
        ),
    ]),
    gauge("fragcast_engine_last_valid_block", "Newest block whose Seal the engine API took."),
];
