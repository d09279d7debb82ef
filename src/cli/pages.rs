//! Lists that come in pages, read whole.
//!
//! Invariant: the pages of one reading belong to one state of the list: where it changed in between, it is read again
//! from the start.
//! Not here: what is listed.

use tonic::{Code, Status};

use super::error::CallError;

/// The most that a server answers with.
pub(super) const PAGE_SIZE: i32 = 1_000;

/// How often a list that keeps changing is read from the start.
const ATTEMPTS_MAX: usize = 5;

/// Reads all pages; `fetch` answers with the page that a token stands for, and `next` with the token after a page.
pub(super) async fn read<P>(
    mut fetch: impl AsyncFnMut(String) -> Result<P, Status>,
    next: impl Fn(&P) -> &str,
) -> Result<Vec<P>, CallError> {
    let mut pages: Vec<P> = Vec::new();
    let mut attempts = 1;
    loop {
        let token = pages.last().map(|page| next(page).to_owned());
        match (fetch(token.unwrap_or_default()).await, attempts) {
            (Ok(page), _) => {
                let last = next(&page).is_empty();
                pages.push(page);
                if last {
                    return Ok(pages);
                }
            }
            (Err(status), 1..ATTEMPTS_MAX) if status.code() == Code::Aborted && !pages.is_empty() => {
                pages.clear();
                attempts += 1;
            }
            (Err(status), _) => return Err(status.into()),
        }
    }
}
