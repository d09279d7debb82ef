//! Address groups: from requests to mutations and back (design.md §2.6, §3.3).
//!
//! Invariant: a replacement that comes in pieces changes nothing until all of it has come and is valid.
//! Not here: what a range is (`policy::address`).

use tonic::{Code, Response, Status, Streaming};

use super::caller::Caller;
use super::convert::Faults;
use super::convert::names::{self, optional_id, organization};
use super::convert::reader::ReadChange;
use super::convert::rule::to_group;
use super::mutation::ChangedOrganization;
use super::{Api, at_revision, status, to_i64, transport};
use crate::policy::plan::Mutation;
use crate::policy::problems::{Problem, Resource};
use crate::proto::v1::{self, ErrorReason};

/// Fields of a group that an update may name.
const SETTABLE: &[&str] = &["description"];

impl Api {
    pub(super) async fn create_address_group(
        &self,
        caller: Caller,
        request: v1::CreateAddressGroupRequest,
    ) -> Result<Response<v1::AddressGroup>, Status> {
        let changed = self.make(caller, self.read_create_group(request)).await?;
        group_answer(&changed)
    }

    pub(super) fn read_create_group(&self, request: v1::CreateAddressGroupRequest) -> ReadChange {
        let v1::CreateAddressGroupRequest { parent, address_group, address_group_id, options } = request;
        let mut read = self.change_reader(options);
        let parent = organization(&mut read, "parent", &parent);
        let id = optional_id(&mut read, "address_group_id", &address_group_id);
        let group = address_group.unwrap_or_default();
        let description = read.description("address_group.description", &group.description);
        let ranges = read.ranges("address_group.ranges", 0, &group.ranges).into_iter().collect();
        let mutation = Mutation::CreateGroup { id, description, ranges };
        read.change_inside(parent, Some(mutation))
    }

    pub(super) fn get_address_group(
        &self,
        request: v1::GetAddressGroupRequest,
    ) -> Result<Response<v1::AddressGroup>, Status> {
        let v1::GetAddressGroupRequest { name } = request;
        let (organization, id) =
            names::group(&name).map_err(|error| status::invalid_field("name", error.to_string()))?;
        let published = self.published(&organization)?;
        let view = &published.view;
        let group = view.organization.groups.get(id.as_str()).ok_or_else(|| status::not_found(&name))?;
        Ok(at_revision(to_group(self.etags()?, view, group), view.organization.revision))
    }

    pub(super) async fn list_address_groups(
        &self,
        request: v1::ListAddressGroupsRequest,
    ) -> Result<Response<v1::ListAddressGroupsResponse>, Status> {
        let v1::ListAddressGroupsRequest { parent, page_size, page_token } = request;
        let (id, page) = self.page_of_organization("groups", &parent, page_size, &page_token)?;
        let published = self.published(&id)?;
        let view = &published.view;
        let groups = view.organization.groups.iter_after(page.cursor.as_deref());
        let etags = self.etags()?;
        let groups = groups.map(|(id, group)| (id, to_group(etags, view, group)));
        let (groups, more) = page.take(groups, |(_, group)| prost::Message::encoded_len(group));
        let last = groups.last().filter(|_| more);
        let next_page_token = last.map(|(id, _)| page.token(id.as_str())).unwrap_or_default();
        let ends = groups.first().zip(groups.last()).map(|((first, _), (last, _))| (*first).clone()..=(*last).clone());
        let address_groups = groups.into_iter().map(|(_, group)| group).collect();
        let revision = view.organization.revision;
        // Any change of a group changes the organization's revision, so it can stand for the list.
        let (etag, problems) = (etags.groups(revision), Vec::new());
        let revision_shown = to_i64(revision);
        let mut answer =
            v1::ListAddressGroupsResponse { address_groups, next_page_token, etag, revision: revision_shown, problems };
        let is_listed = |problem: &Problem| match (&problem.resource, &ends) {
            (Resource::Group(id), Some(ends)) => ends.contains(id),
            _ => false,
        };
        let bytes = prost::Message::encoded_len(&answer);
        answer.problems = self.problems_of_listed(published, bytes, is_listed).await?;
        Ok(at_revision(answer, revision))
    }

    pub(super) async fn update_address_group(
        &self,
        caller: Caller,
        request: v1::UpdateAddressGroupRequest,
    ) -> Result<Response<v1::AddressGroup>, Status> {
        let changed = self.make(caller, self.read_update_group(request)).await?;
        group_answer(&changed)
    }

