# What CI runs.
check:
    bash .ci/run

# All tests.
test:
    cargo test --workspace

# The fast checks alone.
lint:
    bash .ci/named-tests
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Licences, sources and known holes of all dependencies; spelling. Needs cargo-deny, cargo-audit, typos.
audit:
    bash .ci/audit
    typos

# All benchmarks.
bench:
    cargo bench -p fragcast-bench

# A network on this machine, such as `just devnet --gateways 3`.
devnet *ARGS:
    cargo run --release -- devnet {{ARGS}}

# A fuzz target, such as `just fuzz shredder shred`. Needs a nightly toolchain and cargo-fuzz.
fuzz CRATE TARGET:
    cd {{CRATE}} && cargo +nightly fuzz run {{TARGET}} fuzz/corpus/{{TARGET}} fuzz/seeds/{{TARGET}}

# Every fuzz target: those that parse what peers send for SECONDS, the others for a third of it.
fuzz-all SECONDS="600":
    bash .ci/fuzz-all {{SECONDS}}

# Runs the network under random faults and liars, such as `just chaos --seeds 200`.
chaos *ARGS:
    cargo run --release -p netsim -- chaos {{ARGS}}
