//! FirewallService (design.md §3.3): which call goes where.
//!
//! Invariant: every call of the service is here, and none does anything by itself.
//! Not here: rules (`rules`) and address groups (`groups`, `patch_ranges`).

use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::caller::Caller;
use super::serve::serve;
use crate::proto::v1::firewall_service_server::FirewallService;
use crate::proto::v1::{
    AddRangesRequest, AddressGroup, CreateAddressGroupRequest, CreateRuleRequest, DeleteAddressGroupRequest,
    DeleteRuleRequest, GetAddressGroupRequest, GetRuleRequest, ListAddressGroupsRequest, ListAddressGroupsResponse,
    ListRangesRequest, ListRangesResponse, ListRulesRequest, ListRulesResponse, MoveRuleRequest, PatchRangesRequest,
    PatchRangesResponse, RemoveRangesRequest, ReorderRulesRequest, ReorderRulesResponse, ReplaceRangesRequest,
    ReplaceRulesRequest, ReplaceRulesResponse, Rule, UpdateAddressGroupRequest, UpdateRuleRequest,
};

serve!(FirewallService {
    changes create_rule(CreateRuleRequest) -> Rule;
    waits get_rule(GetRuleRequest) -> Rule;
    waits list_rules(ListRulesRequest) -> ListRulesResponse;
    changes update_rule(UpdateRuleRequest) -> Rule;
    changes delete_rule(DeleteRuleRequest) -> ();
    changes reorder_rules(ReorderRulesRequest) -> ReorderRulesResponse;
    changes move_rule(MoveRuleRequest) -> Rule;
    changes replace_rules(ReplaceRulesRequest) -> ReplaceRulesResponse;
    changes create_address_group(CreateAddressGroupRequest) -> AddressGroup;
    at_once get_address_group(GetAddressGroupRequest) -> AddressGroup;
    waits list_address_groups(ListAddressGroupsRequest) -> ListAddressGroupsResponse;
    changes update_address_group(UpdateAddressGroupRequest) -> AddressGroup;
    changes delete_address_group(DeleteAddressGroupRequest) -> ();
    changes add_ranges(AddRangesRequest) -> AddressGroup;
    changes remove_ranges(RemoveRangesRequest) -> AddressGroup;
    at_once list_ranges(ListRangesRequest) -> ListRangesResponse;
    changes replace_ranges(Streaming<ReplaceRangesRequest>) -> AddressGroup;
    changes patch_ranges(Streaming<PatchRangesRequest>) -> PatchRangesResponse;
});
