# What CI runs.
check:
    bash .ci/run

test:
    cargo test --workspace

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Needs cargo-deny and typos.
audit:
    cargo deny check
    typos

bench:
    cargo bench -p fragcast-bench

devnet *ARGS:
    cargo run --release -- devnet {{ARGS}}

fuzz CRATE TARGET:
    cd {{CRATE}} && cargo +nightly fuzz run {{TARGET}}
