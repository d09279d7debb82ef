//! Lists that come in pages: read whole, or their first items.
//!
//! Invariant: the pages of one reading belong to one state of the list: where it changed in between, it is read again
//! from the start. Lists of what only grows at their end (`read_some`) have nothing to read again.
//! Not here: what is listed.

use tonic::{Code, Status};

use portcullis_client::CallError;

/// The most that a server answers with.
pub(super) const PAGE_SIZE: i32 = 1_000;

/// How many items of a list that has no end to speak of are shown, unless more are asked for.
pub(super) const LIMIT_DEFAULT: u32 = 100;

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

/// The first items of a list, and whether there are more.
pub(super) struct FirstItems<T> {
    /// The items, in the order of the list.
    pub(super) items: Vec<T>,
    /// Whether the list goes on.
    pub(super) more: bool,
}

/// Reads pages until there are `limit` items; `fetch` answers with the items of the page that a size and a token stand
/// for, and with the token after it.
pub(super) async fn read_some<T>(
    limit: u32,
    mut fetch: impl AsyncFnMut(i32, String) -> Result<(Vec<T>, String), Status>,
) -> Result<FirstItems<T>, CallError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let missing = i32::try_from(limit.saturating_sub(items.len())).unwrap_or(PAGE_SIZE);
        let (page, next) = fetch(missing.min(PAGE_SIZE), token).await?;
        items.extend(page);
        let more = items.len() > limit || !next.is_empty();
        if items.len() >= limit || next.is_empty() {
            items.truncate(limit);
            return Ok(FirstItems { items, more });
        }
        token = next;
    }
}