    pub(super) fn read_update_group(&self, request: v1::UpdateAddressGroupRequest) -> ReadChange {
        let v1::UpdateAddressGroupRequest { address_group, update_mask, options } = request;
        let mut read = self.change_reader(options);
        let mut group = address_group.unwrap_or_default();
        let etag = self.given_etag(std::mem::take(&mut group.etag))?;
        let named = read.note("address_group.name", names::group(&group.name));
        if update_mask.as_ref().is_none_or(|mask| mask.paths.is_empty()) && !group.ranges.is_empty() {
            let description = "cannot be updated here: use AddRanges, RemoveRanges or ReplaceRanges";
            read.add("address_group.ranges", description);
        }
        let mask = read.mask(update_mask, SETTABLE);
        let description = mask
            .names("description", !group.description.is_empty())
            .then(|| read.description("address_group.description", &group.description));
        let (organization, id) = named.unzip();
        let mutation = id.map(|id| Mutation::UpdateGroup { id, etag, description });
        read.change_inside(organization, mutation)
    }

    pub(super) async fn delete_address_group(
        &self,
        caller: Caller,
        request: v1::DeleteAddressGroupRequest,
    ) -> Result<Response<()>, Status> {
        let changed = self.make(caller, self.read_delete_group(request)).await?;
        Ok(at_revision((), changed.revision))
    }

    pub(super) fn read_delete_group(&self, request: v1::DeleteAddressGroupRequest) -> ReadChange {
        let v1::DeleteAddressGroupRequest { name, etag, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::group(&name)).unzip();
        let mutation = id.map(|id| Mutation::DeleteGroup { id, etag });
        read.change_inside(organization, mutation)
    }

    pub(super) async fn add_ranges(
        &self,
        caller: Caller,
        request: v1::AddRangesRequest,
    ) -> Result<Response<v1::AddressGroup>, Status> {
        let changed = self.make(caller, self.read_add_ranges(request)).await?;
        group_answer(&changed)
    }

