# What CI runs.
check:
    bash .ci/run

# All tests.
test:
    cargo test --workspace

# The fast checks alone.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Needs cargo-deny and typos.
audit:
    cargo deny check
    typos

# All benchmarks.
bench:
    cargo bench -p fragcast-bench

# A network on this machine, such as `just devnet --gateways 3`.
devnet *ARGS:
    cargo run --release -- devnet {{ARGS}}

# A fuzz target, such as `just fuzz shredder shred`. Needs a nightly toolchain and cargo-fuzz.
fuzz CRATE TARGET:
    cd {{CRATE}} && cargo +nightly fuzz run {{TARGET}}
