//! Changing the ranges of an address group by a stream of any length (design.md §3.3).
//!
//! Invariant: nothing is changed until all of the stream has come and is valid; then everything is, in one change.
//! Not here: replacing all ranges, and patches of one message (`groups`).

use std::sync::Arc;

use tonic::{Code, Response, Status, Streaming};

use super::caller::Caller;
use super::convert::Faults;
use super::convert::names::{self, organization};
use super::convert::reader::{ReadChange, Reader};
use super::convert::rule::to_group;
use super::mutation::ChangedOrganization;
use super::{Api, at_revision, status, to_i64, transport};
use crate::policy::address::Range;
use crate::policy::group::Group;
use crate::policy::intervals::Share;
use crate::policy::name::Id;
use crate::policy::plan::{Mutation, PlanError, Violation};
use crate::policy::ranges::RangeList;
use crate::proto::v1::{self, ErrorReason};

/// Ranges without effect that an answer names.
const NAMED_MAX: usize = 100;

/// Ranges that an answer names for one whose addresses are still in the group.
const COVERING_MAX: usize = 10;

/// The id by which a creation lets the server make one up.
const ANY_ID: &str = "-";

/// The ranges of one direction, as far as they have come.
struct Half {
    field: &'static str,
    /// The name of the group.
    group: Arc<str>,
    ranges: Vec<Range>,
    count: usize,
    count_max: usize,
    /// The indexes of those that are no ranges, ascending.
    malformed: Vec<usize>,
}

/// A patch while its stream is read.
struct Patch {
    read: Reader,
    organization: Option<Id>,
    id: Option<Id>,
    etag: Option<String>,
    create: Option<Arc<str>>,
    add: Half,
    remove: Half,
    expected: [i64; 2],
}

/// The ranges that were asked for, kept to tell what had no effect.
struct Asked {
    added: Arc<RangeList>,
    removed: Arc<RangeList>,
}

impl Half {
    fn new(field: &'static str, group: &Arc<str>, count_max: usize) -> Self {
        Self { field, group: Arc::clone(group), ranges: Vec::new(), count: 0, count_max, malformed: Vec::new() }
    }

    /// Reads the ranges of one message.
    fn extend(&mut self, faults: &mut Faults, texts: &[String]) -> Result<(), Status> {
        let first = self.count;
        self.count += texts.len();
        if self.count > self.count_max {
            let what = format!("ranges of `{}`", self.group);
            return Err(status::plan(PlanError::LimitReached { what, max: self.count_max, would_be: self.count }));
        }
        self.ranges.reserve(texts.len());
        for (index, text) in (first..).zip(texts) {
            if let Some(range) = faults.parse_item(self.field, index, text) {
                self.ranges.push(range);
            } else if faults.is_full() {
                break;
            } else {
                self.malformed.push(index);
            }
        }
        Ok(())
    }

    /// The index in the stream of a range that could be read.
    fn index_of(&self, place: usize) -> usize {
        self.malformed.iter().fold(place, |index, malformed| if *malformed <= index { index + 1 } else { index })
    }

    /// Notes a count other than the announced one; returns whether it is.
    fn check_count(&self, faults: &mut Faults, field: &str, expected: i64) -> bool {
        let expected = faults.unsigned(field, expected);
        let differs = expected != 0 && expected != self.count as u64;
        if differs {
            let count = self.count;
            let description =
                format!("`{expected}` ranges were announced and {count} came: send them again, or correct it");
            faults.add(field, description);
        }
        differs
    }
}

impl Patch {
    /// Begins with the first message of a stream.
    fn begin(api: &Api, first: v1::PatchRangesRequest) -> Result<Self, Status> {
        let v1::PatchRangesRequest {
            name,
            etag,
            create,
            expected_add_count,
            expected_remove_count,
            add,
            remove,
            options,
        } = first;
        let etag = api.given_etag(etag)?;
        let mut read = api.change_reader(options);
        let (organization, id) = read_name(&mut read, &name, create.is_some());
        if create.is_some() && etag.is_some() {
            read.add("etag", "makes no sense for a group to create: leave it empty");
        }
        let create =
            create.map(|v1::GroupCreation { description }| read.description("create.description", &description));
        let (name, max) = (Arc::from(name), api.limits.ranges_per_group_max);
        let (mut add_half, mut remove_half) = (Half::new("add", &name, max), Half::new("remove", &name, max));
        add_half.extend(&mut read, &add)?;
        remove_half.extend(&mut read, &remove)?;
        let expected = [expected_add_count, expected_remove_count];
        Ok(Self { read, organization, id, etag, create, add: add_half, remove: remove_half, expected })
    }

    /// Goes on with a later message.
    fn extend(&mut self, message: &v1::PatchRangesRequest) -> Result<(), Status> {
        let v1::PatchRangesRequest {
            name,
            etag,
            create,
            expected_add_count,
            expected_remove_count,
            add,
            remove,
            options,
        } = message;
        let given = [
            ("name", !name.is_empty()),
            ("etag", !etag.is_empty()),
            ("create", create.is_some()),
            ("expected_add_count", *expected_add_count != 0),
            ("expected_remove_count", *expected_remove_count != 0),
            ("options", options.is_some()),
        ];
        for (field, _) in given.iter().filter(|(_, given)| *given) {
            self.read.add(*field, "belongs in the first message: leave it out of the others");
        }
        self.add.extend(&mut self.read, add)?;
        self.remove.extend(&mut self.read, remove)
    }