    pub(super) fn read_add_ranges(&self, request: v1::AddRangesRequest) -> ReadChange {
        let v1::AddRangesRequest { name, ranges, options } = request;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::group(&name)).unzip();
        let ranges = read.ranges("ranges", 0, &ranges).into_iter().collect();
        let mutation = id.map(|id| Mutation::AddRanges { id, ranges });
        read.change_inside(organization, mutation)
    }

    pub(super) async fn remove_ranges(
        &self,
        caller: Caller,
        request: v1::RemoveRangesRequest,
    ) -> Result<Response<v1::AddressGroup>, Status> {
        let changed = self.make(caller, self.read_remove_ranges(request)).await?;
        group_answer(&changed)
    }

    pub(super) fn read_remove_ranges(&self, request: v1::RemoveRangesRequest) -> ReadChange {
        let v1::RemoveRangesRequest { name, ranges, options } = request;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::group(&name)).unzip();
        let ranges = read.ranges("ranges", 0, &ranges).into_iter().collect();
        let mutation = id.map(|id| Mutation::RemoveRanges { id, ranges });
        read.change_inside(organization, mutation)
    }

    pub(super) fn list_ranges(
        &self,
        request: v1::ListRangesRequest,
    ) -> Result<Response<v1::ListRangesResponse>, Status> {
        let v1::ListRangesRequest { name, page_size, page_token } = request;
        let mut faults = Faults::default();
        let named = faults.note("name", names::group(&name));
        let page = self.page_request(&mut faults, format!("ranges {name}"), page_size, &page_token)?;
        let (organization, id) = faults.result(named)?;
        let published = self.published(&organization)?;
        let organization = &published.view.organization;
        let group = organization.groups.get(id.as_str()).ok_or_else(|| status::not_found(&name))?;
        let page = page.of_state(group.content_changed_at.to_string())?;
        let offset = page.offset();
        let ranges = group.ranges().iter_from(offset).map(|range| range.to_string());
        let (ranges, more) = page.take(ranges, String::len);
        let next_page_token = if more { page.token(&(offset + ranges.len()).to_string()) } else { String::new() };
        let (etag, revision) = (self.etags()?.group(group.changed_at), to_i64(organization.revision));
        let answer = v1::ListRangesResponse { ranges, next_page_token, etag, revision };
        Ok(at_revision(answer, organization.revision))
    }

    /// A replacement that comes in one message, as previews have it.
    pub(super) fn read_replace_ranges(&self, request: v1::ReplaceRangesRequest) -> ReadChange {
        let v1::ReplaceRangesRequest { name, etag, expected_count, allow_empty, ranges, options } = request;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::group(&name)).unzip();
        let parsed = read.ranges("ranges", 0, &ranges).into_iter().collect();
        check_count(&mut read, ranges.len(), expected_count, allow_empty);
        let mutation = id.map(|id| Mutation::ReplaceRanges { id, etag, ranges: parsed });
        read.change_inside(organization, mutation)
    }

    pub(super) async fn replace_ranges(
        &self,
        caller: Caller,
        mut stream: Streaming<v1::ReplaceRangesRequest>,
    ) -> Result<Response<v1::AddressGroup>, Status> {
        let Some(first) = stream.message().await.map_err(transport::explained)? else {
            return Err(status::invalid_field("name", "is required: send at least one message"));
        };
        let v1::ReplaceRangesRequest { name, etag, expected_count, allow_empty, ranges, options } = first;
        let etag = self.given_etag(etag)?;
        let mut read = self.change_reader(options);
        let (organization, id) = read.note("name", names::group(&name)).unzip();
        let mut parsed = read.ranges("ranges", 0, &ranges);
        let mut count = ranges.len();
        while let Some(message) = stream.message().await.map_err(transport::explained)? {
            check_later_message(&mut read, &message);
            parsed.extend(read.ranges("ranges", count, &message.ranges));
            count += message.ranges.len();
            if count > self.limits.ranges_per_group_max {
                let refusal = crate::policy::plan::PlanError::LimitReached {
                    what: format!("ranges of `{name}`"),
                    max: self.limits.ranges_per_group_max,
                    would_be: count,
                };
                return Err(status::plan(refusal));
            }
        }
        let reason = check_count(&mut read, count, expected_count, allow_empty);
        let violations = read.violations().to_vec();
        let ranges = parsed.into_iter().collect();
        let mutation = id.map(|id| Mutation::ReplaceRanges { id, etag, ranges });
        let changed = self.make(caller, read.change_inside(organization, mutation)).await;
        match (changed.and_then(|changed| group_answer(&changed)), reason) {
            // The group exists and the etag is current, so the refusal is about the stream.
            (Err(refusal), Some(reason)) if refusal.code() == Code::InvalidArgument => {
                Err(status::invalid_because(reason, violations))
            }
            (answer, _) => answer,
        }
    }
}

/// Fields of the first message must not come again.
fn check_later_message(faults: &mut Faults, message: &v1::ReplaceRangesRequest) {
    let v1::ReplaceRangesRequest { name, etag, expected_count, allow_empty, ranges: _, options } = message;
    let given = [
        ("name", !name.is_empty()),
        ("etag", !etag.is_empty()),
        ("expected_count", *expected_count != 0),
        ("allow_empty", *allow_empty),
        ("options", options.is_some()),
    ];
    for (field, _) in given.iter().filter(|(_, given)| *given) {
        faults.add(*field, "belongs in the first message: leave it out of the others");
    }
}

/// Notes ranges that are incomplete, or empty without `allow_empty`. The reason is that of a stream without other faults.
fn check_count(faults: &mut Faults, count: usize, expected: i64, allow_empty: bool) -> Option<ErrorReason> {
    let sound = faults.violations().is_empty();
    let expected = faults.unsigned("expected_count", expected);
    let reason = if expected != 0 && expected != count as u64 {
        let description =
            format!("`{expected}` ranges were announced and {count} came: send them again, or correct it");
        faults.add("expected_count", description);
        ErrorReason::CountMismatch
    } else if count == 0 && !allow_empty {
        faults.add("ranges", "no ranges came: set `allow_empty` if the group is to become empty");
        ErrorReason::EmptyReplacement
    } else {
        return None;
    };
    sound.then_some(reason)
}

fn group_answer(changed: &ChangedOrganization) -> Result<Response<v1::AddressGroup>, Status> {
    let view = &changed.view;
    let group = changed.object.as_ref().and_then(|id| view.organization.groups.get(id.as_str()));
    let group = group.ok_or_else(|| status::not_found("the address group"))?;
    let mut answer = to_group(changed.etags, view, group);
    answer.etag = changed.etag(answer.etag);
    answer.revision = to_i64(changed.revision);
    Ok(at_revision(answer, changed.revision))
}
