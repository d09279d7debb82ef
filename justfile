# What contributors run. `just --list` names it all; CONTRIBUTING.md says when.

set positional-arguments

# Format, lints and documentation, as CI does
check:
    cargo fmt --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items

# All tests, or those whose names contain the arguments: `just test groups_api`
test *names:
    cargo test --locked --workspace -- "$@"

# One bench: `just bench decide -- ratios`
bench name *arguments:
    cargo bench --locked --bench "$@"

# Instructions of the Check path against benches/counts.txt; `just counts --update` writes them
counts *arguments:
    python3 .ci/counts "$@"

# docs/cli.md and docs/configuration.md, as the program describes itself
docs:
    PORTCULLIS_WRITE_DOCS=1 cargo test --locked --test docs

# The sessions that README.md and docs/tour.md show; wants grpcurl on the path
tour:
    cargo build --locked
    python3 .ci/walkthrough "${CARGO_TARGET_DIR:-target}/debug/portcullis" "$(command -v grpcurl)"

# The service, on loopback, with its data in ./portcullis-data
serve *arguments:
    cargo run --release -- serve "$@"

# The container image
image:
    docker build -t portcullis .

# Everything a change must pass
ci:
    .ci/run
