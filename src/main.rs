//! The `portcullis` binary.
//!
//! Invariant: it parses, runs and exits; whatever a command does is in the library.
//! Not here: the commands (`cli`).

use std::process::ExitCode;

use mimalloc::MiMalloc;
use portcullis::cli::Cli;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match Cli::try_from_args(std::env::args_os()) {
        Ok(cli) => cli.run().into(),
        Err(usage) => usage.exit(),
    }
}