    /// Ends with the last message. The violations are for a refusal that is about the counts alone.
    fn end(self) -> (ReadChange, Asked, Option<Vec<Violation>>) {
        let Self { mut read, organization, id, etag, create, add, remove, expected } = self;
        let is_sound = read.violations().is_empty();
        if create.is_some() && remove.count > 0 {
            read.add("remove", "is not for a group to create: leave the ranges out of `add`");
        }
        let added: RangeList = add.ranges.iter().copied().collect();
        let removed: RangeList = remove.ranges.iter().copied().collect();
        check_both(&mut read, &remove, &added, &removed);
        let is_sound = is_sound && read.violations().is_empty();
        let [expected_add, expected_remove] = expected;
        let differs = add.check_count(&mut read, "expected_add_count", expected_add)
            | remove.check_count(&mut read, "expected_remove_count", expected_remove);
        let miscounted = (is_sound && differs).then(|| read.violations().to_vec());
        let asked = Asked { added: Arc::new(added), removed: Arc::new(removed) };
        let (added, removed) = (Arc::clone(&asked.added), Arc::clone(&asked.removed));
        let mutation = match create {
            Some(description) => Some(Mutation::CreateGroup { id, description, ranges: (*added).clone() }),
            None => id.map(|id| Mutation::PatchRanges { id, etag, added, removed }),
        };
        (read.change_inside(organization, mutation), asked, miscounted)
    }
}

impl Api {
    /// A patch that comes in one message, as previews have it.
    pub(super) fn read_patch_ranges(&self, request: v1::PatchRangesRequest) -> Result<ReadChange, Status> {
        Ok(Patch::begin(self, request)?.end().0)
    }

    pub(super) async fn patch_ranges(
        &self,
        caller: Caller,
        mut stream: Streaming<v1::PatchRangesRequest>,
    ) -> Result<Response<v1::PatchRangesResponse>, Status> {
        let Some(first) = stream.message().await.map_err(transport::explained)? else {
            return Err(status::invalid_field("name", "is required: send at least one message"));
        };
        let mut patch = Patch::begin(self, first)?;
        while let Some(message) = stream.message().await.map_err(transport::explained)? {
            patch.extend(&message)?;
        }
        let (read, asked, miscounted) = patch.end();
        match (self.make(caller, read).await, miscounted) {
            // The group exists and the etag is current, so the refusal is about the stream.
            (Err(refusal), Some(violations)) if refusal.code() == Code::InvalidArgument => {
                Err(status::invalid_because(ErrorReason::CountMismatch, violations))
            }
            (changed, _) => patched(&changed?, &asked),
        }
    }
}

/// Organization and id of the group. No id: the server makes one up, or the name is at fault.
fn read_name(read: &mut Reader, name: &str, creates: bool) -> (Option<Id>, Option<Id>) {
    let parent = name.strip_suffix(ANY_ID).and_then(|rest| rest.strip_suffix("/addressGroups/"));
    match parent.filter(|_| creates) {
        Some(parent) => (organization(read, "name", parent), None),
        None => read.note("name", names::group(name)).unzip(),
    }
}

/// Notes ranges that are to be added and to be removed.
fn check_both(faults: &mut Faults, remove: &Half, added: &RangeList, removed: &RangeList) {
    let only_removed = removed.without(added);
    if only_removed.len() == removed.len() {
        return;
    }
    let both: std::collections::HashSet<Range> = removed.without(&only_removed).iter().collect();
    for (place, range) in remove.ranges.iter().enumerate().filter(|(_, range)| both.contains(range)) {
        if faults.is_full() {
            break;
        }
        let field = format!("remove[{}]", remove.index_of(place));
        faults.add(field, format!("`{range}` is to be added too: give it in one of `add` and `remove`"));
    }
}

/// What a patch did, from the group before and after it.
fn patched(changed: &ChangedOrganization, asked: &Asked) -> Result<Response<v1::PatchRangesResponse>, Status> {
    let view = &changed.view;
    let id = changed.object.as_ref().map_or("", Id::as_str);
    let group = view.organization.groups.get(id).ok_or_else(|| status::not_found("the address group"))?;
    let before = changed.before.as_ref().and_then(|before| before.groups.get(id));
    let before = before.map(|group| Arc::clone(group.ranges())).unwrap_or_default();
    let new = asked.added.without(&before).len();
    let absent = asked.removed.without(&before);
    let removed = asked.removed.without(&absent);
    let is_covered = |range: &Range| group.set().share_of(*range) != Share::Nothing;
    let shown_of = |range: Range| to_removal(group, range);
    let mut shown = to_group(changed.etags, view, group);
    shown.etag = changed.etag(shown.etag);
    shown.revision = to_i64(changed.revision);
    let answer = v1::PatchRangesResponse {
        address_group: Some(shown),
        added_count: count(new),
        removed_count: count(removed.len()),
        present_count: count(asked.added.len() - new),
        absent_count: count(absent.len()),
        absent_ranges: absent.iter().take(NAMED_MAX).map(shown_of).collect(),
        still_covered_count: count(removed.iter().filter(is_covered).count()),
        still_covered_ranges: removed.iter().filter(is_covered).take(NAMED_MAX).map(shown_of).collect(),
    };
    Ok(at_revision(answer, changed.revision))
}

/// A range that a group does not have, and the ranges that its addresses are still in.
fn to_removal(group: &Group, range: Range) -> v1::RangeToRemove {
    let wider = group.ranges().wider(range).map(|wider| wider.to_string());
    let (covering_ranges, covering_count) = if let Some(wider) = &wider {
        (vec![wider.clone()], 1)
    } else {
        let inside = || group.ranges().inside(range);
        (inside().take(COVERING_MAX).map(|range| range.to_string()).collect(), inside().count())
    };
    v1::RangeToRemove {
        range: range.to_string(),
        covered_by: wider.unwrap_or_default(),
        covering_ranges,
        covering_count: count(covering_count),
        partly: group.set().share_of(range) == Share::Part,
    }
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
