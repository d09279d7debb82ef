//! Pages of lists (AIP-158).
//!
//! A token holds the first half of the lineage, where the next page begins and, for a list that can change, its state. It
//! is no secret and grants nothing. Its checksum binds it to its list.
//!
//! Invariant: paging through an unchanged list gives every item once, for any sizes of pages. A token of another lineage
//! is refused before anything else of its call.
//! Not here: what is listed.

use prost::Message;
use tonic::Status;

use super::convert::{Faults, names};
use super::{ANSWER_BYTES_MAX, ANSWER_BYTES_RESERVED, Api, status};
use crate::audit::lineage::Lineage;
use crate::policy::name::Id;

const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 1_000;

/// Where a page begins and how long it may be.
#[derive(Debug)]
pub(super) struct PageRequest {
    lineage: Lineage,
    list: String,
    state: String,
    /// Where the previous page ended. `None` for the first page.
    pub(super) cursor: Option<String>,
    /// Items of the page at most.
    pub(super) size: usize,
}

impl Api {
    /// Reads the organization whose list is asked for, and the page of it.
    pub(super) fn page_of_organization(
        &self,
        list: &str,
        parent: &str,
        page_size: i32,
        token: &str,
    ) -> Result<(Id, PageRequest), Status> {
        let mut faults = Faults::default();
        let id = names::organization(&mut faults, "parent", parent);
        let page = self.page_request(&mut faults, format!("{list} {parent}"), page_size, token)?;
        Ok((faults.result(id)?, page))
    }

    /// Reads size and token. `list` is the method with its parent and filters. The state is the token's, and empty for
    /// the first page.
    ///
    /// # Errors
    ///
    /// Where the token is of another lineage. Other faults are noted.
    pub(super) fn page_request(
        &self,
        faults: &mut Faults,
        list: String,
        page_size: i32,
        token: &str,
    ) -> Result<PageRequest, Status> {
        let lineage = self.engine()?.lineage();
        if is_foreign(token, lineage) {
            return Err(status::list_of_other_lineage());
        }
        Ok(PageRequest::new(faults, lineage, list, page_size, token))
    }
}

impl PageRequest {
    fn new(faults: &mut Faults, lineage: Lineage, list: String, page_size: i32, token: &str) -> Self {
        let size = match usize::try_from(page_size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => {
                let description = format!("`{page_size}` is negative: give 0 for the default or up to {PAGE_SIZE_MAX}");
                faults.add("page_size", description);
                PAGE_SIZE_DEFAULT
            }
        };
        if token.is_empty() {
            return Self { lineage, list, state: String::new(), cursor: None, size };
        }
        let Some((state, cursor)) = read_token(lineage, &list, token) else {
            let description = "is no token of this list: give one that the same call with the same filters returned";
            faults.add("page_token", description);
            return Self { lineage, list, state: String::new(), cursor: None, size };
        };
        Self { lineage, state: state.to_owned(), cursor: Some(cursor.to_owned()), list, size }
    }

    /// Requires that the list is still in the state that the token names.
    pub(super) fn of_state(self, state: String) -> Result<Self, Status> {
        if self.cursor.is_some() && self.state != state {
            return Err(status::list_changed());
        }
        Ok(self.in_state(state))
    }

    /// The state that the token names. Empty for the first page.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// Sets the state of the list, which the next token will name.
    pub(super) fn in_state(self, state: String) -> Self {
        Self { state, ..self }
    }

    /// The cursor read as the number of items on earlier pages.
    pub(super) fn offset(&self) -> usize {
        self.cursor.as_ref().and_then(|cursor| cursor.parse().ok()).unwrap_or(0)
    }

    /// The token of the page after `cursor`.
    pub(super) fn token(&self, cursor: &str) -> String {
        let checksum = checksum_of(&self.list, &self.state, cursor);
        format!("{}.{checksum}.{}.{cursor}", half_of(self.lineage), self.state)
    }

    /// Takes items for one page: as many as asked for and as fit the answer, one at least. Tells whether more follow.
    pub(super) fn take<T>(&self, items: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> (Vec<T>, bool) {
        let (page, next) = self.take_until(items, bytes);
        (page, next.is_some())
    }

    /// Takes items as [`take`](Self::take) does, and returns the first item that is not on the page.
    pub(super) fn take_until<T>(
        &self,
        items: impl Iterator<Item = T>,
        bytes: impl Fn(&T) -> usize,
    ) -> (Vec<T>, Option<T>) {
        let (mut page, mut room) = (Vec::new(), ANSWER_BYTES_MAX - ANSWER_BYTES_RESERVED);
        for item in items {
            // Each item of a repeated field costs up to 6 bytes more than itself.
            let size = bytes(&item) + 6;
            if page.len() >= self.size || (size > room && !page.is_empty()) {
                return (page, Some(item));
            }
            room = room.saturating_sub(size);
            page.push(item);
        }
        (page, None)
    }

    /// A page of a list that is counted: the items and the token of the next page, empty at the end.
    pub(super) fn page_by_offset<T: Message>(&self, items: impl Iterator<Item = T>) -> (Vec<T>, String) {
        let (page, more) = self.take(items, T::encoded_len);
        let next = if more { self.token(&(self.offset() + page.len()).to_string()) } else { String::new() };
        (page, next)
    }
}

/// The first half of a lineage, as tokens have it.
fn half_of(lineage: Lineage) -> String {
    format!("{:08x}", lineage.number() >> 32)
}

/// Whether a text has the form of a token, and is of another lineage.
fn is_foreign(token: &str, lineage: Lineage) -> bool {
    let is_number = |part: &str| part.len() == 8 && part.bytes().all(|byte| b"0123456789abcdef".contains(&byte));
    match token.splitn(4, '.').collect::<Vec<_>>().as_slice() {
        [half, checksum, _, _] => is_number(half) && is_number(checksum) && *half != half_of(lineage),
        _ => false,
    }
}

/// State and cursor of a token of this lineage and list.
fn read_token<'a>(lineage: Lineage, list: &str, token: &'a str) -> Option<(&'a str, &'a str)> {
    let (half, rest) = token.split_once('.')?;
    let (checksum, rest) = rest.split_once('.')?;
    let (state, cursor) = rest.split_once('.')?;
    let is_ours = half == half_of(lineage) && checksum == checksum_of(list, state, cursor);
    is_ours.then_some((state, cursor))
}

fn checksum_of(list: &str, state: &str, cursor: &str) -> String {
    let checksum = crc32c::crc32c(list.as_bytes());
    let checksum = crc32c::crc32c_append(checksum, state.as_bytes());
    format!("{:08x}", crc32c::crc32c_append(crc32c::crc32c_append(checksum, b"."), cursor.as_bytes()))
}
