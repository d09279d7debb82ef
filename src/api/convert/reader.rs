//! Reading a request: its faults, the limits on its texts, and the options of a change.
//!
//! Invariant: reading goes on after a fault. A request for a change carries its faults to the engine, which judges in one
//! order: does the object exist, is the etag current, are the fields valid.
//! Not here: the fields of particular messages.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use tonic::Status;

use super::Faults;
use super::options::{Mask, Options};
use crate::api::lineage::ForeignEtag;
use crate::api::status;
use crate::engine::change::{ChangeRequest, ChangeTarget};
use crate::policy::limits::Limits;
use crate::policy::name::Id;
use crate::policy::plan::{Mutation, Violation};
use crate::proto::v1::ChangeOptions;

/// A request while it is read. It notes faults as [`Faults`] does.
pub(in crate::api) struct Reader {
    faults: Faults,
    characters_max: usize,
    /// How a change is to be made.
    pub(in crate::api) options: Options,
}

/// A request for a change, unless there is no change to judge.
pub(in crate::api) type ReadChange = Result<ChangeRequest, Unreadable>;

/// Why there is no change to judge.
#[derive(Debug)]
pub(in crate::api) enum Unreadable {
    /// Its object could not be read. Holds all that is wrong with the request.
    Invalid(Vec<Violation>),
    /// Its etag is of another lineage.
    Etag(ForeignEtag),
}

impl From<ForeignEtag> for Unreadable {
    fn from(etag: ForeignEtag) -> Self {
        Self::Etag(etag)
    }
}

impl From<Unreadable> for Status {
    fn from(unreadable: Unreadable) -> Self {
        match unreadable {
            Unreadable::Invalid(violations) => status::invalid(violations),
            Unreadable::Etag(etag) => etag.into(),
        }
    }
}

impl Deref for Reader {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.faults
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut Faults {
        &mut self.faults
    }
}

impl Reader {
    /// Begins with the options of a change.
    pub(in crate::api) fn new(limits: &Limits, options: Option<ChangeOptions>) -> Self {
        let (mut faults, characters_max) = (Faults::default(), limits.description_characters_max);
        let options = Options::read(&mut faults, options, characters_max);
        Self { faults, characters_max, options }
    }

    /// A description, or another text of the caller's.
    pub(in crate::api) fn description(&mut self, field: &str, text: &str) -> Arc<str> {
        self.faults.text(field, text, self.characters_max)
    }

    /// Which fields an update names.
    pub(in crate::api) fn mask(&mut self, mask: Option<prost_types::FieldMask>, settable: &[&str]) -> Mask {
        Mask::read(&mut self.faults, mask, settable)
    }

    /// For changes that cannot wait for a confirmation.
    pub(in crate::api) fn refuse_confirm_within(&mut self) {
        if self.options.confirm_within.is_some() {
            self.add("options.confirm_within", "makes no sense here: leave it unset");
        }
    }

    /// The value, unless there was a fault so far.
    pub(in crate::api) fn result<T>(&mut self, value: Option<T>) -> Result<T, Status> {
        std::mem::take(&mut self.faults).result(value)
    }

    /// Ends reading. `target` is `None` if its name could not be read; the faults say so then.
    pub(in crate::api) fn change(self, target: Option<ChangeTarget>) -> ReadChange {
        let Options { validate_only, comment, gates, confirm_within } = self.options;
        let violations = self.faults.into_violations();
        let Some(target) = target else { return Err(Unreadable::Invalid(violations)) };
        let request = ChangeRequest::new(target);
        Ok(ChangeRequest { violations, comment, validate_only, gates, confirm_within, ..request })
    }

    /// The change inside an organization.
    pub(in crate::api) fn change_inside(self, id: Option<Id>, mutation: Option<Mutation>) -> ReadChange {
        self.change(id.zip(mutation).map(|(id, mutation)| ChangeTarget::Organization { id, mutation }))
    }
}
